package failover

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// TestFreshestTakesOver at once, as the newest sync point says and not as the ages do, and only of a node that is down.
func TestFreshestTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4)
		f.share("a", "auto", 1, 2, 3)
		f.share("b", "auto", 1, 2, 3)
		f.share("c", "auto", 1, 2, 3)
		f.share("elsewhere", "auto", 4, 1, 2)
		f.synced("a", 2, 1, 7, 9*time.Second)
		f.synced("a", 3, 1, 8, 12*time.Second)
		f.synced("b", 2, 2, 1, 5*time.Second)
		f.synced("b", 3, 1, 9, time.Second) // of an earlier epoch: an active replica that has been replaced
		f.synced("c", 2, 1, 9, time.Second)
		f.synced("c", 3, 2, 1, 5*time.Second)
		c := f.controller()
		defer f.lead(c)()
		f.wantCommands()
		began := time.Now()
		f.down(1)
		f.wantCommands("failover a-3 -12s b-2 -5s c-3 -5s")
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		f.wantActive("a", 3)
		f.wantActive("b", 2)
		f.wantActive("elsewhere", 4)
		for _, id := range []cairn.ReplicaID{"a-1", "b-1"} {
			if keep := f.View().Replica(id).Want.Keep; keep.Snapshot == "" || keep.Base == "" {
				t.Errorf("%s: what it has is not kept: %+v", id, keep)
			}
		}
		after(10 * time.Second)
		f.wantCommands()
		f.wantReason(c, "a", "")
	})
}

// TestEqualSyncPoints: when two have the same data, what one of them knows of its age is true of both.
func TestEqualSyncPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 3)
		f.share("a", "auto", 1, 2, 3)
		f.synced("a", 2, 1, 7, 9*time.Second)
		f.synced("a", 3, 1, 7, 2*time.Second)
		defer f.lead(f.controller())()
		f.down(1)
		f.wantCommands("failover a-2 -2s")
	})
}

func TestSlowAndSilentCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4)
		f.share("a", "auto", 1, 2, 3)
		f.share("only", "auto", 1, 2)
		f.synced("a", 2, 1, 9, time.Second)
		f.slow["n2"], f.slow["n3"] = time.Hour, askTimeout/2
		c := f.controller()
		defer f.lead(c)()
		f.down(1)
		after(askTimeout)
		f.wantCommands("failover a-3 -1s") // without the silent one, and not before its time is over
		f.wantReason(c, "only", "node n2 does not answer: not within 500ms")
		f.wantActive("only", 1)
		f.set(func() { f.slow["n2"] = 0 })
		after(interval)
		f.wantCommands("failover only-2 -1s") // what was not written while it waited is not lost
		f.wantActive("only", 2)
	})
}

func TestWhoStays(t *testing.T) {
	for _, test := range []struct {
		name, kind string
		prepare    func(f *fixture)
		want       string
	}{
		{"policy", "manual", func(*fixture) {}, "type manual leaves failover to an operator"},
		{"nobody in sync", "auto", func(f *fixture) {
			f.report("a", 2, func(h *cairn.ReplicaHave) { h.InSync = false })
			f.down(3)
		}, "no replica can take over: the one on node n2 is out_of_sync; node n3 is down"},
		{"never complete", "auto", func(f *fixture) {
			f.must(&fsm.RemoveReplica{Replica: "a-2"})
			f.must(&fsm.RemoveReplica{Replica: "a-3"})
		}, "the one on node n2 is being removed; the one on node n3 is being removed"},
		{"no sync point", "auto", func(f *fixture) { clear(f.states) }, "node n2 has no sync point of it; node n3 has no sync point of it"},
		{"a user's snapshot is no sync point", "auto", func(f *fixture) {
			for id, state := range f.states {
				state.Newest = "0198c0de-0000-7000-8000-000000000001"
				f.states[id] = state
			}
		}, "node n2 has no sync point of it"},
		{"max_rpo", "strict", func(f *fixture) {
			f.synced("a", 2, 1, 3, 42*time.Second)
			f.synced("a", 3, 1, 2, 52*time.Second)
		}, "node n2 would take over without the last 42s of writes, and type strict allows 30s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 3)
				f.share("a", test.kind, 1, 2, 3)
				test.prepare(f)
				c := f.controller()
				stop := f.lead(c)
				f.down(1)
				after(10 * interval)
				f.wantCommands()
				f.wantActive("a", 1)
				f.wantReason(c, "a", test.want)
				if n := strings.Count(f.logged.String(), "shares wait"); n != 1 {
					t.Errorf("logged %d times:\n%s", n, &f.logged)
				}
				stop()
				f.wantReason(c, "a", "")
			})
		})
	}
}

// TestMaxRPOCountsFromTheEndOfWrites: a share that waits loses no more by waiting. A node that was up for a moment may have
// written in it.
func TestMaxRPOCountsFromTheEndOfWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "strict", 1, 2)
		f.synced("a", 2, 1, 1, 5*time.Second)
		f.report("a", 2, func(h *cairn.ReplicaHave) {}) // out of sync
		defer f.lead(f.controller())()
		f.down(1)
		after(time.Hour)
		f.wantCommands()
		f.report("a", 2, func(h *cairn.ReplicaHave) { h.InSync = true })
		after(interval)
		f.wantCommands("failover a-2 -5s")
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "strict", 1, 2)
		f.synced("a", 2, 1, 1, 5*time.Second)
		f.slow["n2"] = time.Hour
		c := f.controller()
		defer f.lead(c)()
		f.down(1)
		after(time.Minute)
		f.up(1) // the controller, which waits for an answer, sees neither of these changes
		f.down(1)
		f.set(func() { f.slow["n2"] = 0 })
		after(2 * interval)
		f.wantCommands()
		f.wantReason(c, "a", "without the last 1m5s of writes")
	})
}

// TestNodeIsBack while the candidates are asked: the state machine refuses, and that is that.
func TestNodeIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "auto", 1, 2)
		f.between = func() { f.up(1) }
		c := f.controller()
		defer f.lead(c)()
		f.down(1)
		after(10 * interval)
		f.wantCommands("failover a-2 -1s")
		f.wantActive("a", 1)
		f.wantReason(c, "a", "")
	})
}

// TestRefusalIsNotRepeated before something has changed: every proposal is an entry of the log.
func TestRefusalIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "auto", 1, 2)
		f.refuse = fmt.Errorf("not today: %w", cairn.ErrPrecondition)
		c := f.controller()
		defer f.lead(c)()
		f.down(1)
		after(10 * interval)
		f.wantCommands("failover a-2 -1s")
		f.wantReason(c, "a", "refused: not today")
		f.set(func() { f.refuse = nil })
		f.synced("a", 2, 1, 2, 11*time.Second)
		after(interval)
		f.wantCommands("failover a-2 -1s")
		f.wantActive("a", 2)
	})
}

// TestUnknownOutcome: what has happened is not proposed again; what has not, is.
func TestUnknownOutcome(t *testing.T) {
	for _, happened := range []bool{true, false} {
		t.Run(fmt.Sprint(happened), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 3)
				f.share("a", "auto", 1, 2, 3)
				failures := 1
				f.before = func(fsm.Command) (bool, error) {
					if failures == 0 {
						return true, nil
					}
					failures--
					return happened, fmt.Errorf("lost: %w", cairn.ErrUnknownOutcome)
				}
				c := f.controller()
				defer f.lead(c)()
				f.down(1)
				synctest.Wait()
				f.wantReason(c, "a", "the cluster did not decide: lost")
				after(3 * interval)
				f.wantReason(c, "a", "")
				want := []string{"failover a-2 -1s", "failover a-2 -1s"}
				if happened {
					want = want[:1]
				}
				f.wantCommands(want...)
				f.wantActive("a", 2)
				if epoch := f.View().Replica("a-2").Epoch; epoch != 2 {
					t.Errorf("epoch %d: promoted %d times", epoch, epoch-1)
				}
			})
		})
	}
}

// TestNothingWithoutARead: a leader that cannot prove that it leads decides nothing.
func TestNothingWithoutARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "auto", 1, 2)
		f.unread.Store(true)
		defer f.lead(f.controller())()
		f.down(1)
		after(3 * interval)
		f.wantCommands()
		f.unread.Store(false)
		after(interval)
		f.wantCommands("failover a-2 -1s")
	})
}

// TestLeaderChange in the middle: the first leader ends while it asks, or after its command of unknown outcome; the second
// one does what is left, once.
func TestLeaderChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		const shares = batch + 44
		for i := range shares {
			f.share(fmt.Sprintf("s%03d", i), "auto", 1, 2)
		}
		first, second := f.controller(), f.controller()
		f.slow["n2"] = askTimeout / 2
		stop := f.lead(first)
		f.down(1)
		stop() // while it asks
		f.wantCommands()
		stop = f.lead(first)
		n := 0
		f.set(func() {
			f.before = func(fsm.Command) (bool, error) {
				if n++; n == 2 {
					return true, fmt.Errorf("deposed: %w", cairn.ErrUnknownOutcome)
				}
				return n == 1, nil
			}
		})
		after(askTimeout / 2)
		stop() // with everything done, but half of it unknown
		f.wantCommands(fmt.Sprintf("failover of %d", batch), "failover of 44")
		f.set(func() { f.before = nil })
		defer f.lead(second)()
		after(10 * interval)
		f.wantCommands()
		for share := range f.View().Shares("") {
			if row := f.View().Replica(share.Active); row.Node != "n2" || row.Epoch != 2 {
				t.Fatalf("share %s: on %s, epoch %d", share.Name, row.Node, row.Epoch)
			}
		}
	})
}

// TestThousandShares: one question for each node, commands of a bounded size, one line in the log.
func TestThousandShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 3)
		for i := range 1000 {
			f.share(fmt.Sprintf("s%04d", i), "auto", 1, 2+i%2)
		}
		defer f.lead(f.controller())()
		f.down(1)
		f.wantCommands("failover of 256", "failover of 256", "failover of 256", "failover of 232")
		if len(f.asked) != 2 || !strings.Contains(strings.Join(f.asked, ","), "n2 500") {
			t.Errorf("asked %q", f.asked)
		}
		if n := strings.Count(f.logged.String(), "\n"); n != 1 {
			t.Errorf("logged %d lines:\n%s", n, &f.logged)
		}
	})
}
