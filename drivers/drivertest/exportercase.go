package drivertest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// exporterCase is one exporter with one directory to serve, and two clients.
type exporterCase struct {
	*testing.T
	h               ExporterHarness
	guard           *switchGuard
	e               drivers.Exporter
	ctx             context.Context
	spec            drivers.ExportSpec
	inside, outside netip.Addr
}

func newExporterCase(t *testing.T, h ExporterHarness) *exporterCase {
	ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(h.Patience, patience))
	t.Cleanup(cancel)
	c := &exporterCase{T: t, h: h, guard: &switchGuard{}, ctx: ctx, inside: h.Inside, outside: h.Outside}
	if !c.inside.IsValid() { // Linux answers on all of 127.0.0.0/8
		c.inside, c.outside = netip.AddrFrom4([4]byte{127, 0, 0, 2}), netip.AddrFrom4([4]byte{127, 0, 0, 3})
	}
	c.spec = drivers.ExportSpec{
		ID:    drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000a1"},
		Share: "0198c000-0000-7000-8000-0000000000b1",
		Epoch: 4,
		Size:  1 << 30,
		Rules: []cairn.AccessRule{ipRule("r1", c.inside, cairn.AccessRW)},
	}
	c.spec.Root, c.spec.Staging = c.newRoot()
	c.put("hello", "world")
	c.e = h.New(t, c.guard)
	return c
}

func (c *exporterCase) newRoot() (root, staging string) {
	if c.h.Root != nil {
		return c.h.Root(c.T)
	}
	base := c.TempDir()
	root, staging = filepath.Join(base, "data"), filepath.Join(base, "staging")
	for _, dir := range []string{root, staging} {
		c.must(os.Mkdir(dir, 0o755))
	}
	return root, staging
}

func ipRule(id cairn.RuleID, from netip.Addr, level cairn.AccessLevel) cairn.AccessRule {
	return cairn.AccessRule{
		ID: id, Kind: cairn.AccessIP, Who: netip.PrefixFrom(from, from.BitLen()).String(), Level: level, State: cairn.RuleActive,
	}
}

// writeInBackground writes name with its own name as content.
func (c *exporterCase) writeInBackground(at cairn.ExportLocation, name string) <-chan error {
	client, written := c.client(c.inside), make(chan error, 1)
	go func() { written <- client.Write(c.ctx, at, name, []byte(name)) }()
	return written
}

// staysHeld gives a write that should be held every chance to go through: many round trips of reads, which are not held, and
// some time for exporters that have no round trips.
func (c *exporterCase) staysHeld(at cairn.ExportLocation, written <-chan error, name string) {
	c.Helper()
	began := time.Now()
	for rounds := 0; rounds < 50 || time.Since(began) < 200*time.Millisecond; rounds++ {
		c.reads(c.client(c.inside), at, "hello", "world")
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
	upload, err := c.client(c.inside).Begin(c.ctx, at, name, []byte("first part, "))
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
	spec.Root, _ = c.newRoot()
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
