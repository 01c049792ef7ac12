package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/btrfs"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/fence"
	"github.com/cairn-storage/cairn/drivers/ganesha"
	"github.com/cairn-storage/cairn/drivers/zfs"
)

// OpenPool opens a pool with one driver. A pool that was used before must be there: without its mark it is a disk that is not
// mounted, and not a new pool. What it returns may be an io.Closer, which is then closed at the end.
type OpenPool func(ctx context.Context, id cairn.PoolID, config PoolConfig, used bool, logger *slog.Logger) (drivers.Pool, error)

// Drivers are the pool drivers of this version, by the name that configurations use.
func Drivers() map[string]OpenPool {
	return map[string]OpenPool{driverDir: openDir, driverBtrfs: openBtrfs, driverZFS: openZFS}
}

// Names of drivers.
const (
	driverDir   = "dir"
	driverBtrfs = "btrfs"
	driverZFS   = "zfs"
)

func openZFS(ctx context.Context, id cairn.PoolID, config PoolConfig, used bool, logger *slog.Logger) (drivers.Pool, error) {
	return zfs.Open(ctx, zfs.Config{
		Dataset: config.ZFS.Dataset, PoolID: id, MustExist: used, Prefix: config.ZFS.Prefix,
		CreateOptions: config.ZFS.Create, Thick: config.ZFS.Thick, Logger: logger,
	})
}

func openBtrfs(ctx context.Context, id cairn.PoolID, config PoolConfig, used bool, logger *slog.Logger) (drivers.Pool, error) {
	limit, err := config.maxBytes()
	if err != nil {
		return nil, err
	}
	return btrfs.Open(ctx, btrfs.Config{Path: config.Path, PoolID: id, MustExist: used, MaxBytes: limit, Logger: logger})
}

func openDir(ctx context.Context, id cairn.PoolID, config PoolConfig, used bool, logger *slog.Logger) (drivers.Pool, error) {
	limit, err := config.maxBytes()
	if err != nil {
		return nil, err
	}
	return dir.Open(ctx, dir.Config{Path: config.Path, PoolID: id, MustExist: used, MaxBytes: limit, Logger: logger})
}

// pool is a configured pool with the driver that serves it.
type pool struct {
	config PoolConfig
	id     cairn.PoolID
	driver drivers.Pool
}

// openPools opens every configured pool. One that cannot be opened stops the server: an operator who starts it is there to
// read why, and shares that silently miss would be worse. The pools that were opened are returned with an error, too.
func openPools(ctx context.Context, node cairn.NodeID, config Config, known map[string]OpenPool, logger *slog.Logger) ([]pool, error) {
	var pools []pool
	for _, one := range config.Pools {
		driver, err := openConfigured(ctx, node, config.DataDir, one, known, logger.With("pool", one.Name))
		if err != nil {
			return pools, fmt.Errorf("pool %q: %w", one.Name, err)
		}
		pools = append(pools, pool{config: one, id: cairn.MakePoolID(node, one.Name), driver: driver})
	}
	return pools, nil
}

func openConfigured(ctx context.Context, node cairn.NodeID, dataDir string, config PoolConfig, known map[string]OpenPool, logger *slog.Logger) (drivers.Pool, error) {
	open, ok := known[config.Driver]
	if !ok {
		return nil, fmt.Errorf("driver %q: %w", config.Driver, cairn.ErrNotSupported)
	}
	used, err := poolUsed(dataDir, config.Name)
	if err != nil {
		return nil, err
	}
	driver, err := open(ctx, cairn.MakePoolID(node, config.Name), config, used, logger)
	if err != nil {
		return nil, err
	}
	// failpoint: pool-opened
	err = rememberPool(dataDir, config.Name)
	// failpoint: pool-remembered
	return driver, err
}

// poolUsed reports whether this node has opened a pool of that name before.
func poolUsed(dataDir, name string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dataDir, "pools", name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// rememberPool records that the pool has its mark. Should power fail before, the next start takes it for a new pool, and an
// unmounted disk for an empty one: its shares are then missing, which is a fault and makes nothing new in their place.
func rememberPool(dataDir, name string) error {
	dir := filepath.Join(dataDir, "pools")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	return nil
}

// closePools lets other processes open the pools.
func closePools(pools []pool) error {
	var failed []error
	for _, p := range pools {
		if closer, ok := p.driver.(io.Closer); ok {
			failed = append(failed, closer.Close())
		}
	}
	return errors.Join(failed...)
}

func driversOf(pools []pool) map[cairn.PoolID]drivers.Pool {
	all := make(map[cairn.PoolID]drivers.Pool, len(pools))
	for _, p := range pools {
		all[p.id] = p.driver
	}
	return all
}

// protocols are what the pool's replicas can be served by. WebDAV needs a directory beside the data to prepare uploads in, and
// a dataset has nothing beside it. The kernel's NFS server needs a file system for each replica; Ganesha a pool that holds
// replicas to their sizes, unless it is told that nobody has to, and that it sees. unseen is why it does not see btrfs.
func (p pool) protocols(exporters map[cairn.Protocol]drivers.Exporter, nfs *NFSConfig, info drivers.Info, unseen error) []cairn.Protocol {
	var all []cairn.Protocol
	for protocol := range exporters {
		serves := p.config.Driver != driverZFS
		if protocol == cairn.ProtocolNFS {
			sized := info.Enforcement == drivers.EnforcedByFileSystem || nfs.IgnoreSize
			serves = p.config.Driver == driverZFS || nfs.Server == nfsGanesha && sized && unseen == nil
		}
		if serves {
			all = append(all, protocol)
		}
	}
	slices.Sort(all)
	return all
}

// unseen is why Ganesha would refuse the pool's replicas, nil if it does not.
func (p pool) unseen(nfs *NFSConfig) error {
	if nfs == nil || nfs.Server != nfsGanesha || nfs.Subvolumes || p.config.Driver != driverBtrfs {
		return nil
	}
	return ganesha.CheckSubvolumes(ganesha.DefaultConfig().Binary)
}

// row is the pool as the cluster is told of it.
func (p pool) row(ctx context.Context, exporters map[cairn.Protocol]drivers.Exporter, nfs *NFSConfig, gate *fence.Keeper) (cairn.Pool, error) {
	info, err := p.driver.Info(ctx)
	if err != nil {
		return cairn.Pool{}, fmt.Errorf("pool %q: %w", p.config.Name, err)
	}
	node, name := p.id.Split()
	unseen := p.unseen(nfs)
	if unseen != nil {
		info.Notes = append(info.Notes, fmt.Sprintf("serves nothing over NFS: %v", unseen))
	}
	protocols, capabilities := p.protocols(exporters, nfs, info, unseen), drivers.CapabilitiesOf(p.driver)
	if info.AtomicSnapshots {
		capabilities = append(capabilities, cairn.CapLiveSnapshot)
		slices.Sort(capabilities)
	}
	if slices.Contains(protocols, cairn.ProtocolNFS) {
		if unfit := gate.Unfit(); unfit != nil {
			info.Notes = append(info.Notes, fmt.Sprintf("shares over NFS cannot fail over by themselves: %v", unfit))
		} else {
			capabilities = append(capabilities, cairn.CapFence)
			slices.Sort(capabilities)
		}
	}
	return cairn.Pool{
		ID: p.id, Node: node, Name: name, Driver: p.config.Driver,
		Capabilities:            capabilities,
		Protocols:               protocols,
		Total:                   info.Total,
		ReservedPercent:         p.config.ReservedPercent,
		OverSubscriptionPercent: p.config.OverSubscriptionPercent,
		Notes:                   info.Notes,
	}, nil
}

// freeInterval is how often free space is measured, by a cluster of the usual patience: telemetry for placement, sent along
// with heartbeats.
const freeInterval = 2 * time.Second

// freeSpace knows how much is free in the node's pools. A pool that does not answer is left out, which placement reads as
// "not known".
type freeSpace struct {
	pools []pool
	every time.Duration

	mu   sync.Mutex
	free map[cairn.PoolID]int64
}

func newFreeSpace(pools []pool, patience int) *freeSpace {
	return &freeSpace{pools: pools, every: freeInterval * time.Duration(max(1, patience)), free: map[cairn.PoolID]int64{}}
}

// bytes returns the newest measurement. It does not block.
func (f *freeSpace) bytes() map[cairn.PoolID]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.free)
}

func (f *freeSpace) measure(ctx context.Context) {
	for _, p := range f.pools {
		ctx, cancel := context.WithTimeout(ctx, f.every)
		info, err := p.driver.Info(ctx)
		cancel()
		f.mu.Lock()
		if err != nil {
			delete(f.free, p.id)
		} else {
			f.free[p.id] = info.Free
		}
		f.mu.Unlock()
	}
}

// run measures until the context ends.
func (f *freeSpace) run(ctx context.Context) {
	ticker := time.NewTicker(f.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.measure(ctx)
		}
	}
}
