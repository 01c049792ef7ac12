package drivertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// patience bounds every call of the suite: far more than a healthy exporter takes, so that a hang fails with a name.
const patience = time.Minute

// ExporterHarness brings an exporter and its clients to ExporterConformance.
type ExporterHarness struct {
	// New starts an exporter that serves nothing and asks guard about every request. It ends with the test.
	New func(t *testing.T, guard drivers.Guard) drivers.Exporter
	// Dial returns a client that reaches the exporter as the given identity.
	Dial func(t *testing.T, e drivers.Exporter, as Identity) Client
	// UserRule makes an access rule for a user, with a secret that the returned password opens. Nil if the exporter knows
	// no users: the suite then uses ip rules only.
	UserRule func(t *testing.T, user string, level cairn.AccessLevel) (rule cairn.AccessRule, password string)
}

// Identity is who a client says it is, and the loopback address that it connects from.
type Identity struct {
	User     string // "" sends no credentials
	Password string
	From     netip.Addr
}

// Client does what a client of a share does. name is a file directly in the export. Refusals wrap cairn.ErrDenied (by rule
// or because read-only), cairn.ErrUnauthenticated, cairn.ErrNoSpace, cairn.ErrNotFound or cairn.ErrUnavailable; a
// connection that the exporter ended may be any error.
type Client interface {
	Read(ctx context.Context, at cairn.ExportLocation, name string) ([]byte, error)
	Write(ctx context.Context, at cairn.ExportLocation, name string, data []byte) error
	// Begin opens a write that stays in progress until it is closed. It returns after the exporter has seen the request
	// and first; Close gives the exporter's verdict on the whole write.
	Begin(ctx context.Context, at cairn.ExportLocation, name string, first []byte) (io.WriteCloser, error)
}

// ExporterConformance runs the contract of drivers.Exporter, and of drivers.Quiescer where the exporter implements it.
func ExporterConformance(t *testing.T, h ExporterHarness) {
	for _, clause := range exporterClauses {
		t.Run(clause.name, func(t *testing.T) { clause.run(newExporterCase(t, h)) })
	}
}

var exporterClauses = []struct {
	name string
	run  func(*exporterCase)
}{
	{"export serves the data and is idempotent", (*exporterCase).exportIsIdempotent},
	{"rules are replaced as a whole set", (*exporterCase).rulesAreReplaced},
	{"no rules means nobody", (*exporterCase).noRulesMeansNobody},
	{"a rule grants its level and no more", (*exporterCase).levelsHold},
	{"users are known by their password", (*exporterCase).usersAreKnown},
	{"a read-only export refuses writes that a rule allows", (*exporterCase).readOnlyHolds},
	{"a snapshot is exported beside its replica", (*exporterCase).snapshotBesideReplica},
	{"exports lists what is served, in order", (*exporterCase).exportsLists},
	{"unexport of what is not exported succeeds", (*exporterCase).unexportOfAbsent},
	{"unexport ends what is in progress", (*exporterCase).unexportEndsRequests},
	{"the guard is asked on every request", (*exporterCase).guardIsAsked},
	{"fence stops lower epochs and no higher ones", (*exporterCase).fenceStopsLowerEpochs},
	{"fence ends a write in progress", (*exporterCase).fenceEndsWrites},
	{"the size is enforced and a refused write leaves nothing", (*exporterCase).sizeIsEnforced},
	{"a symbolic link does not lead out of the export", (*exporterCase).linksStayInside},
	{"quiesce holds writes until resume", (*exporterCase).quiesceHoldsWrites},
	{"quiesce ends with its context", (*exporterCase).quiesceEndsWithContext},
}

// exporterCase is one exporter with one directory to serve.
type exporterCase struct {
	*testing.T
	h     ExporterHarness
	guard *switchGuard
	e     drivers.Exporter
	ctx   context.Context
	spec  drivers.ExportSpec
}

// Two clients on loopback. Linux answers on all of 127.0.0.0/8.
var (
	insideAddr  = netip.MustParseAddr("127.0.0.2")
	outsideAddr = netip.MustParseAddr("127.0.0.3")
)

func newExporterCase(t *testing.T, h ExporterHarness) *exporterCase {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	base := t.TempDir()
	c := &exporterCase{T: t, h: h, guard: &switchGuard{}, ctx: ctx}
	c.spec = drivers.ExportSpec{
		ID:      drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000a1"},
		Share:   "0198c000-0000-7000-8000-0000000000b1",
		Root:    filepath.Join(base, "data"),
		Staging: filepath.Join(base, "staging"),
		Epoch:   4,
		Size:    1 << 30,
		Rules:   []cairn.AccessRule{ipRule("r1", insideAddr, cairn.AccessRW)},
	}
	for _, dir := range []string{c.spec.Root, c.spec.Staging} {
		c.must(os.Mkdir(dir, 0o755))
	}
	c.put("hello", "world")
	c.e = h.New(t, c.guard)
	return c
}

func ipRule(id cairn.RuleID, from netip.Addr, level cairn.AccessLevel) cairn.AccessRule {
	return cairn.AccessRule{
		ID: id, Kind: cairn.AccessIP, Who: netip.PrefixFrom(from, from.BitLen()).String(), Level: level, State: cairn.RuleActive,
	}
}

func (c *exporterCase) exportIsIdempotent() {
	first := c.export(c.spec)
	again := c.export(c.spec)
	if !reflect.DeepEqual(first, again) {
		c.Errorf("locations changed when the same export was repeated: %v, then %v", first, again)
	}
	c.reads(c.client(insideAddr), again[0], "hello", "world")
	c.writes(c.client(insideAddr), again[0], "new", "bytes")
	c.onDisk("new", "bytes")
}

func (c *exporterCase) rulesAreReplaced() {
	at := c.export(c.spec)[0]
	c.reads(c.client(insideAddr), at, "hello", "world")
	c.refused("a client without a rule", c.read(outsideAddr, at))

	c.spec.Rules = []cairn.AccessRule{ipRule("r2", outsideAddr, cairn.AccessRW)}
	at = c.export(c.spec)[0]
	c.refused("a client whose rule was replaced", c.read(insideAddr, at))
	c.reads(c.client(outsideAddr), at, "hello", "world")
}

func (c *exporterCase) noRulesMeansNobody() {
	c.spec.Rules = nil
	at := c.export(c.spec)[0]
	c.refused("a client of an export without rules", c.read(insideAddr, at))
}

func (c *exporterCase) levelsHold() {
	c.spec.Rules = []cairn.AccessRule{ipRule("r1", insideAddr, cairn.AccessRO), ipRule("r2", outsideAddr, cairn.AccessRW)}
	at := c.export(c.spec)[0]
	c.reads(c.client(insideAddr), at, "hello", "world")
	c.refused("a write with an ro rule", c.client(insideAddr).Write(c.ctx, at, "no", []byte("x")))
	c.notOnDisk("no")
	c.writes(c.client(outsideAddr), at, "yes", "x")
}

func (c *exporterCase) usersAreKnown() {
	if c.h.UserRule == nil {
		c.Skip("skipped clause: the exporter knows no users")
	}
	rule, password := c.h.UserRule(c.T, "alice", cairn.AccessRW)
	c.spec.Rules = []cairn.AccessRule{rule}
	at := c.export(c.spec)[0]
	alice := Identity{User: "alice", Password: password, From: outsideAddr}
	c.reads(c.h.Dial(c.T, c.e, alice), at, "hello", "world")
	c.writes(c.h.Dial(c.T, c.e, alice), at, "hers", "x")
	for what, identity := range map[string]Identity{
		"a wrong password":    {User: "alice", Password: password + "x", From: outsideAddr},
		"an empty password":   {User: "alice", From: outsideAddr},
		"another user's name": {User: "bob", Password: password, From: outsideAddr},
		"no credentials":      {From: outsideAddr},
	} {
		_, err := c.h.Dial(c.T, c.e, identity).Read(c.ctx, at, "hello")
		c.refused(what, err)
	}
}

func (c *exporterCase) readOnlyHolds() {
	c.spec.ReadOnly = true
	at := c.export(c.spec)[0]
	c.reads(c.client(insideAddr), at, "hello", "world")
	c.refused("a write to a read-only export", c.client(insideAddr).Write(c.ctx, at, "no", []byte("x")))
	c.notOnDisk("no")
}

func (c *exporterCase) snapshotBesideReplica() {
	snap := c.snapshotSpec("0198c000-0000-7000-8000-0000000000c1", "yesterday")
	live, frozen := c.export(c.spec)[0], c.export(snap)[0]
	c.reads(c.client(insideAddr), live, "hello", "world")
	c.reads(c.client(insideAddr), frozen, "hello", "yesterday")
	c.refused("a write to a snapshot", c.client(insideAddr).Write(c.ctx, frozen, "hello", []byte("x")))
	c.must(c.e.Unexport(c.ctx, snap.ID))
	c.refused("a read of a snapshot that is no longer exported", c.read(insideAddr, frozen))
	c.reads(c.client(insideAddr), live, "hello", "world")
}

func (c *exporterCase) exportsLists() {
	if list, err := c.e.Exports(c.ctx); err != nil || len(list) != 0 {
		c.Fatalf("Exports of a new exporter: %v, %v; want none", list, err)
	}
	later := c.snapshotSpec("0198c000-0000-7000-8000-0000000000c2", "two")
	earlier := c.snapshotSpec("0198c000-0000-7000-8000-0000000000c1", "one")
	want := []drivers.ExportSpec{c.spec, earlier, later}
	for _, spec := range []drivers.ExportSpec{later, c.spec, earlier} {
		c.export(spec)
	}
	list, err := c.e.Exports(c.ctx)
	c.must(err)
	if !reflect.DeepEqual(list, want) {
		c.Errorf("Exports:\n got %+v\nwant %+v", list, want)
	}
}

func (c *exporterCase) unexportOfAbsent() {
	c.must(c.e.Unexport(c.ctx, c.spec.ID))
	at := c.export(c.spec)[0]
	c.must(c.e.Unexport(c.ctx, c.spec.ID))
	c.must(c.e.Unexport(c.ctx, c.spec.ID))
	c.refused("a read of what is no longer exported", c.read(insideAddr, at))
	if list, err := c.e.Exports(c.ctx); err != nil || len(list) != 0 {
		c.Errorf("Exports after Unexport: %v, %v; want none", list, err)
	}
	c.onDisk("hello", "world")
}

func (c *exporterCase) unexportEndsRequests() {
	at := c.export(c.spec)[0]
	upload := c.begin(at, "half")
	c.must(c.e.Unexport(c.ctx, c.spec.ID))
	c.lateWriteIsRefused(upload, "half")
}

func (c *exporterCase) guardIsAsked() {
	at := c.export(c.spec)[0]
	for _, cause := range []error{cairn.ErrStale, cairn.ErrUnavailable} {
		c.guard.refuse(cause)
		c.refused("a write that the guard refuses", c.client(insideAddr).Write(c.ctx, at, "no", []byte("x")))
		c.notOnDisk("no")
		c.guard.refuse(nil)
		c.reads(c.client(insideAddr), at, "hello", "world")
	}
	c.writes(c.client(insideAddr), at, "yes", "x")
}

func (c *exporterCase) fenceStopsLowerEpochs() {
	at := c.export(c.spec)[0]
	c.must(c.e.Fence(c.ctx, c.spec.ID.Replica, c.spec.Epoch)) // below 4: epoch 4 itself goes on
	c.writes(c.client(insideAddr), at, "before", "x")
	c.must(c.e.Fence(c.ctx, c.spec.ID.Replica, c.spec.Epoch+1))
	c.refused("a write below the fence", c.client(insideAddr).Write(c.ctx, at, "no", []byte("x")))
	c.notOnDisk("no")

	if locations, err := c.e.Export(c.ctx, c.spec); err == nil {
		c.refused("a write below the fence, exported again", c.client(insideAddr).Write(c.ctx, locations[0], "no", []byte("x")))
		c.notOnDisk("no")
	} else if !errors.Is(err, cairn.ErrStale) {
		c.Errorf("Export below the fence: %v; want cairn.ErrStale", err)
	}
	c.spec.Epoch++
	at = c.export(c.spec)[0]
	c.writes(c.client(insideAddr), at, "after", "x")
	c.must(c.e.Fence(c.ctx, "0198c000-0000-7000-8000-0000000000ff", 9)) // of what is not exported
	c.writes(c.client(insideAddr), at, "after", "y")
}

func (c *exporterCase) fenceEndsWrites() {
	at := c.export(c.spec)[0]
	upload := c.begin(at, "half")
	c.must(c.e.Fence(c.ctx, c.spec.ID.Replica, c.spec.Epoch+1))
	c.lateWriteIsRefused(upload, "half")
}

func (c *exporterCase) sizeIsEnforced() {
	c.spec.Size, c.spec.EnforceSize = 64<<10, true
	at := c.export(c.spec)[0]
	client := c.client(insideAddr)
	c.must(client.Write(c.ctx, at, "fits", bytes.Repeat([]byte("a"), 40<<10)))
	err := client.Write(c.ctx, at, "fits-not", bytes.Repeat([]byte("b"), 40<<10))
	if !errors.Is(err, cairn.ErrNoSpace) {
		c.Errorf("a write beyond the size: %v; want cairn.ErrNoSpace", err)
	}
	c.notOnDisk("fits-not")
	if left, err := os.ReadDir(c.spec.Staging); err != nil || len(left) != 0 {
		c.Errorf("a refused write left %v in staging (%v)", left, err)
	}
	c.must(client.Write(c.ctx, at, "fits", bytes.Repeat([]byte("c"), 40<<10))) // replaces what it counted before
}

func (c *exporterCase) linksStayInside() {
	secret := filepath.Join(c.TempDir(), "secret")
	c.must(os.WriteFile(secret, []byte("secret"), 0o644))
	c.must(os.Symlink(secret, filepath.Join(c.spec.Root, "leak")))
	at := c.export(c.spec)[0]
	if got, err := c.client(insideAddr).Read(c.ctx, at, "leak"); err == nil && bytes.Contains(got, []byte("secret")) {
		c.Errorf("a link out of the export was followed: read %q", got)
	}
	_ = c.client(insideAddr).Write(c.ctx, at, "leak", []byte("changed")) // may replace the link or be refused
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		c.Errorf("a write went through a link out of the export: %q, %v", got, err)
	}
}

func (c *exporterCase) quiesceHoldsWrites() {
	quiescer, ok := c.e.(drivers.Quiescer)
	if !ok {
		c.Skip("skipped clause: the exporter is no Quiescer")
	}
	resume, err := quiescer.Quiesce(c.ctx, drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000ff"})
	c.must(err) // of what is not exported it succeeds
	resume()

	at := c.export(c.spec)[0]
	resume, err = quiescer.Quiesce(c.ctx, c.spec.ID)
	c.must(err)
	written := c.writeInBackground(at, "held")
	c.staysHeld(at, written, "held")
	resume()
	resume()
	c.must(<-written)
	c.onDisk("held", "held")
	c.writes(c.client(insideAddr), at, "next", "x")
}

func (c *exporterCase) quiesceEndsWithContext() {
	quiescer, ok := c.e.(drivers.Quiescer)
	if !ok {
		c.Skip("skipped clause: the exporter is no Quiescer")
	}
	at := c.export(c.spec)[0]
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	resume, err := quiescer.Quiesce(ctx, c.spec.ID)
	c.must(err)
	written := c.writeInBackground(at, "held")
	c.staysHeld(at, written, "held")
	cancel()
	c.must(<-written)
	resume()
	c.onDisk("held", "held")
}

// writeInBackground writes name with its own name as content.
func (c *exporterCase) writeInBackground(at cairn.ExportLocation, name string) <-chan error {
	client, written := c.client(insideAddr), make(chan error, 1)
	go func() { written <- client.Write(c.ctx, at, name, []byte(name)) }()
	return written
}

// staysHeld gives a write that should be held every chance to go through: many round trips of reads, which are not held.
func (c *exporterCase) staysHeld(at cairn.ExportLocation, written <-chan error, name string) {
	c.Helper()
	for range 50 {
		c.reads(c.client(insideAddr), at, "hello", "world")
		select {
		case err := <-written:
			c.Fatalf("a write ended while writes were held: %v", err)
		default:
		}
		c.notOnDisk(name)
	}
}

// begin opens a write that is in progress until it is closed.
func (c *exporterCase) begin(at cairn.ExportLocation, name string) io.WriteCloser {
	c.Helper()
	upload, err := c.client(insideAddr).Begin(c.ctx, at, name, []byte("first part, "))
	c.must(err)
	return upload
}

// lateWriteIsRefused completes a write whose permission ended while it was in progress.
func (c *exporterCase) lateWriteIsRefused(upload io.WriteCloser, name string) {
	c.Helper()
	c.notOnDisk(name)
	_, _ = upload.Write([]byte("second part")) // the verdict is Close's
	if err := upload.Close(); err == nil {
		c.Errorf("a write that ended after its permission was acknowledged")
	}
	c.notOnDisk(name)
}

func (c *exporterCase) snapshotSpec(id cairn.SnapshotID, hello string) drivers.ExportSpec {
	spec := c.spec
	spec.ID.Snapshot, spec.ReadOnly, spec.Staging = id, true, ""
	spec.Root = c.TempDir()
	c.must(os.WriteFile(filepath.Join(spec.Root, "hello"), []byte(hello), 0o644))
	return spec
}

func (c *exporterCase) export(spec drivers.ExportSpec) []cairn.ExportLocation {
	c.Helper()
	spec.Rules = slices.Clone(spec.Rules)
	locations, err := c.e.Export(c.ctx, spec)
	c.must(err)
	if len(locations) == 0 {
		c.Fatalf("Export returned no location")
	}
	return locations
}

func (c *exporterCase) client(from netip.Addr) Client {
	return c.h.Dial(c.T, c.e, Identity{From: from})
}

func (c *exporterCase) read(from netip.Addr, at cairn.ExportLocation) error {
	_, err := c.client(from).Read(c.ctx, at, "hello")
	return err
}

func (c *exporterCase) reads(client Client, at cairn.ExportLocation, name, want string) {
	c.Helper()
	got, err := client.Read(c.ctx, at, name)
	if err != nil || string(got) != want {
		c.Fatalf("read %s: %q, %v; want %q", name, got, err, want)
	}
}

func (c *exporterCase) writes(client Client, at cairn.ExportLocation, name, data string) {
	c.Helper()
	if err := client.Write(c.ctx, at, name, []byte(data)); err != nil {
		c.Fatalf("write %s: %v", name, err)
	}
	c.onDisk(name, data)
}

// refused demands that the exporter answered, and said no: a time-out is not a refusal.
func (c *exporterCase) refused(what string, err error) {
	c.Helper()
	for _, refusal := range []error{cairn.ErrDenied, cairn.ErrUnauthenticated, cairn.ErrNotFound, cairn.ErrUnavailable, cairn.ErrStale} {
		if errors.Is(err, refusal) {
			return
		}
	}
	c.Errorf("%s: %v; want a refusal", what, err)
}

func (c *exporterCase) put(name, data string) {
	c.Helper()
	c.must(os.WriteFile(filepath.Join(c.spec.Root, name), []byte(data), 0o644))
}

func (c *exporterCase) onDisk(name, want string) {
	c.Helper()
	if got, err := os.ReadFile(filepath.Join(c.spec.Root, name)); err != nil || string(got) != want {
		c.Errorf("%s on disk: %q, %v; want %q", name, got, err, want)
	}
}

func (c *exporterCase) notOnDisk(name string) {
	c.Helper()
	if _, err := os.Lstat(filepath.Join(c.spec.Root, name)); !errors.Is(err, os.ErrNotExist) {
		c.Errorf("%s is on disk (%v); want it absent", name, err)
	}
}

func (c *exporterCase) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// switchGuard lets everything pass until it is told to refuse.
type switchGuard struct{ cause atomic.Pointer[error] }

func (g *switchGuard) refuse(cause error) { g.cause.Store(&cause) }

// Check implements drivers.Guard.
func (g *switchGuard) Check(cairn.ReplicaID, uint64) error {
	if cause := g.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}
