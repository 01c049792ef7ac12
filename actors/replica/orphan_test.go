package replica

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
)

// sweep lists the pool and runs the actors that it wakes; it returns them.
func (f *fixture) sweep() string {
	f.Helper()
	var woken []string
	sweeper := &Sweeper{Actor: f.actor, Wake: func(key actors.Key) {
		if key.Kind != cairn.KindReplica {
			f.Fatalf("woke %s", key)
		}
		woken = append(woken, key.ID)
	}}
	if outcome, err := sweeper.Reconcile(f.Context(), string(poolOne)); err != nil || outcome.Again <= 0 {
		f.Fatalf("sweep: %+v, %v", outcome, err)
	}
	for _, id := range woken {
		if _, err := f.actor.Reconcile(f.Context(), id); err != nil {
			f.Fatal(err)
		}
	}
	return strings.Join(woken, " ")
}

func TestOrphans(t *testing.T) {
	var log bytes.Buffer
	f := newQuietFixture(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	f.create("a")
	f.settle("a")
	if _, err := f.pool.Create(t.Context(), drivers.CreateSpec{ID: "r-restored", Epoch: 7, Size: mib}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.pool.CreateSnapshot(t.Context(), "r-restored", 7, "snap9"); err != nil {
		t.Fatal(err)
	}
	f.rig.crashAt = f.rig.points + 4
	if _, err := f.pool.Create(t.Context(), drivers.CreateSpec{ID: "r-half", Epoch: 7, Size: mib}); err == nil {
		t.Fatal("create did not crash")
	}
	f.rig.crashAt, f.rig.dead = 0, false
	if got := objects(t, f.pool); got != "r-a, r-half*, r-restored @snap9" {
		t.Fatalf("objects %q", got)
	}
	if got := f.sweep(); got != "r-half r-restored" {
		t.Errorf("woken: %s", got)
	}
	if got := objects(t, f.pool); got != "r-a, r-restored @snap9" {
		t.Errorf("objects %q: want the half-made one gone and the complete one kept", got)
	}
	if list := f.actor.Orphans(); len(list) != 1 || list[0] != (Orphan{"r-restored", poolOne, mib, 1}) {
		t.Errorf("orphans %+v", list)
	}
	if n := strings.Count(log.String(), "belongs to no replica"); n != 1 {
		t.Errorf("%d log lines about the orphan", n)
	}
	f.sweep()
	if n := strings.Count(log.String(), "belongs to no replica"); n != 1 {
		t.Errorf("%d log lines about the orphan after two sweeps, want one", n)
	}
	for _, err := range []error{f.pool.DeleteSnapshot(t.Context(), "r-restored", 7, "snap9"), f.pool.Delete(t.Context(), "r-restored", 7)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f.sweep()
	if list := f.actor.Orphans(); len(list) != 0 {
		t.Errorf("orphans %+v after an operator removed it", list)
	}
}

func TestOrphanIsNotServed(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.cfg.Viewer = newState(t, nil) // the cluster was restored from a state without the share
	f.start()
	f.sweep()
	if list, _ := f.exporter.Exports(t.Context()); len(list) != 0 {
		t.Errorf("exports %+v", list)
	}
	if got := objects(t, f.pool); got != "r-a" {
		t.Errorf("objects %q, want the data kept", got)
	}
}

func TestReplicaOfAnotherNodeIsLeftAlone(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.cfg.Node = "node-2"
	f.start()
	reports := f.reports
	if err := f.pass("a"); err != nil {
		t.Fatal(err)
	}
	if list, _ := f.exporter.Exports(t.Context()); len(list) != 0 || objects(t, f.pool) != "r-a" || f.reports != reports {
		t.Errorf("exports %+v, objects %s, %d reports", list, objects(t, f.pool), f.reports-reports)
	}
}
