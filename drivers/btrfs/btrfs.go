// Package btrfs keeps replicas as subvolumes of a btrfs file system, in one directory of it. It runs the btrfs tool for what
// changes subvolumes and quotas, and asks the kernel itself about them.
//
// It does not know shares, exporters, clients or nodes, and it never touches a directory or subvolume without its mark
// unless it adopts it. The layout, with what every operation leaves behind when power fails, is in ../DESIGN.md.
//
//	<pool>/.cairn-pool                 the pool's mark: which pool of which node this is
//	<pool>/.cairn-work/<replica>/      half made or half removed; all of it is disposable
//	<pool>/<replica>/.cairn-replica    the replica's mark: ID, epoch, size, state
//	<pool>/<replica>/data              subvolume, with files/ (Root) and staging/ (Staging)
//	<pool>/<replica>/snapshots/<id>    read-only snapshots of data
//	<pool>/<replica>/aside             subvolume that is going to be data, or was
//	<pool>/<replica>/receive/          what arrives in a stream
//	<pool>/<replica>/origin, out       what is adopted; what is released
//	<pool>/<anything else>             not ours
package btrfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/calls"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Runner runs the btrfs tool, and cp.
type Runner interface {
	tool.Runner
	tool.Streamer
}

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
	Runner   Runner       // nil: the tools of this machine
	// Step, if set, is called for everything that changes the file system: it names the step, and has it done by calling
	// do. Tests end the driver before or after any step here.
	Step func(name string, do func() error) error
}

// Pool is an open pool directory. It implements every optional interface of package drivers but GroupSnapshotter: btrfs
// cannot snapshot two subvolumes at one point in time.
//
// Calls that change a replica exclude each other, for as long as their tools run. Those that only look do not wait for
// them: a replica can be looked at while it is received.
type Pool struct {
	path    string // absolute
	poolID  cairn.PoolID
	max     int64
	log     *slog.Logger
	runner  Runner
	step    func(name string, do func() error) error
	dir     *os.File // the pool directory, locked against other processes
	quota   quota
	dropped dropped
	calls   calls.Calls
	sends   sends
}

var (
	_ drivers.Pool          = (*Pool)(nil)
	_ drivers.Resizer       = (*Pool)(nil)
	_ drivers.Snapshotter   = (*Pool)(nil)
	_ drivers.Reverter      = (*Pool)(nil)
	_ drivers.Cloner        = (*Pool)(nil)
	_ drivers.Adopter       = (*Pool)(nil)
	_ drivers.UsageReporter = (*Pool)(nil)
	_ drivers.Sealer        = (*Pool)(nil)
	_ drivers.Sender        = (*Pool)(nil)
	_ drivers.Receiver      = (*Pool)(nil)
)

// Open opens the pool in cfg.Path, and makes the directory a pool first if it is not one yet. It turns on quotas for the
// whole file system. A directory that belongs to another pool or node is cairn.ErrPrecondition; one that another process has
// open is cairn.ErrInUse; one that is not on btrfs is cairn.ErrNotSupported.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("pool directory %s: %w", cfg.Path, err)
	}
	p := &Pool{path: path, poolID: cfg.PoolID, max: cfg.MaxBytes, log: cmp.Or(cfg.Logger, slog.Default()), runner: cfg.Runner, step: cfg.Step}
	if p.runner == nil {
		p.runner = tool.NewMachine()
	}
	if p.step == nil {
		p.step = func(_ string, do func() error) error { return do() }
	}
	if err := (&op{Pool: p, ctx: ctx}).open(cfg.MustExist); err != nil {
		if p.dir != nil {
			err = errors.Join(err, p.unlock())
		}
		return nil, fmt.Errorf("pool directory %s: %w", path, classify(err))
	}
	return p, nil
}

// Close waits for calls that are still at work, and lets another process open the pool.
func (p *Pool) Close() error {
	p.calls.Wait()
	return p.unlock()
}

// unlock does not leave it to the end of the file descriptor: a tool that is just being started has that, too.
func (p *Pool) unlock() error {
	return errors.Join(unix.Flock(int(p.dir.Fd()), unix.LOCK_UN), p.dir.Close())
}

func (o *op) open(mustExist bool) error {
	if !mustExist {
		if err := o.mkdir("make pool directory", o.path, 0o755); err != nil {
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
	if err := o.markPool(mustExist); err != nil {
		return err
	}
	if err := o.mkdir("make work directory", o.workRoot(), 0o700); err != nil {
		return err
	}
	// What an earlier process did just before it was killed is visible now; from here on it is durable as well.
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.enableQuota(); err != nil {
		return err
	}
	return o.settleLimits()
}

// markPool makes sure that the directory is this pool, on btrfs, or makes it that.
func (o *op) markPool(mustExist bool) error {
	err := o.checkPoolMark()
	if err != nil && (mustExist || !errors.Is(err, errNoMark)) {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(o.dir.Fd()), &st); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return fmt.Errorf("is not on a btrfs file system: %w", cairn.ErrNotSupported)
	}
	if err == nil {
		return nil
	}
	return o.writeJSON("pool mark", filepath.Join(o.path, poolMarkFile), poolMark{Format: markFormat, Pool: o.poolID})
}

// Info reports the size of the file system, or the cap on it. Free is what the kernel guesses: it depends on what will be
// written.
func (p *Pool) Info(ctx context.Context) (drivers.Info, error) {
	return look(ctx, p, "", "info", func(o *op) (drivers.Info, error) {
		if err := o.checkPoolMark(); err != nil {
			return drivers.Info{}, err
		}
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(o.dir.Fd()), &st); err != nil {
			return drivers.Info{}, fmt.Errorf("statfs: %w", err)
		}
		info := drivers.Info{
			Total:           int64(st.Blocks) * st.Bsize,
			Free:            int64(st.Bavail) * st.Bsize,
			Enforcement:     drivers.EnforcedByFileSystem,
			AtomicSnapshots: true,
			Notes:           o.quota.notes(),
		}
		if !o.quota.on() {
			info.Enforcement = drivers.EnforcedByExporter
		}
		if o.max > 0 {
			info.Total, info.Free = min(info.Total, o.max), min(info.Free, o.max)
		}
		return info, nil
	})
}

func (p *Pool) workRoot() string { return filepath.Join(p.path, ".cairn-work") }

// home is where a replica is once it is placed.
func (p *Pool) home(id cairn.ReplicaID) string { return filepath.Join(p.path, string(id)) }

// work is where a replica is while it is half made or half removed.
func (p *Pool) work(id cairn.ReplicaID) string { return filepath.Join(p.workRoot(), string(id)) }

// in is a path in the home of the replica of o.
func (o *op) in(name ...string) string {
	return filepath.Join(append([]string{o.home(o.id)}, name...)...)
}
