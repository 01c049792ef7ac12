package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/webdav"
	"github.com/cairn-storage/cairn/fsm"
)

const (
	node1   cairn.NodeID = "node-1"
	poolOne cairn.PoolID = "node-1/data"
	mib                  = int64(1) << 20
)

// state is a real state machine without a log: an Applier and a Viewer.
type state struct {
	mu      sync.Mutex
	machine *fsm.Machine
	index   uint64
	tokens  int
	reports int
}

func newState(t testing.TB, caps []cairn.Capability) *state {
	s := &state{machine: fsm.New()}
	s.must(t, &fsm.InitCluster{
		Cluster: cairn.Cluster{ID: "cluster-1", Name: "test", CAFingerprint: strings.Repeat("0", 64)},
		Admin:   cairn.User{Name: "admin", Role: cairn.UserAdmin, Serial: "01"},
	})
	s.must(t, &fsm.RegisterNode{Node: cairn.Node{ID: node1, Name: "n1", Address: "127.0.0.1:1", HTTPAddress: "127.0.0.1:2", CommandVersion: 1}})
	s.must(t, &fsm.RegisterPools{Node: node1, Pools: []cairn.Pool{{
		ID: poolOne, Node: node1, Name: "data", Driver: "dir", Total: 1 << 40, OverSubscriptionPercent: 100,
		Capabilities: caps, Protocols: []cairn.Protocol{cairn.ProtocolWebDAV},
	}}})
	return s
}

func (s *state) View() *fsm.View                             { return s.machine.View() }
func (s *state) ReadView(context.Context) (*fsm.View, error) { return s.machine.View(), nil }

func (s *state) Apply(_ context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error) {
	data, err := fsm.Encode(meta, c)
	if err != nil {
		return fsm.Result{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := c.(*fsm.ReportReplica); ok {
		s.reports++
	}
	s.index++
	return s.machine.Apply(s.index, data), nil
}

// try applies a command as a user would.
func (s *state) try(c fsm.Command) error {
	s.tokens++
	result, err := s.Apply(context.Background(), fsm.Meta{Token: fmt.Sprint("token-", s.tokens), At: int64(s.tokens), Actor: "user/admin"}, c)
	return errors.Join(err, result.Err)
}

func (s *state) must(t testing.TB, c fsm.Command) {
	t.Helper()
	if err := s.try(c); err != nil {
		t.Fatalf("%T: %v", c, err)
	}
}

// fixture is one node: a real pool directory, a real exporter, a real state machine, and the actor. What the actor calls
// goes through rig, where a test can fail, hang or crash it.
type fixture struct {
	*testing.T
	*state
	path     string
	rig      *rig
	pool     *dir.Pool
	exporter *webdav.Exporter
	client   *http.Client
	actor    *Actor
	cfg      Config
}

// newFixture makes a node that serves over HTTPS.
func newFixture(t *testing.T, edits ...func(*Config)) *fixture {
	f := newQuietFixture(t, edits...)
	server := httptest.NewUnstartedServer(nil)
	f.exporter = f.newExporter("https://" + server.Listener.Addr().String())
	server.Config.Handler = f.exporter
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.TLS = &tls.Config{}
	server.StartTLS()
	t.Cleanup(server.Close)
	f.client = server.Client()
	f.start()
	return f
}

// newQuietFixture makes a node whose exporter nobody can reach.
func newQuietFixture(t *testing.T, edits ...func(*Config)) *fixture {
	f := &fixture{T: t, rig: &rig{}, path: filepath.Join(scratch(t), "pool")}
	if err := os.Mkdir(f.path, 0o755); err != nil {
		t.Fatal(err)
	}
	f.open()
	t.Cleanup(func() { _ = f.pool.Close() })
	f.state = newState(t, drivers.CapabilitiesOf(f.pool))
	f.cfg = Config{Node: node1, Viewer: f.state, Applier: riggedApplier{f.state, f.rig}}
	for _, edit := range edits {
		edit(&f.cfg)
	}
	f.exporter = f.newExporter("https://127.0.0.1:7452")
	f.start()
	return f
}

// scratch is a directory in memory if the machine has one that we may write: what is durable is not what these tests are about.
func scratch(t *testing.T) string {
	parent, err := os.MkdirTemp("/dev/shm", "cairn-replica-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	return parent
}

func (f *fixture) open() {
	f.Helper()
	var err error
	f.pool, err = dir.Open(context.Background(), dir.Config{Path: f.path, PoolID: poolOne, Logger: slog.New(slog.DiscardHandler), Step: f.rig.step})
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) newExporter(url string) *webdav.Exporter {
	return webdav.New(webdav.Config{
		BaseURL: url, Logger: slog.New(slog.DiscardHandler),
		Guard: &Guard{Node: node1, Viewer: f.state, LeaseValid: func() bool { return true }},
	})
}

// start makes the actor over what the fixture has.
func (f *fixture) start() {
	f.cfg.Pools = map[cairn.PoolID]drivers.Pool{poolOne: riggedPool{f.pool, f.rig}}
	f.cfg.Exporters = map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: riggedExporter{f.exporter, f.rig}}
	f.actor = New(f.cfg)
}

// restart is a new process on the same disk: nothing is remembered, nothing is exported.
func (f *fixture) restart() {
	f.Helper()
	_ = f.pool.Close()
	*f.rig = rig{}
	f.open()
	f.exporter = f.newExporter("https://127.0.0.1:7453")
	f.start()
}

// create asks for a share of 64 MiB with one replica "r-<name>".
func (f *fixture) create(name string, edits ...func(*fsm.CreateShare)) {
	f.Helper()
	f.must(f.T, createShare(name, edits...))
}

func createShare(name string, edits ...func(*fsm.CreateShare)) *fsm.CreateShare {
	c := &fsm.CreateShare{
		Share: cairn.Share{
			ID: cairn.ShareID("s-" + name), Project: cairn.DefaultProject, Name: name, Format: cairn.FormatFiles,
			Protocol: cairn.ProtocolWebDAV, Type: cairn.DefaultType, Size: 64 * mib,
		},
		Replicas: []fsm.Placement{{ID: cairn.ReplicaID("r-" + name), Pool: poolOne}},
	}
	for _, edit := range edits {
		edit(c)
	}
	return c
}

// allow gives the loopback address access to the share, or to its snapshot.
func allow(share, snapshot string, level cairn.AccessLevel) *fsm.AllowAccess {
	return &fsm.AllowAccess{Rule: cairn.AccessRule{
		ID: cairn.RuleID("rule-" + share + snapshot), Share: cairn.ShareID("s-" + share), Snapshot: cairn.SnapshotID(snapshot),
		Kind: cairn.AccessIP, Who: "127.0.0.1", Level: level,
	}}
}

func snapshotOf(share, snapshot string) *fsm.CreateSnapshot {
	return &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: cairn.SnapshotID(snapshot), Share: cairn.ShareID("s-" + share), Name: snapshot}}
}

// pass runs the actor once.
func (f *fixture) pass(name string) error {
	_, err := f.actor.Reconcile(f.Context(), "r-"+name)
	return err
}

// settle runs the actor until it neither fails nor has anything to report.
func (f *fixture) settle(name string) {
	f.Helper()
	if err := settle(f.Context(), f.actor, f.state, cairn.ReplicaID("r-"+name)); err != nil {
		f.Fatalf("share %s: %v", name, err)
	}
}

func settle(ctx context.Context, a *Actor, s *state, id cairn.ReplicaID) error {
	var err error
	for range 30 {
		before := s.View().Index()
		if _, err = a.Reconcile(ctx, string(id)); err == nil && s.View().Index() == before {
			return nil
		}
	}
	return fmt.Errorf("does not settle: %w", err)
}

func (f *fixture) share(name string) *cairn.Share {
	return f.View().Share(cairn.ShareID("s-" + name))
}
func (f *fixture) row(name string) *cairn.Replica {
	return f.View().Replica(cairn.ReplicaID("r-" + name))
}

// url is where the share's file is; it ends the test if the share has no location.
func (f *fixture) url(name, file string) string {
	f.Helper()
	row := f.row(name)
	if row == nil || len(row.Have.Locations) == 0 {
		f.Fatalf("share %s has no location: %+v", name, row)
	}
	return row.Have.Locations[0].URL + file
}

// http sends a request and returns the status and the body.
func (f *fixture) http(method, url, body string) (int, string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	response, err := f.client.Do(request)
	if err != nil {
		f.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		f.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func (f *fixture) put(name, file, body string) {
	f.Helper()
	if status, text := f.http(http.MethodPut, f.url(name, file), body); status/100 != 2 {
		f.Fatalf("PUT %s: %d %s", file, status, text)
	}
}

func (f *fixture) wantFile(url, want string) {
	f.Helper()
	if status, text := f.http(http.MethodGet, url, ""); status != http.StatusOK || text != want {
		f.Fatalf("GET %s: %d %q, want %q", url, status, text, want)
	}
}

// objects lists what is on the pool as "r-a[s1 s2]", with a star where it is not ready.
func objects(t testing.TB, p drivers.Pool) string {
	t.Helper()
	list, err := p.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, object := range list {
		name := string(object.ID)
		if !object.Ready {
			name += "*"
		}
		for _, snap := range object.Snapshots {
			name += " @" + string(snap.ID)
			if !snap.Ready {
				name += "*"
			}
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func wantFault(t testing.TB, what string, got cairn.Fault, code cairn.FaultCode, text string) {
	t.Helper()
	if got.Code != code || !strings.Contains(got.Message, text) {
		t.Fatalf("%s: fault %q %q, want %q with %q", what, got.Code, got.Message, code, text)
	}
}
