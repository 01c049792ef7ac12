package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// failing makes every call of that name fail.
func failing(call string, err error) func(context.Context, string) error {
	return func(_ context.Context, c string) error {
		if c == call {
			return err
		}
		return nil
	}
}

func TestEveryErrorBecomesItsFaultAndGoesAwayByItself(t *testing.T) {
	for _, tc := range []struct {
		call string
		err  error
		code cairn.FaultCode
	}{
		{"create", cairn.ErrNoSpace, cairn.FaultNoSpace},
		{"create", cairn.ErrExists, cairn.FaultForeign},
		{"create", cairn.ErrInUse, cairn.FaultInUse},
		{"create", cairn.ErrTimeout, cairn.FaultTimeout},
		{"create", context.DeadlineExceeded, cairn.FaultTimeout},
		{"create", cairn.ErrNotSupported, cairn.FaultUnsupport},
		{"create", cairn.ErrDataLoss, cairn.FaultDataLoss},
		{"create", cairn.ErrInvalid, cairn.FaultUnknown},
		{"create", errors.New("error 0x1f"), cairn.FaultUnknown},
		{"export", cairn.ErrTimeout, cairn.FaultExport},
		{"export", errors.New("no such export"), cairn.FaultExport},
		{"stat", errors.New("input/output error"), cairn.FaultPool},
		{"stat", os.ErrPermission, cairn.FaultPool},
		{"stat", cairn.ErrTimeout, cairn.FaultTimeout},
		{"stat", cairn.ErrCorrupt, cairn.FaultUnknown},
	} {
		t.Run(fmt.Sprintf("%s: %v", tc.call, tc.err), func(t *testing.T) {
			f := newQuietFixture(t)
			f.create("a")
			f.rig.before = failing(tc.call, fmt.Errorf("the storage says: %w", tc.err))
			for range 3 {
				if err := f.pass("a"); err == nil {
					t.Fatal("a pass with a fault returned no error: it would not be tried again")
				}
			}
			wantFault(t, "share", f.share("a").Fault, tc.code, "the storage says")
			if f.reports != 1 || f.share("a").Status != cairn.StatusCreating {
				t.Errorf("%d reports, share %s; want the fault reported once and the share still being created", f.reports, f.share("a").Status)
			}
			f.rig.before = nil
			f.settle("a")
			if s := f.share("a"); s.Status != cairn.StatusAvailable || !s.Fault.Healthy() {
				t.Errorf("share afterwards: %+v", s)
			}
		})
	}
}

func TestMissingDatasetIsAFaultAndIsNeverMadeAgain(t *testing.T) {
	f := newFixture(t)
	f.create("a")
	f.must(t, allow("a", "", cairn.AccessRW))
	f.settle("a")
	f.put("a", "x", "precious")
	home, away := filepath.Join(f.path, "r-a"), filepath.Join(filepath.Dir(f.path), "away")
	if err := os.Rename(home, away); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.pass("a"); !errors.Is(err, cairn.ErrNotFound) {
			t.Fatalf("pass: %v, want not found", err)
		}
	}
	f.restart()
	reports := f.reports
	if err := f.pass("a"); err == nil {
		t.Fatal("pass after a restart found nothing wrong")
	}
	wantFault(t, "share", f.share("a").Fault, cairn.FaultMissing, "gone from the pool")
	if f.row("a").Have.Presence != cairn.Present || objects(t, f.pool) != "" || f.reports != reports {
		t.Fatalf("presence %s, objects %q, %d new reports; want it on record, not made again, reported once",
			f.row("a").Have.Presence, objects(t, f.pool), f.reports-reports)
	}
	if list, _ := f.exporter.Exports(t.Context()); len(list) != 0 {
		t.Fatalf("still exported: %+v", list)
	}
	if err := os.Rename(away, home); err != nil { // an operator mounts the disk
		t.Fatal(err)
	}
	f.settle("a")
	list, _ := f.exporter.Exports(t.Context())
	if !f.share("a").Fault.Healthy() || len(list) != 1 || len(f.row("a").Have.Locations) != 1 {
		t.Fatalf("after its return: fault %+v, exports %+v", f.share("a").Fault, list)
	}
	if data, err := os.ReadFile(filepath.Join(home, "data", "x")); string(data) != "precious" {
		t.Fatalf("file %q, %v", data, err)
	}
}

func TestMissingSnapshotIsAFaultAndIsNeverCutAgain(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.must(t, snapshotOf("a", "snap1"))
	f.settle("a")
	if err := os.RemoveAll(filepath.Join(f.path, "r-a", "snapshots", "snap1")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.pass("a"); err == nil {
			t.Fatal("pass found nothing wrong")
		}
	}
	wantFault(t, "snapshot", f.View().Snapshot("snap1").Fault, cairn.FaultMissing, "gone from the pool")
	if got := objects(t, f.pool); got != "r-a" || !f.share("a").Fault.Healthy() {
		t.Fatalf("objects %q, share fault %+v; want no new snapshot and a healthy share", got, f.share("a").Fault)
	}
	f.must(t, &fsm.DeleteSnapshot{ID: "snap1"})
	f.settle("a")
	if f.View().Snapshot("snap1") != nil {
		t.Error("a missing snapshot cannot be deleted")
	}
}

func TestForeignObjectIsNotTouched(t *testing.T) {
	f := newQuietFixture(t)
	theirs := filepath.Join(f.path, "r-a")
	if err := os.MkdirAll(filepath.Join(theirs, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.create("a")
	if err := f.pass("a"); err == nil {
		t.Fatal("pass found nothing wrong")
	}
	if s := f.share("a"); s.Fault.Healthy() || s.Status != cairn.StatusCreating {
		t.Fatalf("share %+v: want a fault", s)
	}
	if _, err := os.Stat(filepath.Join(theirs, "data")); err != nil {
		t.Fatal(err)
	}
}

func TestFailingSnapshotDoesNotKeepAccessFromChanging(t *testing.T) {
	f := newFixture(t)
	f.create("a")
	f.settle("a")
	f.rig.before = failing("snapshot", cairn.ErrNoSpace)
	f.must(t, snapshotOf("a", "snap1"))
	f.must(t, allow("a", "", cairn.AccessRW))
	if err := f.pass("a"); !errors.Is(err, cairn.ErrNoSpace) {
		t.Fatalf("pass: %v", err)
	}
	if f.View().Rule("rule-a").State != cairn.RuleActive || !f.share("a").Fault.Healthy() {
		t.Fatalf("rule %s, share fault %+v", f.View().Rule("rule-a").State, f.share("a").Fault)
	}
	wantFault(t, "snapshot", f.View().Snapshot("snap1").Fault, cairn.FaultNoSpace, "no space")
	f.put("a", "x", "one")
	f.rig.before = nil
	f.settle("a")
	if s := f.View().Snapshot("snap1"); s.Status != cairn.StatusAvailable || !s.Fault.Healthy() {
		t.Fatalf("snapshot %+v", s)
	}
}

// picky refuses one client, as an exporter that cannot do a kind of rule refuses the whole set.
type picky struct {
	riggedExporter
	refuses string
}

func (p *picky) Export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	for _, rule := range spec.Rules {
		if rule.Who == p.refuses {
			return nil, fmt.Errorf("rule for %s: %w", rule.Who, cairn.ErrNotSupported)
		}
	}
	return p.riggedExporter.Export(ctx, spec)
}

func TestRefusedRuleLocksNobodyElseOut(t *testing.T) {
	f := newFixture(t)
	exporter := &picky{riggedExporter{f.exporter, f.rig}, "10.9.9.9"}
	f.cfg.Exporters = map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: exporter}
	f.actor = New(f.cfg)
	f.create("a")
	f.settle("a")
	f.must(t, allow("a", "", cairn.AccessRW))
	f.settle("a")
	f.must(t, &fsm.AllowAccess{Rule: cairn.AccessRule{ID: "bad", Share: "s-a", Kind: cairn.AccessIP, Who: "10.9.9.9", Level: cairn.AccessRO}})
	for range 3 {
		if err := f.pass("a"); !errors.Is(err, cairn.ErrNotSupported) {
			t.Fatalf("pass: %v, want that the rule is refused", err)
		}
	}
	if bad, good := f.View().Rule("bad"), f.View().Rule("rule-a"); bad.State != cairn.RuleError || good.State != cairn.RuleActive {
		t.Fatalf("rules %s and %s, want error and active", bad.State, good.State)
	}
	if !f.share("a").Fault.Healthy() {
		t.Fatalf("share fault %+v", f.share("a").Fault)
	}
	f.put("a", "x", "one")
	exporter.refuses = ""
	f.settle("a")
	if bad := f.View().Rule("bad"); bad.State != cairn.RuleActive {
		t.Fatalf("rule is %s after the exporter has learned it", bad.State)
	}
}

func TestHangingDriverIsCutOffAndLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newQuietFixture(t)
		f.create("a")
		f.rig.before = func(ctx context.Context, call string) error {
			if call == "create" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		begin := time.Now()
		if err := f.pass("a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("pass: %v", err)
		}
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("the call was cut off after %v, want the default of a minute", took)
		}
		wantFault(t, "share", f.share("a").Fault, cairn.FaultTimeout, "create")
		f.rig.before = nil
		f.settle("a")
		if s := f.share("a"); s.Status != cairn.StatusAvailable {
			t.Errorf("share %+v", s)
		}
	})
}

func TestCallThatDidItsWorkButTimedOutIsNotRepeated(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	creates := 0
	f.rig.after = func(_ context.Context, call string) error {
		if call == "create" {
			creates++
			return cairn.ErrTimeout
		}
		return nil
	}
	if err := f.pass("a"); err == nil {
		t.Fatal("the pass did not see the time-out")
	}
	f.settle("a")
	if creates != 1 || f.share("a").Status != cairn.StatusAvailable {
		t.Errorf("%d creates, share %s; want one look instead of a second create", creates, f.share("a").Status)
	}
}

func TestPanicInADriverFailsThatPassOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newQuietFixture(t)
		runtime := f.run()
		var panicked atomic.Bool
		f.rig.before = func(_ context.Context, call string) error {
			if call == "create" && panicked.CompareAndSwap(false, true) {
				panic("index out of range")
			}
			return nil
		}
		f.create("a")
		f.create("b")
		<-time.After(10 * time.Second) // virtual
		synctest.Wait()
		for _, name := range []string{"a", "b"} {
			if s := f.share(name); s.Status != cairn.StatusAvailable {
				t.Errorf("share %+v", s)
			}
		}
		if s := runtime.Stats(); s.Panics != 1 {
			t.Errorf("stats %+v, want one panic", s)
		}
	})
}

// run starts a runtime over the actor, woken as the node wakes it.
func (f *fixture) run() *actors.Runtime {
	runtime := actors.New(actors.Config{})
	runtime.Handle(cairn.KindReplica, f.actor)
	runtime.Handle(cairn.KindPool, &Sweeper{Actor: f.actor, Wake: runtime.Wake})
	cancel := f.machine.Subscribe(func(changes []fsm.Change) { runtime.WakeAll(Woken(f.View(), node1, changes)) })
	runtime.WakeAll(Keys(f.View(), node1))
	f.Cleanup(func() {
		cancel()
		if err := runtime.Close(context.Background()); err != nil {
			f.Error(err)
		}
	})
	return runtime
}

func TestRuntimeNoticesWhatIsLostBehindItsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newQuietFixture(t)
		f.run()
		f.create("a")
		f.create("b")
		<-time.After(time.Second) // virtual, as below
		synctest.Wait()
		if f.share("a").Status != cairn.StatusAvailable || f.share("b").Status != cairn.StatusAvailable {
			t.Fatalf("shares %+v, %+v", f.share("a"), f.share("b"))
		}
		if err := os.RemoveAll(filepath.Join(f.path, "r-a")); err != nil {
			t.Fatal(err)
		}
		if err := f.exporter.Unexport(t.Context(), drivers.ExportID{Replica: "r-b"}); err != nil {
			t.Fatal(err)
		}
		<-time.After(3 * time.Minute)
		synctest.Wait()
		wantFault(t, "share a", f.share("a").Fault, cairn.FaultMissing, "gone")
		if list, _ := f.exporter.Exports(t.Context()); len(list) != 1 || list[0].ID.Replica != "r-b" {
			t.Errorf("exports %+v, want the lost one of b again", list)
		}
		index := f.View().Index()
		<-time.After(time.Hour)
		synctest.Wait()
		if f.View().Index() != index {
			t.Errorf("%d log entries in an hour in which nothing happened", f.View().Index()-index)
		}
	})
}

func TestSnapshotHoldsWritersAndSaysForHowLong(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	f.create("a")
	f.settle("a")
	f.must(t, allow("a", "", cairn.AccessRW))
	f.settle("a")
	f.put("a", "x", "one")
	url, put := f.url("a", "x"), make(chan int, 1)
	f.rig.before = func(_ context.Context, call string) error {
		if call == "snapshot" {
			go func() {
				request, _ := http.NewRequest(http.MethodPut, url, strings.NewReader("two"))
				response, err := f.client.Do(request)
				if err != nil {
					put <- 0
					return
				}
				response.Body.Close()
				put <- response.StatusCode
			}()
			select {
			case status := <-put:
				return fmt.Errorf("a write got through with status %d", status)
			case <-time.After(50 * time.Millisecond): // long enough for a write that nobody holds
				return nil
			}
		}
		return nil
	}
	f.must(t, snapshotOf("a", "snap1"))
	f.settle("a")
	if status := <-put; status/100 != 2 {
		t.Fatalf("the write that was held ended with %d", status)
	}
	data, err := os.ReadFile(filepath.Join(f.path, "r-a", "snapshots", "snap1", "x"))
	if err != nil || string(data) != "one" {
		t.Errorf("the snapshot holds %q, %v; want what was written before", data, err)
	}
	f.wantFile(url, "two")
	if !strings.Contains(log.String(), "writers were held") || !strings.Contains(log.String(), "frozen=") {
		t.Errorf("log lacks the freeze time:\n%s", &log)
	}
}

// unstoppable is an exporter that cannot hold its writers, as NFS servers cannot.
type unstoppable struct{ drivers.Exporter }

func TestSnapshotIsNotTornByWritersThatNobodyHolds(t *testing.T) {
	f := newQuietFixture(t)
	f.cfg.Exporters = map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: unstoppable{f.exporter}}
	f.actor = New(f.cfg)
	f.create("a")
	f.settle("a")
	f.must(t, snapshotOf("a", "snap1"))
	if err := f.pass("a"); !errors.Is(err, cairn.ErrNotSupported) {
		t.Errorf("a pass that would tear the snapshot: %v; want cairn.ErrNotSupported", err)
	}
	wantFault(t, "snapshot", f.View().Snapshot("snap1").Fault, cairn.FaultUnsupport, "cannot be held")
	if object, err := f.pool.Stat(t.Context(), "r-a"); err != nil || len(object.Snapshots) > 0 {
		t.Errorf("the pool has %+v, %v; want no snapshot", object, err)
	}
}

// liar says that it has changed the size and has not.
type liar struct{ riggedPool }

func (liar) Resize(context.Context, cairn.ReplicaID, uint64, int64) error { return nil }

func TestLookIsBelievedAndNotTheCall(t *testing.T) {
	f := newQuietFixture(t)
	f.create("a")
	f.settle("a")
	f.cfg.Pools = map[cairn.PoolID]drivers.Pool{poolOne: liar{riggedPool{f.pool, f.rig}}}
	f.actor = New(f.cfg)
	f.must(t, &fsm.ResizeShare{ID: "s-a", Size: 128 * mib, Task: "task-1"})
	if err := f.pass("a"); err == nil {
		t.Fatal("pass found nothing wrong")
	}
	wantFault(t, "share", f.share("a").Fault, cairn.FaultUnknown, "had no effect")
	if task := f.View().Task("s-a"); !task.Running() || f.share("a").Size != 64*mib {
		t.Errorf("task %+v, share %+v", task, f.share("a"))
	}
}
