// Package nfs serves replicas and mounted snapshots through the NFS server of the Linux kernel: versions 3, 4.0, 4.1 and 4.2.
//
// Each export is a bind mount of its root below Config.Root, named by the share or the snapshot, so that clients use the same
// path on every node; fsid= is that ID too, so that file handles survive a move. What is served stands in one file below
// /etc/exports.d, which also carries the record of what the exporter was told. A bind mount that could be unmounted is the
// proof that no request is in progress: requests, open files and locks hold it.
//
// It does not know how a pool makes its file systems, only that a root must be a file system of its own. It does not start
// the server. drivers.Guard is asked when something is exported, not on every request: the kernel cannot ask. Whoever loses
// the right to serve has to call Fence.
package nfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Squash says whom the server takes clients' users for.
type Squash string

// Squash modes of exports(5). Without squashing, root of a client is root of the share: what who mounts a file share of
// their own expects, and what Manila does.
const (
	SquashNone Squash = "no_root_squash"
	SquashRoot Squash = "root_squash"
	SquashAll  Squash = "all_squash"
)

// Config is what an exporter needs from its node.
type Config struct {
	// Root is the directory below which exports are mounted. It must be the same on all nodes, or clients' paths differ.
	Root string
	// ExportsFile belongs to this exporter alone; exportfs reads it because it is in /etc/exports.d and ends in .exports.
	ExportsFile string
	// ServiceAddresses are where clients reach this node, the preferred one first.
	ServiceAddresses []netip.Addr
	Squash           Squash
	Runner           tool.Runner
	Guard            drivers.Guard
	Logger           *slog.Logger
}

// DefaultConfig has the paths that a node uses unless it is told others.
func DefaultConfig() Config {
	return Config{Root: "/srv/cairn", ExportsFile: "/etc/exports.d/cairn.exports", Squash: SquashNone}
}

func (c Config) validate() error {
	switch {
	case !filepath.IsAbs(c.Root) || filepath.Clean(c.Root) != c.Root || strings.ContainsFunc(c.Root, unsafeInPath):
		return fmt.Errorf("root %q: want a clean absolute path of letters, digits and ._-/: %w", c.Root, cairn.ErrInvalid)
	case !filepath.IsAbs(c.ExportsFile) || !strings.HasSuffix(c.ExportsFile, ".exports"):
		return fmt.Errorf("exports file %q: want an absolute path that ends in .exports: %w", c.ExportsFile, cairn.ErrInvalid)
	case len(c.ServiceAddresses) == 0:
		return fmt.Errorf("service addresses: want at least one: %w", cairn.ErrInvalid)
	case c.Squash != SquashNone && c.Squash != SquashRoot && c.Squash != SquashAll:
		return fmt.Errorf("squash %q: want %s, %s or %s: %w", c.Squash, SquashNone, SquashRoot, SquashAll, cairn.ErrInvalid)
	}
	return nil
}

// unsafeInPath: exports(5), mountinfo and clients would each need another way to quote it.
func unsafeInPath(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-/", c))
}

// Exporter implements drivers.Exporter. It starts no goroutines.
type Exporter struct {
	config Config
	kernel kernel
	names  nameLocks

	// state guards what follows, the exports file and the kernel's table. It is held for no wait on clients.
	state lock
	// record is what the exports file says: the file is read once, and rewritten when it differs.
	record  *record.Record
	written []byte // what the exports file was left as
	// changes counts what the server may not know yet, and confirmed says up to which of them it certainly does.
	changes, confirmed uint64
	// moving are the names that are served to nobody while their mount changes.
	moving map[string]bool
}

var _ drivers.Exporter = (*Exporter)(nil)

// New returns an exporter that goes on with what its exports file says. It does not ask the kernel: see Check.
// Errors: cairn.ErrInvalid for a config, and those of reading the file.
func New(config Config) (*Exporter, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("nfs: %w", err)
	}
	text, err := record.ReadFile(config.ExportsFile)
	if err != nil {
		return nil, fmt.Errorf("nfs: exports file: %w", err)
	}
	known, damage := record.Parse(text)
	for _, what := range damage {
		config.Logger.Warn("nfs: exports file was changed by hand; what the line was about is not served until it is exported again",
			"file", config.ExportsFile, "damage", what)
	}
	return &Exporter{
		config: config,
		kernel: kernel{nfsd: "/proc/fs/nfsd", run: config.Runner},
		state:  newLock(),
		record: known, written: text,
		moving: make(map[string]bool), changes: 1,
	}, nil
}

// Check returns nil if the node's NFS server can serve, or cairn.ErrUnavailable with what is missing and how to start it.
func (e *Exporter) Check(ctx context.Context) error { return e.kernel.check(ctx) }

// Export serves spec. Root must be the root of a mounted file system: of a mere directory, a client with a forged handle
// could reach everything beside it, and nothing would prove that its requests have ended.
//
// Errors: cairn.ErrInvalid and cairn.ErrNotSupported for a spec or a rule that NFS cannot serve, cairn.ErrNotFound if Root is
// certainly absent, cairn.ErrStale for an epoch below the one that is served or fenced, cairn.ErrUnavailable if the NFS
// server does not run or does not confirm the export, cairn.ErrTimeout if what was served under the same name before is
// still in use. The guard's error if it refuses.
func (e *Exporter) Export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	if err := e.export(ctx, spec); err != nil {
		return nil, fmt.Errorf("export %s: %w", describe(spec.ID), err)
	}
	var locations []cairn.ExportLocation
	for i, addr := range spec.ServedAt(e.config.ServiceAddresses) {
		locations = append(locations, cairn.ExportLocation{
			URL:       host(addr) + ":" + e.path(record.Name(spec)),
			Preferred: i == 0 && !record.ReadOnly(spec),
			ReadOnly:  record.ReadOnly(spec),
		})
	}
	return locations, nil
}

// host is an address as it stands before the colon of a location.
func host(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

func (e *Exporter) export(ctx context.Context, spec drivers.ExportSpec) error {
	name := record.Name(spec)
	if err := validateSpec(spec, name); err != nil {
		return err
	}
	if err := e.config.Guard.Check(spec.ID.Replica, spec.Epoch); err != nil {
		return err
	}
	if err := e.kernel.check(ctx); err != nil {
		return err
	}
	unlock, err := e.names.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := e.fileSystem(ctx, spec); err != nil {
		return err
	}
	if err := e.change(ctx, func(r *record.Record) error { return r.Put(spec) }); err != nil {
		return err
	}
	return e.reconcile(ctx, name)
}

func validateSpec(spec drivers.ExportSpec, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("spec names no replica, or no share or snapshot by its UUID: %w", cairn.ErrInvalid)
	case !filepath.IsAbs(spec.Root):
		return fmt.Errorf("root %q is not an absolute path: %w", spec.Root, cairn.ErrInvalid)
	case spec.Standby:
		return fmt.Errorf("a replica that is not active is not served over NFS, whose clients cannot go on to another file system: %w", cairn.ErrNotSupported)
	case spec.EnforceSize:
		return fmt.Errorf("the kernel's NFS server holds nobody to a size; use a pool whose file system does: %w", cairn.ErrNotSupported)
	}
	_, err := record.Clients(spec.Rules, record.ReadOnly(spec))
	return err
}

// Unexport takes the export away from its clients: the rules, then locks and open files that the server keeps for them, then
// the mount. When it returns no request is in progress and the file system can be unmounted. A client with files open on
// it loses its whole NFSv4 lease on kernels before 6.9, and recovers what it has open of other shares.
//
// cairn.ErrTimeout if something is still in use when ctx ends: the export is served to nobody any more, and is listed
// without rules; Unexport again goes on.
func (e *Exporter) Unexport(ctx context.Context, id drivers.ExportID) error {
	if err := e.remove(ctx, id); err != nil {
		return fmt.Errorf("unexport %s: %w", describe(id), err)
	}
	return nil
}

func (e *Exporter) remove(ctx context.Context, id drivers.ExportID) error {
	entry, err := e.entry(ctx, id)
	if err != nil || entry == nil {
		return err
	}
	name := record.Name(entry.Spec)
	unlock, err := e.names.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	withdrawing := e.change(ctx, func(r *record.Record) error { r.Withdraw(id); return nil })
	if err := errors.Join(withdrawing, e.reconcile(ctx, name)); err != nil {
		return err
	}
	return e.change(ctx, func(r *record.Record) error { r.Remove(id); return nil })
}

// Fence refuses lower epochs from now on, also after a restart, and takes away what is served of one, as Unexport does.
func (e *Exporter) Fence(ctx context.Context, id cairn.ReplicaID, below uint64) error {
	withdrawn := false
	err := e.change(ctx, func(r *record.Record) error { withdrawn = r.Fence(id, below); return nil })
	if withdrawn {
		err = errors.Join(err, e.remove(ctx, drivers.ExportID{Replica: id}))
	}
	if err != nil {
		return fmt.Errorf("fence %s: %w", id, err)
	}
	return nil
}

func describe(id drivers.ExportID) string {
	if id.Snapshot != "" {
		return fmt.Sprintf("replica %s snapshot %s", id.Replica, id.Snapshot)
	}
	return fmt.Sprintf("replica %s", id.Replica)
}

func (e *Exporter) path(name string) string { return filepath.Join(e.config.Root, name) }
