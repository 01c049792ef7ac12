package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/fsm"
)

// drillFleet is a fleet of two nodes on directories; r1 is active, r2 follows it.
type drillFleet struct {
	*fleet
	standby *member
	woken   []string
	asked   int // how often a client has asked
}

func newDrillFleet(t *testing.T) *drillFleet {
	t.Helper()
	base := scratch(t)
	var mu sync.Mutex
	f := &drillFleet{}
	f.fleet = newFleetOn(t, 2, cairn.FailoverManual, drivers.CapabilitiesOf(&dir.Pool{}), func(m *member) drivers.Pool {
		path := filepath.Join(base, string(m.id))
		ok(t, os.MkdirAll(path, 0o700))
		step := func(name string, do func() error) error {
			mu.Lock()
			defer mu.Unlock()
			return m.step(t.Context(), name, do)
		}
		if m.pool != nil { // of the process before
			_ = m.pool.(*dir.Pool).Close()
		}
		pool, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: cairn.MakePoolID(m.id, "data"), Logger: slog.New(slog.DiscardHandler), Step: step})
		ok(t, err)
		t.Cleanup(func() { _ = pool.Close() })
		return pool
	})
	f.standby = f.nodes["node-2"]
	f.put("file", "one")
	f.put("sub/other", "two")
	f.wait()
	return f
}

// put writes a file where the share is active.
func (f *drillFleet) put(name, text string) {
	f.Helper()
	object, err := f.nodes["node-1"].pool.Stat(f.Context(), "r1")
	ok(f, err)
	path := filepath.Join(object.Root, name)
	ok(f, os.MkdirAll(filepath.Dir(path), 0o755))
	ok(f, os.WriteFile(path, []byte(text), 0o600))
}

// driller drills on the standby's node. The client finds what the exporter serves, by the rules that it was given.
func (f *drillFleet) driller() *Driller {
	return &Driller{
		Actor: f.standby.actor,
		Wake:  func(key actors.Key) { f.woken = append(f.woken, key.ID) },
		Source: func(ctx context.Context, node cairn.NodeID, id cairn.ReplicaID, snap cairn.SnapshotID) (Content, error) {
			return f.nodes[node].actor.Content(ctx, id, snap)
		},
		Clients: map[cairn.Protocol]DrillClient{cairn.ProtocolWebDAV: {Reach: f.reach}},
	}
}

func (f *drillFleet) reach(_ context.Context, url, user, password string) error {
	f.asked++
	for id, spec := range f.standby.exporter.specs {
		guard := &Guard{Node: f.standby.id, Viewer: f.state, LeaseValid: func() bool { return true }}
		if !strings.HasPrefix(url, "memory://"+string(spec.Share)) {
			continue
		}
		if rule := spec.Rules[0]; rule.Who != user || !rule.Secret.Matches(password) || !spec.ReadOnly {
			return fmt.Errorf("rule %+v of %v", rule, id)
		}
		_, err := os.ReadFile(filepath.Join(spec.Root, "file"))
		return errors.Join(guard.Check(id.Replica, spec.Epoch), err)
	}
	return fmt.Errorf("nothing is served at %s", url)
}

// clean fails the test if anything but r2 is on the standby's node.
func (f *drillFleet) clean() {
	f.Helper()
	objects, err := f.standby.pool.List(f.Context())
	ok(f, err)
	if len(objects) != 1 || objects[0].ID != "r2" || len(f.standby.exporter.specs) != 0 || f.standby.actor.drill != "" || len(f.standby.actor.holds) != 0 {
		f.Errorf("left behind: %+v, exports %v", objects, slices.Collect(maps.Keys(f.standby.exporter.specs)))
	}
}

func TestDrill(t *testing.T) {
	f := newDrillFleet(t)
	before, err := f.standby.pool.Stat(t.Context(), "r2")
	ok(t, err)
	digest := f.View().Digest()
	got, err := f.driller().Drill(t.Context(), "r2")
	ok(t, err)
	if got.Content != got.Source || got.Content.Files != 2 || got.Content.Bytes != 6 || f.asked != 1 || got.Snapshot == "" {
		t.Errorf("%+v, asked %d times", got, f.asked)
	}
	if got.Cloned <= 0 || got.Exported < got.Cloned || got.Answered < got.Exported || got.Lag < 0 || got.Behind != 0 {
		t.Errorf("cloned after %s, exported after %s, answered after %s, lag %s, behind %d", got.Cloned, got.Exported, got.Answered, got.Lag, got.Behind)
	}
	f.clean()
	after, err := f.standby.pool.Stat(t.Context(), "r2")
	ok(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) || f.View().Digest() != digest {
		t.Errorf("the standby was changed: %+v, then %+v", before, after)
	}
}

// A client that is known by its address is let in by it, and there is no password.
func TestDrillByAddress(t *testing.T) {
	f := newDrillFleet(t)
	d := f.driller()
	var seen []drivers.ExportSpec
	d.Clients[cairn.ProtocolWebDAV] = DrillClient{From: []string{"10.0.0.2", "fd00::2"}, Reach: func(context.Context, string, string, string) error {
		seen = slices.Collect(maps.Values(f.standby.exporter.specs))
		return nil
	}}
	_, err := d.Drill(t.Context(), "r2")
	ok(t, err)
	var who []string
	for _, spec := range seen {
		for _, rule := range spec.Rules {
			who = append(who, fmt.Sprintf("%s %s %s %s %t", rule.Kind, rule.Who, rule.Level, rule.State, rule.Secret.Hash == nil))
		}
		if !spec.ReadOnly || spec.Fenced || spec.Address.IsValid() {
			t.Errorf("%+v", spec)
		}
	}
	if want := []string{"ip 10.0.0.2 ro active true", "ip fd00::2 ro active true"}; !slices.Equal(who, want) {
		t.Errorf("let in were %q, want %q", who, want)
	}
	f.clean()
}

// A standby that does not hold what its active replica holds is found out.
func TestDrillFindsADifference(t *testing.T) {
	for name, damage := range map[string]func(root string) error{
		"content":    func(root string) error { return os.WriteFile(filepath.Join(root, "file"), []byte("0ne"), 0o600) },
		"name":       func(root string) error { return os.Rename(filepath.Join(root, "file"), filepath.Join(root, "File")) },
		"permission": func(root string) error { return os.Chmod(filepath.Join(root, "file"), 0o640) },
		"missing":    func(root string) error { return os.RemoveAll(filepath.Join(root, "sub")) },
		"link":       func(root string) error { return os.Symlink("file", filepath.Join(root, "link")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newDrillFleet(t)
			object, err := f.standby.pool.Stat(t.Context(), "r2")
			ok(t, err)
			for _, snap := range object.Snapshots {
				ok(t, damage(snap.Root))
			}
			d := f.driller()
			d.Clients[cairn.ProtocolWebDAV] = DrillClient{Reach: func(context.Context, string, string, string) error { return nil }}
			got, err := d.Drill(t.Context(), "r2")
			ok(t, err)
			if got.Content == got.Source {
				t.Error("not noticed")
			}
			f.clean()
		})
	}
}

func TestDrillRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		arrange func(f *drillFleet, d *Driller)
		want    error
		words   string
	}{
		{"out of sync", func(f *drillFleet, _ *Driller) { f.unsync() }, cairn.ErrPrecondition, "is out_of_sync"},
		{"active down", func(f *drillFleet, _ *Driller) {
			f.must(f, &fsm.SetNodeState{Node: "node-1", State: cairn.NodeDown})
		}, cairn.ErrPrecondition, "is down"},
		{"busy", func(f *drillFleet, d *Driller) { f.standby.actor.drill = newDrill("r9") }, cairn.ErrBusy, "another drill"},
		{"protocol", func(_ *drillFleet, d *Driller) { clear(d.Clients) }, cairn.ErrNotSupported, "webdav"},
		{"source", func(_ *drillFleet, d *Driller) {
			d.Source = func(context.Context, cairn.NodeID, cairn.ReplicaID, cairn.SnapshotID) (Content, error) {
				return Content{}, cairn.ErrUnavailable
			}
		}, cairn.ErrUnavailable, "what the active replica holds"},
		{"client", func(_ *drillFleet, d *Driller) {
			d.Clients[cairn.ProtocolWebDAV] = DrillClient{Reach: func(context.Context, string, string, string) error { return cairn.ErrTimeout }}
		}, cairn.ErrTimeout, "as a client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newDrillFleet(t)
			d := f.driller()
			c.arrange(f, d)
			_, err := d.Drill(t.Context(), "r2")
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			f.standby.actor.drill = ""
			f.clean()
		})
	}
}

// unsync makes the cluster count the standby as out of sync.
func (f *drillFleet) unsync() {
	row := f.View().Replica("r2")
	have := row.Have
	have.InSync = false
	f.must(f, &fsm.ReportReplica{Node: "node-2", Replica: "r2", Generation: row.Generation, Epoch: row.Epoch, Have: have})
}

// While a drill reads, the standby goes on following, and neither side prunes what is read.
func TestDrillWhileReplicationGoesOn(t *testing.T) {
	f := newDrillFleet(t)
	d := f.driller()
	read := d.Source
	d.Source = func(ctx context.Context, node cairn.NodeID, id cairn.ReplicaID, snap cairn.SnapshotID) (Content, error) {
		release := f.nodes[node].actor.hold(id, snap) // as Content does while it reads
		defer release()
		for i := range 3 {
			f.put("file", fmt.Sprint("later ", i))
			f.wait()
		}
		return read(ctx, node, id, snap)
	}
	got, err := d.Drill(t.Context(), "r2")
	ok(t, err)
	if got.Content != got.Source {
		t.Errorf("%+v", got)
	}
	f.put("file", "last")
	f.wait()
	f.wait()
	f.clean()
	for _, m := range f.nodes {
		for r := range f.View().ReplicasOn(m.id) {
			object, err := m.pool.Stat(t.Context(), r.ID)
			ok(t, err)
			if slices.ContainsFunc(object.Snapshots, func(s drivers.SnapshotObject) bool { return s.ID == got.Snapshot }) {
				t.Errorf("%s still has %s", r.ID, got.Snapshot)
			}
		}
	}
}

// TestDrillCrash ends the standby's process at every step of a drill. What starts again removes what was left, and nothing else.
func TestDrillCrash(t *testing.T) {
	f := newDrillFleet(t)
	left := 0
	for at := 1; ; at++ {
		f.standby.steps = at
		_, err := f.driller().Drill(t.Context(), "r2")
		if !f.standby.dead {
			ok(t, err)
			break
		}
		if err == nil {
			t.Fatalf("step %d: a dead process has answered", at)
		}
		f.restart(f.standby)
		if objects, err := f.standby.pool.List(t.Context()); err == nil && len(objects) > 1 {
			left++
		}
		f.sweep()
		f.clean()
		if t.Failed() {
			t.Fatalf("step %d", at)
		}
	}
	if left == 0 {
		t.Error("no crash has left a clone: the steps are not where they should be")
	}
	f.standby.steps = 0
	got, err := f.driller().Drill(t.Context(), "r2")
	if ok(t, err); got.Content != got.Source {
		t.Errorf("%+v", got)
	}
	f.settle()
	f.expectSync()
}

func (f *drillFleet) expectSync() {
	f.Helper()
	if row := f.View().Replica("r2"); row.State != cairn.ReplicaInSync || !row.Have.Fault.Healthy() {
		f.Errorf("r2 is %s, %q", row.State, row.Have.Fault.Message)
	}
}

// sweep runs the sweeper of the standby's pool and the actors that it wakes.
func (f *drillFleet) sweep() {
	f.Helper()
	var woken []string
	sweeper := &Sweeper{Actor: f.standby.actor, Wake: func(key actors.Key) { woken = append(woken, key.ID) }}
	_, err := sweeper.Reconcile(f.Context(), string(cairn.MakePoolID(f.standby.id, "data")))
	ok(f, err)
	for _, id := range woken {
		_, err := f.standby.actor.Reconcile(f.Context(), id)
		ok(f, err)
	}
}

// A sweep leaves the clone of a drill that runs alone, and a clone that could not be removed is removed by its actor.
func TestDrillAndSweep(t *testing.T) {
	f := newDrillFleet(t)
	d := f.driller()
	reach := d.Clients[cairn.ProtocolWebDAV].Reach
	d.Clients[cairn.ProtocolWebDAV] = DrillClient{Reach: func(ctx context.Context, url, user, password string) error {
		f.sweep()
		f.standby.exporter.do = func(_ context.Context, name string, change func() error) error {
			if name == "unexport" {
				return errMemory
			}
			return change()
		}
		return reach(ctx, url, user, password)
	}}
	if _, err := d.Drill(t.Context(), "r2"); !errors.Is(err, errMemory) {
		t.Fatal(err)
	}
	f.standby.exporter.do = f.standby.step
	if len(f.woken) != 1 || len(f.standby.exporter.specs) != 1 {
		t.Fatalf("woken %v, served %v", f.woken, f.standby.exporter.specs)
	}
	_, err := f.standby.actor.Reconcile(t.Context(), f.woken[0])
	ok(t, err)
	f.clean()
}
