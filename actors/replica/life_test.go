package replica

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// TestLifeOfAShare goes through everything that happens to a share, with real files, real HTTP and the real state machine.
func TestLifeOfAShare(t *testing.T) {
	f := newFixture(t)
	f.create("a")
	f.settle("a")
	if s := f.share("a"); s.Status != cairn.StatusAvailable || !s.Fault.Healthy() {
		t.Fatalf("share after create: %+v", s)
	}
	if status, _ := f.http(http.MethodPut, f.url("a", "x"), "nobody"); status != http.StatusForbidden && status != http.StatusUnauthorized && status != http.StatusNotFound {
		t.Fatalf("PUT without a rule: %d, want a refusal", status)
	}
	f.must(t, allow("a", "", cairn.AccessRW))
	f.settle("a")
	if rule := f.View().Rule("rule-a"); rule.State != cairn.RuleActive {
		t.Fatalf("rule is %s, want active", rule.State)
	}
	f.put("a", "x", "one")

	f.must(t, snapshotOf("a", "snap1"))
	f.settle("a")
	if s := f.View().Snapshot("snap1"); s.Status != cairn.StatusAvailable {
		t.Fatalf("snapshot %+v", s)
	}
	f.put("a", "x", "two")
	f.put("a", "y", "late")

	f.must(t, allow("a", "snap1", cairn.AccessRO))
	f.settle("a")
	mounted := f.View().Instance("snap1", "r-a").Locations
	if len(mounted) != 1 {
		t.Fatalf("mounted snapshot has locations %v", mounted)
	}
	f.wantFile(mounted[0].URL+"x", "one")
	if status, _ := f.http(http.MethodPut, mounted[0].URL+"x", "three"); status/100 == 2 {
		t.Fatalf("PUT into a snapshot: %d", status)
	}

	f.must(t, &fsm.RevertShare{ID: "s-a", Snapshot: "snap1", Task: "task-1"})
	f.settle("a")
	f.wantFile(f.url("a", "x"), "one")
	if status, _ := f.http(http.MethodGet, f.url("a", "y"), ""); status != http.StatusNotFound {
		t.Fatalf("GET of a file made after the snapshot: %d, want 404", status)
	}
	f.put("a", "x", "three")
	f.must(t, &fsm.RevertShare{ID: "s-a", Snapshot: "snap1", Task: "task-2"}) // to the same snapshot once more
	f.settle("a")
	f.wantFile(f.url("a", "x"), "one")

	f.resizeAndClone()

	f.must(t, &fsm.DenyAccess{Rule: "rule-a"})
	f.settle("a")
	if status, _ := f.http(http.MethodGet, f.url("a", "x"), ""); status == http.StatusOK || f.View().Rule("rule-a") != nil {
		t.Fatalf("GET after the rule was denied: %d, rule %+v", status, f.View().Rule("rule-a"))
	}
	f.must(t, &fsm.DeleteSnapshot{ID: "snap1"})
	f.settle("a")
	if f.View().Snapshot("snap1") != nil || objects(t, f.pool) != "r-a, r-b" {
		t.Fatalf("after the snapshot's deletion: row %+v, objects %s", f.View().Snapshot("snap1"), objects(t, f.pool))
	}
	f.unmanageAndManage()
	f.must(t, &fsm.DeleteShare{ID: "s-b"})
	f.settle("b")
	if got := objects(t, f.pool); f.share("b") != nil || got != "" {
		t.Fatalf("after the deletion: share %+v, objects %q", f.share("b"), got)
	}
	if used := f.View().Provisioned(poolOne); used != 0 {
		t.Errorf("%d bytes still promised", used)
	}
}

func (f *fixture) resizeAndClone() {
	f.must(f.T, &fsm.ResizeShare{ID: "s-a", Size: 128 * mib, Task: "task-3"})
	f.settle("a")
	if s := f.share("a"); s.Size != 128*mib {
		f.Fatalf("share has %d after extend", s.Size)
	}
	f.put("a", "big", strings.Repeat("x", int(2*mib)))
	f.must(f.T, &fsm.ResizeShare{ID: "s-a", Size: mib, Task: "task-4"})
	if err := f.pass("a"); err == nil {
		f.Fatal("shrink below what is used: the pass did not fail")
	}
	f.settle("a")
	if task := f.View().Task("s-a"); task.State != cairn.TaskFailed || task.Fault.Code != cairn.FaultDataLoss || !strings.Contains(task.Fault.Message, "MiB") {
		f.Fatalf("task of a refused shrink: %+v, want failed with the used size", task)
	}
	if s := f.share("a"); s.Size != 128*mib || !s.Fault.Healthy() {
		f.Fatalf("share after a refused shrink: %+v", s)
	}
	f.put("a", "big2", strings.Repeat("x", int(2*mib))) // the old limit is in force again
	f.must(f.T, &fsm.ResizeShare{ID: "s-a", Size: 16 * mib, Task: "task-5"})
	f.settle("a")
	if s := f.share("a"); s.Size != 16*mib {
		f.Fatalf("share has %d after shrink", s.Size)
	}
	if status, _ := f.http(http.MethodPut, f.url("a", "big3"), strings.Repeat("x", int(20*mib))); status != http.StatusInsufficientStorage {
		f.Fatalf("PUT beyond the size: %d, want 507", status)
	}
	f.create("b", func(c *fsm.CreateShare) { c.Share.Source, c.Share.Size = "snap1", 64*mib })
	f.settle("b")
	f.must(f.T, allow("b", "", cairn.AccessRW))
	f.settle("b")
	f.wantFile(f.url("b", "x"), "one")
}

func (f *fixture) unmanageAndManage() {
	f.must(f.T, &fsm.UnmanageShare{ID: "s-a", Task: "task-6", Release: "theirs"})
	f.settle("a")
	data, err := os.ReadFile(filepath.Join(f.path, "theirs", "x"))
	if f.share("a") != nil || err != nil || string(data) != "one" {
		f.Fatalf("after unmanage: share %+v, file %q, %v", f.share("a"), data, err)
	}
	f.create("c", func(c *fsm.CreateShare) { c.Adopt, c.Task = "theirs", "task-7" })
	f.settle("c")
	f.must(f.T, allow("c", "", cairn.AccessRO))
	f.settle("c")
	f.wantFile(f.url("c", "x"), "one")
	f.must(f.T, &fsm.DeleteShare{ID: "s-c"})
	f.settle("c")
}
