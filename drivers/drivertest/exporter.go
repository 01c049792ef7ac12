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
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// patience bounds every clause of the suite: far more than a healthy exporter takes, so that a hang fails with a name.
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
	// Root makes an empty directory that the exporter can serve, and a staging directory beside it. Nil makes them anywhere.
	Root func(t *testing.T) (root, staging string)
	// Inside and Outside are where two clients connect from. Zero is two addresses of the loopback network.
	Inside, Outside netip.Addr
	// GuardOnExport: the exporter cannot ask the guard on every request. It asks when something is exported, and Fence has to
	// be called for the rest.
	GuardOnExport bool
	// Patience bounds each clause. Zero is a minute; an emulated machine takes more.
	Patience time.Duration
	// RefusesSize: the exporter cannot hold clients to a size, and refuses a spec that wants it.
	RefusesSize bool
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

// ExporterConformance runs the contract of drivers.Exporter, and of drivers.Quiescer and drivers.StandbyServer where the exporter
// implements them.
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
	{"a standby shows its latest point and nobody writes it", (*exporterCase).standbyGoesOn},
	{"exports lists what is served, in order", (*exporterCase).exportsLists},
	{"unexport of what is not exported succeeds", (*exporterCase).unexportOfAbsent},
	{"unexport ends what is in progress", (*exporterCase).unexportEndsRequests},
	{"the guard is asked", (*exporterCase).guardIsAsked},
	{"fence stops lower epochs and no higher ones", (*exporterCase).fenceStopsLowerEpochs},
	{"fence ends a write in progress", (*exporterCase).fenceEndsWrites},
	{"the size is enforced and a refused write leaves nothing", (*exporterCase).sizeIsEnforced},
	{"a symbolic link does not lead out of the export", (*exporterCase).linksStayInside},
	{"quiesce holds writes until resume", (*exporterCase).quiesceHoldsWrites},
	{"quiesce ends with its context", (*exporterCase).quiesceEndsWithContext},
}

func (c *exporterCase) exportIsIdempotent() {
	first := c.export(c.spec)
	again := c.export(c.spec)
	if !reflect.DeepEqual(first, again) {
		c.Errorf("locations changed when the same export was repeated: %v, then %v", first, again)
	}
	c.reads(c.client(c.inside), again[0], "hello", "world")
	c.writes(c.client(c.inside), again[0], "new", "bytes")
	c.onDisk("new", "bytes")
}

func (c *exporterCase) rulesAreReplaced() {
	at := c.export(c.spec)[0]
	c.reads(c.client(c.inside), at, "hello", "world")
	c.refused("a client without a rule", c.read(c.outside, at))

	c.spec.Rules = []cairn.AccessRule{ipRule("r2", c.outside, cairn.AccessRW)}
	at = c.export(c.spec)[0]
	c.refused("a client whose rule was replaced", c.read(c.inside, at))
	c.reads(c.client(c.outside), at, "hello", "world")
}

func (c *exporterCase) noRulesMeansNobody() {
	c.spec.Rules = nil
	at := c.export(c.spec)[0]
	c.refused("a client of an export without rules", c.read(c.inside, at))
}

func (c *exporterCase) levelsHold() {
	c.spec.Rules = []cairn.AccessRule{ipRule("r1", c.inside, cairn.AccessRO), ipRule("r2", c.outside, cairn.AccessRW)}
	at := c.export(c.spec)[0]
	c.reads(c.client(c.inside), at, "hello", "world")
	c.refused("a write with an ro rule", c.client(c.inside).Write(c.ctx, at, "no", []byte("x")))
	c.notOnDisk("no")
	c.writes(c.client(c.outside), at, "yes", "x")
}

func (c *exporterCase) usersAreKnown() {
	if c.h.UserRule == nil {
		c.Skip("skipped clause: the exporter knows no users")
	}
	rule, password := c.h.UserRule(c.T, "alice", cairn.AccessRW)
	c.spec.Rules = []cairn.AccessRule{rule}
	at := c.export(c.spec)[0]
	alice := Identity{User: "alice", Password: password, From: c.outside}
	c.reads(c.h.Dial(c.T, c.e, alice), at, "hello", "world")
	c.writes(c.h.Dial(c.T, c.e, alice), at, "hers", "x")
	for what, identity := range map[string]Identity{
		"a wrong password":    {User: "alice", Password: password + "x", From: c.outside},
		"an empty password":   {User: "alice", From: c.outside},
		"another user's name": {User: "bob", Password: password, From: c.outside},
		"no credentials":      {From: c.outside},
	} {
		_, err := c.h.Dial(c.T, c.e, identity).Read(c.ctx, at, "hello")
		c.refused(what, err)
	}
}

func (c *exporterCase) readOnlyHolds() {
	c.spec.ReadOnly = true
	at := c.export(c.spec)[0]
	c.reads(c.client(c.inside), at, "hello", "world")
	c.refused("a write to a read-only export", c.client(c.inside).Write(c.ctx, at, "no", []byte("x")))
	c.notOnDisk("no")
}

func (c *exporterCase) snapshotBesideReplica() {
	snap := c.snapshotSpec("0198c000-0000-7000-8000-0000000000c1", "yesterday")
	live, frozen := c.export(c.spec)[0], c.export(snap)[0]
	c.reads(c.client(c.inside), live, "hello", "world")
	c.reads(c.client(c.inside), frozen, "hello", "yesterday")
	c.refused("a write to a snapshot", c.client(c.inside).Write(c.ctx, frozen, "hello", []byte("x")))
	c.must(c.e.Unexport(c.ctx, snap.ID))
	c.refused("a read of a snapshot that is no longer exported", c.read(c.inside, frozen))
	c.reads(c.client(c.inside), live, "hello", "world")
}

func (c *exporterCase) standbyGoesOn() {
	first := c.snapshotSpec("0198c000-0000-7000-8000-0000000000c1", "one")
	second := c.snapshotSpec("0198c000-0000-7000-8000-0000000000c2", "two")
	first.Standby, second.Standby = true, true
	server, ok := c.e.(drivers.StandbyServer)
	if !ok {
		if _, err := c.e.Export(c.ctx, first); !errors.Is(err, cairn.ErrNotSupported) {
			c.Errorf("export of a standby by an exporter that is no StandbyServer: %v; want it refused as not supported", err)
		}
		return
	}
	live, at := c.export(c.spec)[0], c.export(first)[0]
	c.reads(c.client(c.inside), at, "hello", "one")
	again := c.export(second)[0]
	c.export(first) // changes nothing: the latest one answers, whichever was exported last
	if !at.ReadOnly || again != at || at.URL == live.URL {
		c.Errorf("a standby is at %v, then at %v, and the share at %v", at, again, live)
	}
	c.reads(c.client(c.inside), at, "hello", "two")
	c.refused("a write to a standby", c.client(c.inside).Write(c.ctx, at, "hello", []byte("x")))
	_, err := server.InUse(c.ctx, first.ID)
	c.must(err)
	c.must(c.e.Unexport(c.ctx, first.ID))
	c.reads(c.client(c.inside), at, "hello", "two")
	c.reads(c.client(c.inside), live, "hello", "world")
	c.must(c.e.Unexport(c.ctx, second.ID))
	c.refused("a read of a standby that is no longer exported", c.read(c.inside, at))
	if used, err := server.InUse(c.ctx, second.ID); err != nil || used {
		c.Errorf("what is not exported is in use: %t, %v", used, err)
	}
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
	c.refused("a read of what is no longer exported", c.read(c.inside, at))
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
	if c.h.GuardOnExport {
		c.guardIsAskedOnExport(at)
		return
	}
	for _, cause := range []error{cairn.ErrStale, cairn.ErrUnavailable} {
		c.guard.refuse(cause)
		c.refused("a write that the guard refuses", c.client(c.inside).Write(c.ctx, at, "no", []byte("x")))
		c.notOnDisk("no")
		c.guard.refuse(nil)
		c.reads(c.client(c.inside), at, "hello", "world")
	}
	c.writes(c.client(c.inside), at, "yes", "x")
}

// guardIsAskedOnExport: what the guard refuses is not exported, and changes nothing of what is.
func (c *exporterCase) guardIsAskedOnExport(at cairn.ExportLocation) {
	wider := c.spec
	wider.Rules = append(slices.Clone(c.spec.Rules), ipRule("r2", c.outside, cairn.AccessRW))
	for _, cause := range []error{cairn.ErrStale, cairn.ErrUnavailable} {
		c.guard.refuse(cause)
		if _, err := c.e.Export(c.ctx, wider); !errors.Is(err, cause) {
			c.Errorf("Export that the guard refuses: %v; want %v", err, cause)
		}
		c.refused("a client of a rule that was not exported", c.read(c.outside, at))
	}
	c.guard.refuse(nil)
	c.export(wider)
	c.reads(c.client(c.outside), at, "hello", "world")
}

func (c *exporterCase) fenceStopsLowerEpochs() {
	at := c.export(c.spec)[0]
	c.must(c.e.Fence(c.ctx, c.spec.ID.Replica, c.spec.Epoch)) // below 4: epoch 4 itself goes on
	c.writes(c.client(c.inside), at, "before", "x")
	c.must(c.e.Fence(c.ctx, c.spec.ID.Replica, c.spec.Epoch+1))
	c.refused("a write below the fence", c.client(c.inside).Write(c.ctx, at, "no", []byte("x")))
	c.notOnDisk("no")

	if locations, err := c.e.Export(c.ctx, c.spec); err == nil {
		c.refused("a write below the fence, exported again", c.client(c.inside).Write(c.ctx, locations[0], "no", []byte("x")))
		c.notOnDisk("no")
	} else if !errors.Is(err, cairn.ErrStale) {
		c.Errorf("Export below the fence: %v; want cairn.ErrStale", err)
	}
	c.spec.Epoch++
	at = c.export(c.spec)[0]
	c.writes(c.client(c.inside), at, "after", "x")
	c.must(c.e.Fence(c.ctx, "0198c000-0000-7000-8000-0000000000ff", 9)) // of what is not exported
	c.writes(c.client(c.inside), at, "after", "y")
}

func (c *exporterCase) fenceEndsWrites() {
	at := c.export(c.spec)[0]
	upload := c.begin(at, "half")
	c.must(c.e.Fence(c.ctx, c.spec.ID.Replica, c.spec.Epoch+1))
	c.lateWriteIsRefused(upload, "half")
}

func (c *exporterCase) sizeIsEnforced() {
	c.spec.Size, c.spec.EnforceSize = 64<<10, true
	if c.h.RefusesSize {
		if _, err := c.e.Export(c.ctx, c.spec); !errors.Is(err, cairn.ErrNotSupported) {
			c.Errorf("Export of a size that nobody would enforce: %v; want cairn.ErrNotSupported", err)
		}
		return
	}
	at := c.export(c.spec)[0]
	client := c.client(c.inside)
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
	if got, err := c.client(c.inside).Read(c.ctx, at, "leak"); err == nil && bytes.Contains(got, []byte("secret")) {
		c.Errorf("a link out of the export was followed: read %q", got)
	}
	_ = c.client(c.inside).Write(c.ctx, at, "leak", []byte("changed")) // may replace the link or be refused
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
	c.writes(c.client(c.inside), at, "next", "x")
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
	select {
	case err := <-written:
		c.must(err)
	case <-c.ctx.Done():
		c.Fatal("a write is still held after the context of Quiesce has ended")
	}
	resume()
	c.onDisk("held", "held")
}
