// Package dir keeps replicas as plain directories of one file system. It needs no root, no tool and no kernel module, and
// runs wherever RENAME_EXCHANGE does (ext4, xfs, btrfs, tmpfs). Snapshots and clones share blocks where the file system
// has FICLONE and are full copies elsewhere.
//
// It does not know shares, exporters or clients. Where the file system is mounted with project quotas and the process may set
// them, they hold replicas to their sizes; elsewhere the exporter has to. The layout, with what every operation leaves behind when power fails, is in DESIGN.md.
//
//	<pool>/.cairn-pool                 the pool's mark: which pool of which node this is
//	<pool>/.cairn-work/<replica>/      half made or half removed; all of it is disposable
//	<pool>/<replica>/.cairn-replica    the replica's mark: ID, epoch, size, state
//	<pool>/<replica>/data/             Root
//	<pool>/<replica>/staging/          Staging
//	<pool>/<replica>/snapshots/<id>/   ready snapshots
//	<pool>/<replica>/work/<id>/        snapshots half made or half removed
//	<pool>/<replica>/revert/           the other side of a revert in progress
//	<pool>/<anything else>             not ours
package dir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Config is what Open needs to know.
type Config struct {
	// Path is the directory of the pool. It may hold directories of others: they are never touched unless adopted.
	Path string
	// PoolID is written into the directory when it becomes a pool, and must match ever after.
	PoolID cairn.PoolID
	// MustExist says that the pool has been used before: a directory without a mark is then an unmounted disk and an
	// error, not a new pool.
	MustExist bool
	// MaxBytes caps what the pool says is its size; 0 is the size of the file system.
	MaxBytes int64
	Logger   *slog.Logger // nil: slog.Default()
	// Step, if set, is called for everything that changes the file system: it names the step, and has it done by calling
	// do. Tests end the driver before or after any step here. Steps of one copy run concurrently.
	Step func(name string, do func() error) error
}

// Pool is an open pool directory. It implements every optional interface of package drivers.
//
// Each call runs in a goroutine of its own so that the caller gets away when its context ends, even from a disk that
// hangs. What was started then stops before its next step; until it has, it holds the lock of its replica.
type Pool struct {
	path    string // absolute
	poolID  cairn.PoolID
	max     int64
	log     *slog.Logger
	step    func(name string, do func() error) error
	dir     *os.File // the pool directory, locked against other processes
	device  uint64   // of the file system, to notice another one mounted inside
	reflink bool
	quota   quota
	locks   locks
	claims  claims
	indexes indexes
	calls   sync.WaitGroup
}

var (
	_ drivers.Pool          = (*Pool)(nil)
	_ drivers.Resizer       = (*Pool)(nil)
	_ drivers.Snapshotter   = (*Pool)(nil)
	_ drivers.Reverter      = (*Pool)(nil)
	_ drivers.Cloner        = (*Pool)(nil)
	_ drivers.Adopter       = (*Pool)(nil)
	_ drivers.UsageReporter = (*Pool)(nil)
	_ drivers.Sender        = (*Pool)(nil)
	_ drivers.Receiver      = (*Pool)(nil)
)

// Open opens the pool in cfg.Path, and makes the directory a pool first if it is not one yet. A directory that belongs to
// another pool or node is cairn.ErrPrecondition; one that another process has open is cairn.ErrInUse.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("pool directory %s: %w", cfg.Path, err)
	}
	p := &Pool{path: path, poolID: cfg.PoolID, max: cfg.MaxBytes, log: cfg.Logger, step: cfg.Step}
	if p.log == nil {
		p.log = slog.Default()
	}
	if p.step == nil {
		p.step = func(_ string, do func() error) error { return do() }
	}
	o := &op{Pool: p, ctx: ctx}
	if err := o.open(cfg.MustExist); err != nil {
		if p.dir != nil {
			err = errors.Join(err, p.dir.Close())
		}
		return nil, fmt.Errorf("pool directory %s: %w", path, classify(err))
	}
	return p, nil
}

// Close waits for calls that are still at work, and lets another process open the pool.
func (p *Pool) Close() error {
	p.calls.Wait()
	return p.dir.Close()
}

func (o *op) open(mustExist bool) error {
	if !mustExist {
		err := o.do("make pool directory", func() error { return os.Mkdir(o.path, 0o755) })
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	var err error
	if o.dir, err = os.OpenFile(o.path, os.O_RDONLY|syscall.O_DIRECTORY, 0); err != nil {
		return err
	}
	if err := unix.Flock(int(o.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("open in another process: %w", cairn.ErrInUse)
	} else if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(o.dir.Fd()), &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	o.device = st.Dev
	switch err := o.checkPoolMark(); {
	case errors.Is(err, errNoMark) && !mustExist:
		if err := o.writePoolMark(); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if err := o.mkdir("make work directory", o.workRoot()); err != nil {
		return err
	}
	// What an earlier process did just before it was killed is visible now; from here on it is durable as well.
	if err := o.syncAll(); err != nil {
		return err
	}
	if err := o.probe(); err != nil {
		return err
	}
	if err := o.settleProjects(); err != nil {
		return err
	}
	return o.emptyStagings()
}

// emptyStagings removes what exporters of an earlier process were preparing when it died: nothing of it was acknowledged. An exporter
// does so itself when it begins to serve a replica; that of a standby nobody serves. What cannot be removed is left to it.
func (o *op) emptyStagings() error {
	ids, err := o.candidates()
	if err != nil {
		return err
	}
	for _, id := range ids {
		replica := &op{Pool: o.Pool, ctx: o.ctx, id: id}
		object, err := replica.listed()
		if err == nil && object.Staging != "" {
			err = replica.removeBelow(object.Staging)
		}
		if err != nil && !errors.Is(err, cairn.ErrNotFound) && !errors.Is(err, errForeign) {
			o.log.Warn("dir: what was left of uploads is not removed", "replica", id, "err", err)
		}
	}
	return nil
}

// probe finds out what the file system can do by doing it.
func (o *op) probe() error {
	dir := filepath.Join(o.workRoot(), ".probe")
	if err := o.removeTree(dir); err != nil {
		return err
	}
	if err := o.mkdir("make probe", dir); err != nil {
		return err
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	err := o.do("probe", func() error {
		if err := os.WriteFile(a, []byte("cairn"), 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(b, nil, 0o600); err != nil {
			return err
		}
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
			return fmt.Errorf("file system cannot exchange two directories (%w), which a revert needs: %w", err, cairn.ErrNotSupported)
		}
		o.reflink = canReflink(b, a)
		o.quota.why = o.probeQuota(dir)
		return nil
	})
	if err != nil {
		return err
	}
	return o.removeTree(dir)
}

// Info reports the size of the file system, or the cap on it. It walks nothing.
func (p *Pool) Info(ctx context.Context) (drivers.Info, error) {
	return callPool(ctx, p, "info", func(o *op) (drivers.Info, error) {
		if err := o.checkPoolMark(); err != nil {
			return drivers.Info{}, err
		}
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(o.dir.Fd()), &st); err != nil {
			return drivers.Info{}, fmt.Errorf("statfs: %w", err)
		}
		info := drivers.Info{
			Total:       int64(st.Blocks) * st.Frsize,
			Free:        int64(st.Bavail) * st.Frsize,
			Enforcement: drivers.EnforcedByFileSystem,
		}
		if !o.quota.on() {
			info.Enforcement = drivers.EnforcedByExporter
			info.Notes = append(info.Notes, "sizes are enforced by the exporter and not by quotas: "+o.quota.why)
		}
		if o.max > 0 {
			info.Total, info.Free = min(info.Total, o.max), min(info.Free, o.max)
		}
		if !o.reflink {
			info.Notes = append(info.Notes, "no reflink: clones, snapshots and reverts are full copies")
		}
		return info, nil
	})
}

func (p *Pool) workRoot() string { return filepath.Join(p.path, ".cairn-work") }

// home is where a replica is once it is placed.
func (p *Pool) home(id cairn.ReplicaID) string { return filepath.Join(p.path, string(id)) }

// work is where a replica is while it is half made or half removed.
func (p *Pool) work(id cairn.ReplicaID) string { return filepath.Join(p.workRoot(), string(id)) }
