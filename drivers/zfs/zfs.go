// Package zfs keeps replicas as datasets of OpenZFS 2.1 or newer, directly below one dataset of a zpool. It runs the zfs and
// zpool tools and reads nothing but their parsable output, and what the kernel says of the zpool's health.
//
// It does not know shares, exporters, clients or nodes, and it never touches a dataset, snapshot, bookmark or hold that does
// not carry its mark. The layout, with what every operation leaves behind when power fails, is in ../DESIGN.md.
//
//	<dataset>                      cairn:pool says which pool of which node this is
//	<dataset>/<prefix><replica>    cairn:id and the other properties of a mark; its mountpoint is Root
//	…@<snapshot>                   cairn:snapshot
//	…#<snapshot>                   what is left to send from when a snapshot that was sent is deleted
//	<dataset>/<anything else>      not ours
package zfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/calls"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Runner runs the zfs and zpool tools, and cat for the kernel's word on a zpool.
type Runner interface {
	tool.Runner
	tool.Streamer
}

// Config is what Open needs to know.
type Config struct {
	// Dataset is the parent of all replicas, such as "tank" or "tank/cairn". It may hold datasets of others: they are never
	// touched unless adopted.
	Dataset string
	// PoolID is written into the dataset when it becomes a pool, and must match ever after.
	PoolID cairn.PoolID
	// MustExist says that the pool has been used before: a dataset without a mark is then another disk and an error, not a
	// new pool.
	MustExist bool
	// Prefix begins the name of every replica's dataset.
	Prefix string
	// CreateOptions are properties that replicas are created with unless an extra spec says otherwise. Properties that this
	// package sets itself are refused.
	CreateOptions map[string]string
	// Thick reserves the whole size of a replica unless the extra spec zfs:thick says otherwise.
	Thick  bool
	Logger *slog.Logger // nil: slog.Default()
	Runner Runner       // nil: the tools of this machine
}

// Pool is an open dataset. It implements every optional interface of package drivers.
//
// Calls that change a replica exclude each other, for as long as their tools run. Those that only look do not wait for
// them: a replica can be looked at while it is received.
type Pool struct {
	dataset, zpool, prefix string
	poolID                 cairn.PoolID
	options                map[string]string
	thick                  bool
	log                    *slog.Logger
	runner                 Runner
	calls                  calls.Calls
	sends                  sends
	syncs                  syncs
}

var (
	_ drivers.Pool             = (*Pool)(nil)
	_ drivers.Resizer          = (*Pool)(nil)
	_ drivers.Snapshotter      = (*Pool)(nil)
	_ drivers.GroupSnapshotter = (*Pool)(nil)
	_ drivers.Reverter         = (*Pool)(nil)
	_ drivers.Cloner           = (*Pool)(nil)
	_ drivers.Adopter          = (*Pool)(nil)
	_ drivers.SnapshotAdopter  = (*Pool)(nil)
	_ drivers.UsageReporter    = (*Pool)(nil)
	_ drivers.Sealer           = (*Pool)(nil)
	_ drivers.Sender           = (*Pool)(nil)
	_ drivers.Receiver         = (*Pool)(nil)
)

// Open opens the pool in cfg.Dataset, and makes the dataset a pool first if it is not one yet. A dataset that belongs to
// another pool or node is cairn.ErrPrecondition; one that does not answer is cairn.ErrUnavailable.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	p := &Pool{
		dataset: cfg.Dataset, prefix: cfg.Prefix, poolID: cfg.PoolID,
		options: cfg.CreateOptions, thick: cfg.Thick,
		log: cfg.Logger, runner: cfg.Runner,
	}
	p.zpool, _, _ = strings.Cut(cfg.Dataset, "/")
	p.log = cmp.Or(p.log, slog.Default())
	if p.runner == nil {
		p.runner = tool.NewMachine()
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("zfs dataset %s: %w", cfg.Dataset, err)
	}
	_, err := calls.Do(ctx, &p.calls, "", func() (struct{}, error) {
		return struct{}{}, (&op{Pool: p, ctx: ctx}).open(cfg.MustExist)
	})
	if err != nil {
		return nil, fmt.Errorf("zfs dataset %s: %w", cfg.Dataset, classify(err))
	}
	return p, nil
}

// check refuses names that would mean something else to a tool.
func (cfg Config) check() error {
	for _, part := range strings.Split(cfg.Dataset, "/") {
		if err := cairn.CheckName("dataset", part); err != nil {
			return err
		}
	}
	if cfg.Prefix != "" {
		if err := cairn.CheckName("prefix", cfg.Prefix); err != nil {
			return err
		}
	}
	for key, value := range cfg.CreateOptions {
		if ownProperties[key] || !plainProperty(key) || strings.ContainsAny(value, "\n\x00") {
			return fmt.Errorf("create option %q: is set by this driver, or is no property: %w", key, cairn.ErrInvalid)
		}
	}
	return nil
}

// Close waits for calls that are still at work.
func (p *Pool) Close() error {
	p.calls.Wait()
	return nil
}

func (o *op) open(mustExist bool) error {
	if err := o.checkHealth(); err != nil {
		return err
	}
	value, err := o.poolMark()
	if errors.Is(err, errGone) && !mustExist && strings.Contains(o.dataset, "/") {
		if err := o.zfs("create", "-o", "cairn:pool="+string(o.poolID), o.dataset); err != nil {
			return err
		}
		value, err = o.poolMark()
	}
	switch {
	case err != nil:
		return err
	case value == "" && mustExist:
		return errNoPool
	case value == "":
		if err := o.zfs("set", "cairn:pool="+string(o.poolID), o.dataset); err != nil {
			return err
		}
	case value != string(o.poolID):
		return fmt.Errorf("belongs to pool %s, not to %s: %w", value, o.poolID, cairn.ErrPrecondition)
	}
	rows, err := o.list("-d", "2", "-t", "filesystem,volume,snapshot", o.dataset)
	if err != nil {
		return err
	}
	parent := rows[0]
	if err := o.checkParent(parent); err != nil {
		return err
	}
	if parent["type"] != "filesystem" || !path.IsAbs(parent["mountpoint"]) {
		return fmt.Errorf("is a %s with mountpoint %s; replicas need a file system with a mountpoint above them: %w",
			parent["type"], parent["mountpoint"], cairn.ErrPrecondition)
	}
	o.releaseStaleHolds(rows)
	o.tidyAll(rows[1:])
	return nil
}

// poolMark reads the mark of the dataset itself; "" if it has none. One that it inherits is that of a pool around it.
func (o *op) poolMark() (string, error) {
	out, err := o.query("zfs", "get", "-Hp", "-o", "value,source", "cairn:pool", o.dataset)
	if err != nil {
		return "", err
	}
	value, source, _ := strings.Cut(strings.TrimSpace(out), "\t")
	if source != "local" {
		return "", nil
	}
	return value, nil
}

// errNoPool: the dataset answers, and is not the one that it was.
var errNoPool = fmt.Errorf("carries no mark of a pool; is the right zpool imported?: %w", cairn.ErrUnavailable)

// checkHealth makes sure that the zpool answers. Without it even a lookup may say what was true before its disks went away.
func (o *op) checkHealth() error {
	_, err := o.health()
	return err
}

// health asks the kernel what zpool would ask it, without what it costs to start zpool, since this stands before every call. With
// failmode=continue a suspended zpool has the health of its disks; then zfs refuses to look at it.
func (o *op) health() (string, error) {
	out, err := o.query("cat", "/proc/spl/kstat/zfs/"+o.zpool+"/state")
	if err != nil {
		return "", err
	}
	health := strings.TrimSpace(out)
	if health != "ONLINE" && health != "DEGRADED" {
		return "", fmt.Errorf("zpool %s is %s: %w", o.zpool, health, cairn.ErrUnavailable)
	}
	return health, nil
}

// parent reads the dataset of the pool, which must carry our mark.
func (o *op) parent() (row, error) {
	rows, err := o.list("-d", "0", "-t", "filesystem,volume", o.dataset)
	if err != nil {
		return nil, err
	}
	return rows[0], o.checkParent(rows[0])
}

func (p *Pool) checkParent(parent row) error {
	switch parent["cairn:pool"] {
	case string(p.poolID):
		return nil
	case "":
		return errNoPool
	}
	return fmt.Errorf("dataset %s belongs to pool %s, not to %s: %w", p.dataset, parent["cairn:pool"], p.poolID, cairn.ErrPrecondition)
}

// Info reports what the dataset holds and may still hold, to the byte.
func (p *Pool) Info(ctx context.Context) (drivers.Info, error) {
	return look(ctx, p, "", "info", func(o *op) (drivers.Info, error) {
		health, err := o.health()
		if err != nil {
			return drivers.Info{}, err
		}
		parent, err := o.parent()
		if err != nil {
			return drivers.Info{}, err
		}
		used, free := parent.number("used"), parent.number("available")
		info := drivers.Info{Total: used + free, Free: free, Enforcement: drivers.EnforcedByFileSystem, AtomicSnapshots: true}
		if health == "DEGRADED" {
			info.Notes = append(info.Notes, fmt.Sprintf("zpool %s is DEGRADED: it has lost redundancy; see zpool status", p.zpool))
		}
		return info, nil
	})
}
