package replica

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/fsm"
)

// crashScenarios are what a user may ask for. Shares a and b exist and are settled before, a with a snapshot and data.
var crashScenarios = []struct {
	name     string
	commands []fsm.Command
}{
	{"create", []fsm.Command{createShare("new")}},
	{"create from a snapshot", []fsm.Command{createShare("new", func(c *fsm.CreateShare) { c.Share.Source = "snap1" })}},
	{"manage", []fsm.Command{createShare("new", func(c *fsm.CreateShare) { c.Adopt, c.Task = "theirs", "task-1" })}},
	{"unmanage", []fsm.Command{&fsm.UnmanageShare{ID: "s-b", Task: "task-1", Release: "released"}}},
	{"delete", []fsm.Command{&fsm.DeleteShare{ID: "s-b"}}},
	{"delete while it is made", []fsm.Command{createShare("new"), &fsm.DeleteShare{ID: "s-new"}}},
	{"extend", []fsm.Command{&fsm.ResizeShare{ID: "s-a", Size: 128 * mib, Task: "task-1"}}},
	{"shrink", []fsm.Command{&fsm.ResizeShare{ID: "s-a", Size: 8 * mib, Task: "task-1"}}},
	{"shrink refused", []fsm.Command{&fsm.ResizeShare{ID: "s-a", Size: 1, Task: "task-1"}}},
	{"snapshot and access", []fsm.Command{snapshotOf("a", "snap2"), allow("a", "", cairn.AccessRW)}},
	{"mount a snapshot", []fsm.Command{allow("a", "snap1", cairn.AccessRO)}},
	{"delete a snapshot", []fsm.Command{&fsm.DeleteSnapshot{ID: "snap1"}}},
	{"revert", []fsm.Command{&fsm.RevertShare{ID: "s-a", Snapshot: "snap1", Task: "task-1"}}},
}

// TestCrashSweep ends the process at points of every scenario, at all of them if it is asked to: before and after each call of the actor and each change
// that the pool makes to its disk. A new process over the same disk and the same state machine must come to where
// the undisturbed one came, byte for byte, with nothing left over.
func TestCrashSweep(t *testing.T) {
	for _, sc := range crashScenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			clean := newCrashFixture(t)
			clean.do(sc.commands)
			if err := clean.settleAll(); err != nil {
				t.Fatal(err)
			}
			points, want := clean.rig.points, clean.observe()
			seed, every, covered := rand.Uint64(), drivertest.Every(t, 3), 0
			t.Logf("seed %d, one crash point in %d", seed, every)
			r := rand.New(rand.NewPCG(seed, 0))
			for at := 1; at <= points; at++ {
				if r.IntN(every) != 0 {
					continue
				}
				covered++
				f := newCrashFixture(t)
				f.rig.crashAt = at
				f.do(sc.commands)
				_ = f.settleAll()
				if !f.rig.dead {
					t.Fatalf("point %d of %d was not reached", at, points)
				}
				f.restart()
				if err := f.settleAll(); err != nil {
					t.Fatalf("crash at point %d of %d: %v", at, points, err)
				}
				if got := f.observe(); got != want {
					t.Fatalf("crash at point %d of %d: got\n%s\nwant\n%s", at, points, got, want)
				}
				_ = f.pool.Close()
			}
			t.Logf("crash points covered: %d of %d", covered, points)
		})
	}
}

func newCrashFixture(t *testing.T) *fixture {
	t.Helper()
	f := newQuietFixture(t)
	if err := os.Mkdir(filepath.Join(f.path, "theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write("theirs/x", "theirs")
	f.create("a")
	f.create("b")
	f.settle("a")
	f.settle("b")
	f.write("r-a/data/x", "one")
	f.must(t, snapshotOf("a", "snap1"))
	f.settle("a")
	f.write("r-a/data/x", "two")
	f.rig.points = 0
	return f
}

func (f *fixture) write(name, text string) {
	f.Helper()
	if err := os.WriteFile(filepath.Join(f.path, name), []byte(text), 0o644); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) do(commands []fsm.Command) {
	f.Helper()
	for _, c := range commands {
		f.must(f.T, c)
	}
}

// settleAll does what a node does when it starts: it sweeps the pool, and runs every actor until nothing is left to do.
func (f *fixture) settleAll() error {
	objects, err := f.pool.List(context.Background())
	if err != nil {
		return err
	}
	ids := Orphans(f.View(), objects)
	for row := range f.View().ReplicasOn(node1) {
		ids = append(ids, row.ID)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if err := settle(context.Background(), f.actor, f.state, id); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

// observe renders the rows that matter, what is served, and every file of the pool but for the marks that count attempts.
func (f *fixture) observe() string {
	f.Helper()
	var b strings.Builder
	v := f.View()
	for s := range v.Shares("") {
		row := v.Replica(s.Active)
		fmt.Fprintf(&b, "share %s %s size=%d fault=%q settled=%t presence=%s found=%d\n",
			s.Name, s.Status, s.Size, s.Fault.Code, row.Settled(), row.Have.Presence, row.Have.Size)
		if task := v.Task(s.ID); task != nil {
			fmt.Fprintf(&b, "  task %s %s %s\n", task.Kind, task.State, task.Fault.Code)
		}
		for i := range v.InstancesOn(row.ID) {
			fmt.Fprintf(&b, "  snapshot %s %s have=%s mounted=%t\n", i.Snapshot, v.Snapshot(i.Snapshot).Status, i.Have, len(i.Locations) > 0)
		}
	}
	fmt.Fprintf(&b, "promised %d\n", v.Provisioned(poolOne))
	list, err := f.exporter.Exports(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	for _, spec := range list {
		fmt.Fprintf(&b, "served %s %s size=%d rules=%d\n", spec.ID.Replica, spec.ID.Snapshot, spec.Size, len(spec.Rules))
	}
	fmt.Fprintf(&b, "objects %s\n", objects(f.T, f.pool))
	err = filepath.WalkDir(f.path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(f.path, path)
		text := ""
		if d.Type().IsRegular() && !strings.HasPrefix(d.Name(), ".cairn") {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(data)
		}
		if d.Name() != ".cairn-replica.tmp" { // there is one at most, and the next mark replaces it
			fmt.Fprintf(&b, "%s %s %q\n", d.Type(), name, text)
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	return b.String()
}
