// A third of what a handshake costs is the part that quantum computers are to fail at.
//
//go:debug tlsmlkem=0
package virtual

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// TestClusters runs clusters side by side until they have lived CAIRN_VIRTUAL_HOURS hours together, from CAIRN_VIRTUAL_SEED on. make virtual
// draws one.
func TestClusters(t *testing.T) {
	hours, seed := number(t, "CAIRN_VIRTUAL_HOURS", 4), number(t, "CAIRN_VIRTUAL_SEED", 1)
	life := min(hours, number(t, "CAIRN_VIRTUAL_LIFE", 20)) // of one cluster
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	t.Logf("seed %d, %d cluster-hours, timings of the product times %d", seed, hours, scale)
	var mu sync.Mutex
	var failed atomic.Bool
	total, lived, began := map[string]int{}, time.Duration(0), time.Now()
	t.Run("seeds", func(t *testing.T) {
		for i := range (hours + life - 1) / life {
			t.Run(fmt.Sprint(seed+i), func(t *testing.T) {
				t.Parallel()
				if failed.Load() {
					t.Skip("another cluster has found something")
				}
				defer func() { failed.Store(failed.Load() || t.Failed()) }()
				dir := scratch(t)
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, seed+i, dir)
					w.live(time.Duration(life) * time.Hour)
					mu.Lock()
					defer mu.Unlock()
					lived += time.Since(w.began)
					for kind, n := range w.done {
						total[kind] += n
					}
				})
			})
		}
	})
	used := syscall.Rusage{}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	var kinds []string
	for kind, n := range total {
		kinds = append(kinds, fmt.Sprintf("%d %s", n, kind))
	}
	slices.Sort(kinds)
	t.Logf("%.0f cluster-hours in %s, %.2f s of CPU each: %s", lived.Hours(), time.Since(began).Round(time.Second),
		time.Duration(used.Utime.Nano()+used.Stime.Nano()).Seconds()/max(lived.Hours(), 1), strings.Join(kinds, ", "))
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// scratch is a directory in memory if the machine has one.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "cairn-virtual-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// live lets a cluster live for so long, then heals it and judges everything.
func (w *world) live(long time.Duration) {
	t := &trouble{}
	defer func() {
		if t.users != nil {
			t.leave()
		}
		for _, m := range w.machines {
			if m.process != nil {
				m.process.die(false)
			}
		}
		time.Sleep(10 * time.Minute) // what has a deadline comes to its end
		if w.t.Failed() {
			w.t.Logf("again: CAIRN_VIRTUAL_SEED=%d CAIRN_VIRTUAL_HOURS=%.0f", w.seed, long.Hours())
		}
	}()
	if !w.found() {
		return
	}
	t.users = w.invite()
	for time.Since(w.began) < long && !w.t.Failed() {
		for range 5 + w.pick(20) {
			time.Sleep(w.some(scale * 8 * time.Second))
			t.revive()
			t.happen()
			w.judge()
			if w.t.Failed() {
				return
			}
		}
		t.recover()
		if w.t.Failed() {
			return
		}
	}
}

// judge reports what the history has found so far.
func (w *world) judge() {
	for _, wrong := range w.history.violations() {
		w.fail("%s", wrong)
	}
}

// recover ends all trouble. Everything must be well soon, and nothing may be lost.
func (t *trouble) recover() {
	t.heal()
	for range t.machines {
		t.start()
	}
	t.network.change(func() { t.network.slow, t.network.loss = 2*time.Millisecond, 0 })
	if !t.wait("everything is well again", scale*time.Minute, func() bool { t.revive(); t.operate(); return t.healthy() }) {
		return
	}
	t.history.oneWriter()
	t.history.linearizable()
	t.judge()
	t.checkStates()
	t.checkLines()
	t.checkSnapshots()
}

// operate deletes the diverged snapshot of a replica that cannot be brought back before somebody has looked at it.
func (t *trouble) operate() {
	p := t.leader()
	if p == nil {
		return
	}
	v := p.member.View()
	for _, share := range t.shares {
		for row := range v.ReplicasOf(share) {
			if !strings.Contains(row.Have.Fault.Message, "delete that one, then it is fetched anew") {
				continue
			}
			for i := range v.InstancesOn(row.ID) {
				if !v.Snapshot(i.Snapshot).Diverged || v.Snapshot(i.Snapshot).Status == cairn.StatusDeleting {
					continue
				}
				data, err := t.contents(row, i.Snapshot)
				if err != nil {
					continue
				}
				t.seen = append(t.seen, data)
				t.note("operator", "snapshot %s on %s is looked at and deleted", i.Snapshot, row.ID)
				_, _ = p.member.Apply(t.ctx, t.meta(), &fsm.DeleteSnapshot{ID: i.Snapshot})
			}
		}
	}
}

// checkStates: all nodes hold the same state, and events have no gaps.
func (t *trouble) checkStates() {
	t.wait("all states are equal", scale*10*time.Second, func() bool {
		want := t.machines[0].process.member.View()
		for _, m := range t.machines {
			if v := m.process.member.View(); v.Index() != want.Index() || v.Digest() != want.Digest() {
				return false
			}
		}
		return true
	})
	for _, m := range t.machines {
		if at, diverged := m.process.member.Machine().Divergence(); diverged {
			t.fail("the state of %s differs from the others' at entry %d", m.name, at)
		}
	}
	v := t.machines[0].process.member.View()
	next, times := v.FirstEvent(), map[string]int{}
	for e := range v.Events(0) {
		if e.Seq != next {
			t.fail("event %d follows %d", e.Seq, next-1)
		}
		next = e.Seq + 1
		if e.Kind == "quota.set" {
			if times[e.Message]++; times[e.Message] > 1 {
				t.fail("done twice: %s", e.Message)
			}
		}
	}
}

// checkLines: a line that was acknowledged is in the share, or was left behind by a failover and is kept.
func (t *trouble) checkLines() {
	v := t.machines[0].process.member.View() // all are equal; there may be no leader just now
	for _, share := range t.shares {
		acknowledged := t.history.acknowledged(share) // before the copies are read: users go on writing
		kept := strings.Join(t.seen, "")
		for row := range v.ReplicasOf(share) {
			if row.Role == cairn.RoleActive {
				data, err := t.contents(row, "")
				if err != nil {
					t.fail("%s: %v", row.ID, err)
				}
				kept += data
			}
			for i := range v.InstancesOn(row.ID) {
				if v.Snapshot(i.Snapshot).Diverged {
					data, err := t.contents(row, i.Snapshot)
					if err != nil {
						t.fail("%s: %v", row.ID, err)
					}
					kept += data
				}
			}
		}
		there := map[string]bool{}
		for _, text := range strings.Split(kept, "\n") {
			there[text] = true
		}
		for _, l := range acknowledged {
			if !there[l.text] {
				t.fail("lost: line %s of share %s was acknowledged on node %s in epoch %d at %s, and is nowhere", l.text, share, l.node, l.epoch, t.history.clock(l.at))
				break
			}
		}
	}
}

// checkSnapshots: a snapshot is the same on every replica in sync, and stays what it was.
func (t *trouble) checkSnapshots() {
	v := t.machines[0].process.member.View()
	if t.history.cuts == nil {
		t.history.cuts = make(map[cairn.SnapshotID]string)
	}
	for snap := range v.Snapshots("") {
		if snap.Status != cairn.StatusAvailable || snap.Diverged {
			continue
		}
		for i := range v.InstancesOf(snap.ID) {
			data, err := t.contents(v.Replica(i.Replica), snap.ID)
			known, had := t.history.cuts[snap.ID]
			switch {
			case err != nil:
				t.fail("snapshot %s on %s: %v", snap.ID, i.Replica, err)
			case had && data != known:
				t.fail("snapshot %s differs on %s: it has %d bytes, and was known with %d", snap.ID, i.Replica, len(data), len(known))
			}
			t.history.cuts[snap.ID] = data
		}
	}
}
