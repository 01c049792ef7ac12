package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// behind is a node that has an old view of its own, and an answer, or none, from the leader.
type behind struct {
	*state
	old      *fsm.View
	noQuorum bool
}

func (b *behind) View() *fsm.View {
	if b.old != nil {
		return b.old
	}
	return b.state.View()
}

func (b *behind) ReadView(ctx context.Context) (*fsm.View, error) {
	if b.noQuorum {
		return nil, fmt.Errorf("no leader: %w", cairn.ErrUnavailable)
	}
	return b.state.ReadView(ctx)
}

func newFixtureBehind(t *testing.T) (*fixture, *behind) {
	f := newQuietFixture(t)
	b := &behind{state: f.state}
	f.cfg.Viewer = b
	f.start()
	return f, b
}

func TestOldViewCannotRepeatARevert(t *testing.T) {
	f, b := newFixtureBehind(t)
	f.create("a")
	f.settle("a")
	f.must(t, snapshotOf("a", "snap1"))
	f.settle("a")
	f.must(t, &fsm.RevertShare{ID: "s-a", Snapshot: "snap1", Task: "task-1"})
	old := f.View()
	f.settle("a")
	written := filepath.Join(f.path, "r-a", "data", "x")
	if err := os.WriteFile(written, []byte("acknowledged"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.restart()
	b.old = old // the node is up again and has not caught up with the log
	_ = f.pass("a")
	if _, err := os.Stat(written); err != nil {
		t.Fatalf("what was written after the revert is gone: %v", err)
	}
	b.noQuorum = true
	if err := f.pass("a"); !errors.Is(err, cairn.ErrUnavailable) {
		t.Fatalf("pass without a leader: %v", err)
	}
	if _, err := os.Stat(written); err != nil {
		t.Fatalf("what was written after the revert is gone: %v", err)
	}
}

func TestOldViewCannotMakeWhatIsDeleted(t *testing.T) {
	f, b := newFixtureBehind(t)
	f.create("a")
	old := f.View()
	f.settle("a")
	f.must(t, &fsm.DeleteShare{ID: "s-a"})
	f.settle("a")
	f.restart()
	b.old = old
	if err := f.pass("a"); err != nil {
		t.Fatal(err)
	}
	if got := objects(t, f.pool); got != "" {
		t.Errorf("objects %q of a share that is gone", got)
	}
}

func TestWithoutQuorumWhatThereIsGoesOnBeingServed(t *testing.T) {
	f, b := newFixtureBehind(t)
	f.create("a")
	f.settle("a")
	f.create("b")
	f.restart()
	b.noQuorum = true
	_ = f.pass("a") // cannot report its new location
	list, err := f.exporter.Exports(t.Context())
	if err != nil || len(list) != 1 || list[0].ID.Replica != "r-a" {
		t.Errorf("exports %+v, %v; want that of a", list, err)
	}
	if err := f.pass("b"); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("pass: %v, want unavailable", err)
	}
	if got := objects(t, f.pool); got != "r-a" {
		t.Errorf("objects %q, want nothing new", got)
	}
}

func TestStaleReportIsReadAgainAtOnce(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.must(t, snapshotOf("a", "snap1"))
	f.rig.before = func(_ context.Context, call string) error {
		if call == "snapshot" {
			f.must(t, allow("a", "", cairn.AccessRW)) // raises the generation under the pass
		}
		return nil
	}
	f.reports = 0
	if err := f.pass("a"); err != nil {
		t.Fatal(err)
	}
	if f.reports != 2 || f.View().Rule("rule-a").State != cairn.RuleActive || !f.row("a").Settled() {
		t.Errorf("%d reports, rule %s, row %+v; want the refused one and one that settles all", f.reports, f.View().Rule("rule-a").State, f.row("a"))
	}
}

func TestWantThatNeverStopsChangingEndsThePass(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.must(t, allow("a", "", cairn.AccessRW))
	level := cairn.AccessRW
	f.rig.before = func(_ context.Context, call string) error {
		if call == "report" {
			level = map[cairn.AccessLevel]cairn.AccessLevel{cairn.AccessRW: cairn.AccessRO, cairn.AccessRO: cairn.AccessRW}[level]
			f.must(t, &fsm.SetAccess{Share: "s-a", Rules: []cairn.AccessRule{allow("a", "", level).Rule}})
		}
		return nil
	}
	if err := f.pass("a"); !errors.Is(err, cairn.ErrStale) {
		t.Fatalf("pass: %v, want stale", err)
	}
	f.rig.before = nil
	f.settle("a")
}

func TestShareStaysUnexportedUntilTheRevertIsReported(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.must(t, snapshotOf("a", "snap1"))
	f.settle("a")
	f.write("r-a/data/x", "later")
	f.must(t, &fsm.RevertShare{ID: "s-a", Snapshot: "snap1", Task: "task-1"})
	reverts := 0
	f.rig.before = func(ctx context.Context, call string) error {
		switch call {
		case "revert":
			reverts++
		case "report":
			return fmt.Errorf("no leader: %w", cairn.ErrUnavailable)
		case "export":
			t.Error("exported before the state machine knew of the revert")
		}
		return nil
	}
	for range 2 {
		if err := f.pass("a"); !errors.Is(err, cairn.ErrUnavailable) {
			t.Fatalf("pass: %v", err)
		}
	}
	if list, _ := f.exporter.Exports(t.Context()); len(list) != 0 || reverts != 1 {
		t.Fatalf("%d reverts, exports %+v; want one, since nothing has changed after it, and nothing exported", reverts, list)
	}
	f.rig.before = nil
	f.settle("a")
	if list, _ := f.exporter.Exports(t.Context()); len(list) != 1 {
		t.Errorf("exports %+v after the report", list)
	}
}

func TestRevertIsNotReportedWhenTheExporterKeepsServing(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.must(t, snapshotOf("a", "snap1"))
	f.settle("a")
	f.must(t, &fsm.RevertShare{ID: "s-a", Snapshot: "snap1", Task: "task-1"})
	f.rig.before = failing("unexport", errors.New("device or resource busy"))
	if err := f.pass("a"); err == nil {
		t.Fatal("pass found nothing wrong")
	}
	if task := f.View().Task("s-a"); !task.Running() || f.row("a").Want.Revert == "" {
		t.Errorf("task %+v: want it running until the revert is done", task)
	}
}
