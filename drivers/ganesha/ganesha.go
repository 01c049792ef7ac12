// Package ganesha serves replicas and mounted snapshots through an NFS-Ganesha process that it starts, supervises and
// reloads: NFSv4.0 to 4.2, on a machine that need not have a kernel NFS server, rpcbind or D-Bus.
//
// What is served stands in one configuration file, written whole. After a start of Cairn nothing is served until it is
// exported again: Ganesha ends with Cairn, and another node may be the writer by now. What Ganesha says of itself is its
// log, and nothing else is believed.
//
// The package does not know how a pool keeps its directories. drivers.Guard is asked when something is exported, not on
// every request: whoever loses the right to serve has to call Fence. A client that forges file handles reaches the whole
// file system that a root is on; give what must be kept apart file systems of its own.
package ganesha

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

// fencePatience is how long a fence waits for requests to end until it ends Ganesha.
const fencePatience = 5 * time.Second

// Config is what an exporter needs from its node.
type Config struct {
	// Binary is looked up in PATH unless it has a slash.
	Binary string
	// Root is the path below which clients find exports. Nothing is there on the node.
	Root string
	// StateDir holds the configuration and what Ganesha remembers of its clients' locks over a restart: of the clients of all
	// shares together, so that it is on no share's pool. It belongs to this exporter and must be durable.
	StateDir string
	// ServiceAddresses are where clients reach this node, the preferred one first. Ganesha listens on all addresses.
	ServiceAddresses []netip.Addr
	Port             uint16
	Squash           Squash
	// Grace is how long after a start clients may reclaim what they had open, while nobody may open anything else.
	Grace time.Duration
	// IgnoreSize serves replicas whose pool holds nobody to their size. Ganesha does not either: a share may grow until the
	// pool is full. Without it such an export is cairn.ErrNotSupported.
	IgnoreSize bool
	Guard      drivers.Guard
	Logger     *slog.Logger
}

// DefaultConfig has what a node uses unless it is told otherwise.
func DefaultConfig() Config {
	return Config{Binary: "ganesha.nfsd", Root: "/srv/cairn", Port: nfsPort, Squash: SquashNone, Grace: 15 * time.Second}
}

// Exporter implements drivers.Exporter. From the first Export until Close one goroutine keeps Ganesha running.
type Exporter struct {
	config Config
	server *server
	file   *file

	start   sync.Once
	cancel  context.CancelFunc
	running context.Context
	wg      sync.WaitGroup

	state  *semaphore.Weighted // guards what follows, and is held while Ganesha reads its file
	record *record.Record
	stale  bool // Ganesha may not have read the file since it was written
}

var _ drivers.Exporter = (*Exporter)(nil)

// New returns an exporter that serves nothing, and remembers the fences of the one before. Close it.
// Errors: cairn.ErrInvalid for a config, and those of the state directory.
func New(config Config) (*Exporter, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("ganesha: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(config.StateDir, "recovery"), 0o700); err != nil {
		return nil, fmt.Errorf("ganesha: state directory: %w", err)
	}
	text, err := record.ReadFile(config.file())
	if err != nil {
		return nil, fmt.Errorf("ganesha: %w", err)
	}
	known, damage := record.Parse(text)
	for _, what := range damage {
		config.Logger.Warn("ganesha: configuration was changed by hand; a fence may be lost", "file", config.file(), "damage", what)
	}
	for _, entry := range known.Entries() {
		known.Remove(entry.Spec.ID)
	}
	e := &Exporter{config: config, file: &file{path: config.file(), text: text}, state: semaphore.NewWeighted(1), record: known}
	e.server = &server{binary: config.Binary, dir: config.StateDir, logger: config.Logger, prepare: e.file.prepare}
	e.running, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

// Close ends Ganesha, and returns when it has ended.
func (e *Exporter) Close() error {
	e.start.Do(func() {})
	e.cancel()
	e.wg.Wait()
	return nil
}

// PID is the Ganesha process that runs for this exporter, 0 if none does.
func (e *Exporter) PID() int { return e.server.pid() }

// Export serves spec. Errors: cairn.ErrInvalid and cairn.ErrNotSupported for a spec or a rule that NFS cannot serve,
// cairn.ErrNotFound if Root is certainly absent, cairn.ErrStale for an epoch below the one that is served or fenced,
// cairn.ErrUnavailable, with what Ganesha says, if it does not run or refuses. The guard's error if it refuses.
func (e *Exporter) Export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	if err := e.export(ctx, spec); err != nil {
		return nil, fmt.Errorf("export %s: %w", describe(spec.ID), err)
	}
	var locations []cairn.ExportLocation
	for i, addr := range spec.ServedAt(e.config.ServiceAddresses) {
		locations = append(locations, cairn.ExportLocation{
			URL:       e.config.location(addr, record.Name(spec)),
			Preferred: i == 0 && !record.ReadOnly(spec),
			ReadOnly:  record.ReadOnly(spec),
		})
	}
	return locations, nil
}

func (e *Exporter) export(ctx context.Context, spec drivers.ExportSpec) error {
	if err := e.validate(spec); err != nil {
		return err
	}
	if err := e.config.Guard.Check(spec.ID.Replica, spec.Epoch); err != nil {
		return err
	}
	if err := within(ctx, func() error { return checkRoot(spec.Root) }); err != nil {
		return err
	}
	return e.serve(ctx, spec)
}

// serve makes Ganesha serve the spec. What was served under the name before, from another root or of another replica, goes
// first: Ganesha takes no name twice.
func (e *Exporter) serve(ctx context.Context, spec drivers.ExportSpec) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.state.Release(1)
	name := record.Name(spec)
	before, was := e.record.Served()[name]
	if err := e.record.Put(spec); err != nil {
		return err
	}
	now := e.record.Served()[name]
	if was && before.Number != now.Number {
		if err := e.settle(ctx, name); err != nil {
			return err
		}
		if err := e.server.drained(ctx, before.Number); err != nil {
			return err
		}
	}
	e.stale = e.stale || e.server.serves(now.Number) != nil // what was refused may be possible by now
	if err := e.settle(ctx, ""); err != nil {
		return err
	}
	e.start.Do(func() {
		e.server.update(func() { e.server.started = true })
		e.wg.Go(func() { e.server.run(e.running) })
	})
	if err := e.server.up(ctx); err != nil {
		return err
	}
	return e.server.serves(now.Number)
}

func (e *Exporter) validate(spec drivers.ExportSpec) error {
	switch {
	case record.Name(spec) == "":
		return fmt.Errorf("spec names no replica, or no share or snapshot by its UUID: %w", cairn.ErrInvalid)
	case !isQuotable(spec.Root):
		return fmt.Errorf("root %q: %s: %w", spec.Root, wantQuotable, cairn.ErrInvalid)
	case spec.Standby:
		return fmt.Errorf("a replica that is not active is not served over NFS, whose clients cannot go on to another file system: %w", cairn.ErrNotSupported)
	case spec.EnforceSize && !e.config.IgnoreSize:
		return fmt.Errorf("neither the pool nor Ganesha holds the share to its size; use a file system with quotas, or allow it with ignore_size: %w", cairn.ErrNotSupported)
	}
	_, err := record.Clients(spec.Rules, record.ReadOnly(spec))
	return err
}

func checkRoot(root string) error {
	info, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("root: %w: %w", cairn.ErrNotFound, err)
	case err != nil:
		return fmt.Errorf("root: %w", err)
	case !info.IsDir():
		return fmt.Errorf("root %s: is no directory: %w", root, cairn.ErrInvalid)
	}
	return nil
}

// Unexport takes the export away, and returns when the last of its requests has ended. cairn.ErrTimeout if that is not before
// ctx ends: the export is served to nobody any more, and is listed without rules; Unexport again waits again.
func (e *Exporter) Unexport(ctx context.Context, id drivers.ExportID) error {
	if err := e.remove(ctx, id); err != nil {
		return fmt.Errorf("unexport %s: %w", describe(id), err)
	}
	return nil
}

func (e *Exporter) remove(ctx context.Context, id drivers.ExportID) error {
	var entry record.Entry
	known := false
	err := e.change(ctx, func() {
		e.record.Withdraw(id)
		entry, known = e.record.Entry(id)
	})
	if err != nil || !known {
		return err
	}
	if err := e.server.drained(ctx, entry.Number); err != nil {
		return err
	}
	return e.change(ctx, func() { e.record.Remove(id) })
}

// Fence refuses lower epochs from now on, also after a restart, and takes away what is served of one. A Ganesha that cannot
// be brought to that is ended, with every other export of the node, and started again without it.
func (e *Exporter) Fence(ctx context.Context, id cairn.ReplicaID, below uint64) error {
	err := e.fence(ctx, id, below)
	for tries := 0; err != nil && tries < 2; tries++ {
		e.config.Logger.Error("ganesha: ended because a fence needs it; all shares of this node are interrupted", "replica", id, "error", err)
		if err := e.server.kill(ctx); err != nil {
			return fmt.Errorf("fence %s: %w", id, err)
		}
		err = e.fence(ctx, id, below)
	}
	if err != nil {
		return fmt.Errorf("fence %s: %w", id, err)
	}
	return nil
}

func (e *Exporter) fence(ctx context.Context, id cairn.ReplicaID, below uint64) error {
	ctx, cancel := context.WithTimeout(ctx, fencePatience)
	defer cancel()
	withdrawn := false
	err := e.change(ctx, func() { withdrawn = e.record.Fence(id, below) })
	if err == nil && withdrawn {
		err = e.remove(ctx, drivers.ExportID{Replica: id})
	}
	return err
}

// change changes the record, and makes Ganesha follow if it runs.
func (e *Exporter) change(ctx context.Context, mutate func()) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.state.Release(1)
	mutate()
	return e.settle(ctx, "")
}

// settle makes the file and a running Ganesha agree with the record, without the name. What does not run serves nobody,
// and reads the file when it starts. Called with state held.
func (e *Exporter) settle(ctx context.Context, without string) error {
	text, wanted, err := e.render(without)
	if err != nil {
		return err
	}
	if !e.stale && e.file.is(text) {
		return nil
	}
	e.stale = true
	if err := e.file.set(text, wanted); err != nil {
		return err
	}
	if err := e.server.reload(ctx, wanted); err != nil && !errors.Is(err, cairn.ErrUnavailable) {
		return err
	}
	e.stale = false
	return nil
}

// render is the configuration without the name, and the numbers of its exports.
func (e *Exporter) render(without string) (text []byte, wanted []uint16, err error) {
	served := e.record.Served()
	tracing := without != ""
	delete(served, without)
	for _, entry := range e.record.Entries() {
		if entry.Withdrawn { // Ganesha takes no name twice
			tracing = true
			delete(served, record.Name(entry.Spec))
		}
	}
	for _, entry := range served {
		wanted = append(wanted, entry.Number)
	}
	text, err = e.config.render(e.record, served, tracing)
	return text, wanted, err
}

func (e *Exporter) lock(ctx context.Context) error {
	if err := e.state.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("another call is in progress: %w: %w", cairn.ErrTimeout, err)
	}
	return nil
}

// Exports lists what is recorded, in order, after undoing what others have changed in the configuration. An export that
// nobody reaches as recorded, because Ganesha does not run, refuses it or is still giving it up, is listed without rules:
// exported again it is repaired, or the error says why not.
func (e *Exporter) Exports(ctx context.Context) ([]drivers.ExportSpec, error) {
	if err := e.lock(ctx); err != nil {
		return nil, fmt.Errorf("exports: %w", err)
	}
	defer e.state.Release(1)
	if e.file.touched() {
		e.config.Logger.Warn("ganesha: configuration was changed by hand; the changes are undone", "file", e.file.path)
	}
	if err := e.settle(ctx, ""); err != nil {
		return nil, fmt.Errorf("exports: %w", err)
	}
	var list []drivers.ExportSpec
	served := e.record.Served()
	for _, entry := range e.record.Entries() {
		answers := served[record.Name(entry.Spec)] // this entry, or the one that outranks it
		if entry.Withdrawn || e.server.serves(answers.Number) != nil {
			entry.Spec.Rules = nil
		}
		list = append(list, entry.Spec)
	}
	return list, nil
}

func describe(id drivers.ExportID) string {
	if id.Snapshot != "" {
		return fmt.Sprintf("replica %s snapshot %s", id.Replica, id.Snapshot)
	}
	return fmt.Sprintf("replica %s", id.Replica)
}

// within does what may hang with a disk, in a goroutine that ends when it does. The caller gets away when ctx ends.
func within(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("disk does not answer: %w: %w", cairn.ErrTimeout, context.Cause(ctx))
	}
}
