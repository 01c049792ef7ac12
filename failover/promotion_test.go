package failover

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// promoted plays the nodes: the active one is sealed, the other one fetches the last sync point and is served.
func (f *fixture) promoted(share string, from, to int) {
	f.Helper()
	f.changeRoles(share, from, to)
	f.report(share, to, func(*cairn.ReplicaHave) {}) // its data is that of the sync point
	f.report(share, to, func(*cairn.ReplicaHave) {}) // and it is served
}

func (f *fixture) changeRoles(share string, from, to int) {
	f.Helper()
	const last = "sync-00000001-00000009-000000000001"
	f.report(share, from, func(h *cairn.ReplicaHave) { h.Sealed = last })
	f.report(share, to, func(h *cairn.ReplicaHave) { h.InSync, h.Synced = true, last })
	f.wantActive(share, to)
}

func TestOverduePromotion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "manual", 1, 2)
		f.share("b", "manual", 1, 2)
		c := f.controller()
		stop := f.lead(c)
		f.must(&fsm.PromoteShare{Share: "a", Replica: "a-2", Task: "task-1"})
		f.must(&fsm.PromoteShare{Share: "b", Replica: "b-2", Task: "task-2"})
		after(promotionTimeout / 2)
		f.changeRoles("b", 1, 2)
		stop()
		// The next leader counts for itself: it may not know the time by which the task has started.
		defer f.lead(c)()
		after(promotionTimeout - time.Second)
		f.wantCommands()
		after(time.Second)
		f.wantCommands("cancel a") // and not b, which has a new active replica
		if want := f.View().Replica("a-1").Want; want.Sealed {
			t.Error("the active replica is still sealed")
		}
		// A new promotion has its own time.
		f.must(&fsm.PromoteShare{Share: "a", Replica: "a-2", Task: "task-3"})
		after(promotionTimeout - time.Second)
		f.wantCommands()
		f.promoted("a", 1, 2)
		after(promotionTimeout)
		f.wantCommands()
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4)
		for i := range 20 {
			f.share(fmt.Sprintf("s%02d", i), "manual", 1, 2, 3)
		}
		f.share("other", "manual", 2, 4) // node 2 serves one already
		f.share("single", "manual", 1)
		f.share("late", "manual", 1, 4)
		f.report("late", 4, func(*cairn.ReplicaHave) {})
		f.share("stuck", "manual", 1, 4)
		f.must(&fsm.DrainNode{Node: "n4", Draining: true})
		c := f.controller()
		defer f.lead(c)()
		f.wantCommands()
		f.must(&fsm.DrainNode{Node: "n1", Draining: true})
		// To the node that serves the fewest, by turns.
		f.wantCommands("promote s00-3", "promote s01-2", "promote s02-3", "promote s03-2", "promote s04-3", "promote s05-2", "promote s06-3", "promote s07-2")
		f.wantReason(c, "s00", "")
		f.wantReason(c, "s08", "waits for its turn: 8 shares move at a time")
		f.wantReason(c, "single", "no other replica")
		f.wantReason(c, "late", "the one on node n4 is out_of_sync")
		f.wantReason(c, "stuck", "node n4 is draining, too")
		f.promoted("s00", 1, 3)
		f.wantCommands("promote s08-3")
		f.must(&fsm.DrainNode{Node: "n1"})
		f.promoted("s01", 1, 2)
		after(interval)
		f.wantCommands()
		f.wantReason(c, "single", "")
	})
}

// TestDrainRests after a promotion that was called off, then tries another replica first.
func TestDrainRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 3)
		f.share("a", "manual", 1, 2, 3)
		c := f.controller()
		defer f.lead(c)()
		f.must(&fsm.DrainNode{Node: "n1", Draining: true})
		f.wantCommands("promote a-2")
		after(promotionTimeout)
		f.wantCommands("cancel a")
		after(promotionRest - time.Second)
		f.wantCommands()
		f.wantReason(c, "a", "left alone for another 1s")
		after(time.Second)
		f.wantCommands("promote a-3")
	})
}

// TestDrainStopsWithoutDecision: a cluster that decides nothing is not asked twenty times.
func TestDrainStopsWithoutDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "manual", 1, 2)
		f.share("b", "manual", 1, 2)
		f.before = func(fsm.Command) (bool, error) { return false, fmt.Errorf("disk: %w", cairn.ErrUnavailable) }
		c := f.controller()
		f.must(&fsm.DrainNode{Node: "n1", Draining: true})
		defer f.lead(c)()
		f.wantCommands("promote a-2")
		f.wantReason(c, "a", "the cluster did not decide: disk")
		f.set(func() { f.before = nil })
		after(interval)
		f.wantCommands("promote a-2", "promote b-2")
	})
}

func TestForce(t *testing.T) {
	for _, test := range []struct {
		name    string
		to      cairn.ReplicaID
		prepare func(f *fixture)
		want    error
		text    string
		active  int
		window  time.Duration
	}{
		{"the freshest", "", func(f *fixture) { f.synced("a", 3, 1, 5, 40*time.Second) }, nil, "", 3, 40 * time.Second},
		{"the named one", "a-2", func(f *fixture) { f.synced("a", 3, 1, 5, 2*time.Second) }, nil, "", 2, time.Second},
		{"one that is out of sync", "a-2", func(f *fixture) {
			f.report("a", 2, func(*cairn.ReplicaHave) {})
			f.synced("a", 2, 1, 1, time.Hour)
		}, nil, "", 2, time.Hour},
		{"a node that is down", "a-2", func(f *fixture) { f.down(2) }, cairn.ErrPrecondition, "node n2 is down", 1, 0},
		{"silent", "a-2", func(f *fixture) { f.slow["n2"] = time.Hour }, cairn.ErrUnavailable, "node n2 does not say how far", 1, 0},
		{"one of two is silent", "", func(f *fixture) { f.slow["n2"] = time.Hour }, cairn.ErrUnavailable, "name a replica to go on without", 1, 0},
		{"the other one of two", "a-3", func(f *fixture) { f.slow["n2"] = time.Hour }, nil, "", 3, time.Second},
		{"no sync point", "a-2", func(f *fixture) { clear(f.states) }, cairn.ErrPrecondition, "no replica has a sync point", 1, 0},
		{"the active one", "a-1", func(*fixture) {}, cairn.ErrInvalid, "is the active replica already", 1, 0},
		{"another share's", "b-2", func(*fixture) {}, cairn.ErrNotFound, "has no replica", 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 3)
				f.share("a", "manual", 1, 2, 3)
				f.share("b", "manual", 1, 2, 3)
				test.prepare(f)
				window, err := f.controller().Force(t.Context(), fsm.Meta{Actor: "user/admin"}, "a", test.to)
				if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.text) {
					t.Errorf("error %v, want %v with %q", err, test.want, test.text)
				}
				if window != test.window {
					t.Errorf("window %s, want %s", window, test.window)
				}
				f.wantActive("a", test.active)
				want := []string{"n1 withheld, commands 0", "n1 released at true, commands 1"}
				if test.want == nil && !slices.Equal(f.withheld, want) || test.want != nil && len(f.withheld) > 0 {
					t.Errorf("leases: %q; want %q around the command, and nothing without one", f.withheld, want)
				}
			})
		})
	}
}

// TestForceChangesItsMind: what became impossible while the lease ran out is refused, and the node gets its lease back.
func TestForceChangesItsMind(t *testing.T) {
	for name, meanwhile := range map[string]func(f *fixture){
		"the node is down": func(f *fixture) { f.down(2) },
		"another leader":   func(f *fixture) { f.deposed = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 3)
				f.share("a", "manual", 1, 2, 3)
				asked := 0
				f.between = func() {
					if asked++; asked == 2 {
						meanwhile(f)
					}
				}
				before := len(f.commands)
				_, err := f.controller().Force(t.Context(), fsm.Meta{Actor: "user/admin"}, "a", "a-2")
				if err == nil || len(f.withheld) != 2 {
					t.Errorf("error %v after %q, leases %q; want a refusal and the lease given back", err, f.commands[before:], f.withheld)
				}
			})
		})
	}
}

// TestForceWithoutAnAnswer: the node gets its lease back when certainly nothing was decided, and not when something may have been.
func TestForceWithoutAnAnswer(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int // entries of whose lease was withheld and given back
	}{
		{cairn.ErrUnavailable, 2},
		{cairn.ErrUpgrade, 2},
		{cairn.ErrUnknownOutcome, 1},
		{fmt.Errorf("%w: %w", cairn.ErrUnavailable, cairn.ErrUnknownOutcome), 1},
		{errors.New("disk"), 1},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 3)
				f.share("a", "manual", 1, 2, 3)
				f.before = func(fsm.Command) (bool, error) { return false, test.err }
				_, err := f.controller().Force(t.Context(), fsm.Meta{Actor: "user/admin"}, "a", "a-2")
				if !errors.Is(err, test.err) || len(f.withheld) != test.want {
					t.Errorf("error %v, leases %q; want %v and %d entries", err, f.withheld, test.err, test.want)
				}
			})
		})
	}
}
