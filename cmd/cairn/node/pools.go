package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
)

// OpenPool opens a pool with one driver.
type OpenPool func(ctx context.Context, id cairn.PoolID, config PoolConfig, logger *slog.Logger) (drivers.Pool, error)

// Drivers are the pool drivers of this version, by the name that configurations use.
func Drivers() map[string]OpenPool {
	return map[string]OpenPool{"dir": openDir}
}

func openDir(ctx context.Context, id cairn.PoolID, config PoolConfig, logger *slog.Logger) (drivers.Pool, error) {
	limit, err := config.maxBytes()
	if err != nil {
		return nil, err
	}
	return dir.Open(ctx, dir.Config{Path: config.Path, PoolID: id, MaxBytes: limit, Logger: logger})
}

// pool is a configured pool with the driver that serves it.
type pool struct {
	config PoolConfig
	id     cairn.PoolID
	driver drivers.Pool
}

// openPools opens every configured pool. One that cannot be opened stops the server: an operator who starts it is there to
// read why, and shares that silently miss would be worse.
func openPools(ctx context.Context, node cairn.NodeID, configs []PoolConfig, known map[string]OpenPool, logger *slog.Logger) ([]pool, error) {
	var pools []pool
	for _, config := range configs {
		open, ok := known[config.Driver]
		if !ok {
			return nil, fmt.Errorf("pool %q: driver %q: %w", config.Name, config.Driver, cairn.ErrNotSupported)
		}
		id := cairn.MakePoolID(node, config.Name)
		driver, err := open(ctx, id, config, logger.With("pool", config.Name))
		if err != nil {
			return nil, fmt.Errorf("pool %q: %w", config.Name, err)
		}
		pools = append(pools, pool{config: config, id: id, driver: driver})
	}
	return pools, nil
}

func driversOf(pools []pool) map[cairn.PoolID]drivers.Pool {
	all := make(map[cairn.PoolID]drivers.Pool, len(pools))
	for _, p := range pools {
		all[p.id] = p.driver
	}
	return all
}

// row is the pool as the cluster is told of it.
func (p pool) row(ctx context.Context) (cairn.Pool, error) {
	info, err := p.driver.Info(ctx)
	if err != nil {
		return cairn.Pool{}, fmt.Errorf("pool %q: %w", p.config.Name, err)
	}
	node, name := p.id.Split()
	return cairn.Pool{
		ID: p.id, Node: node, Name: name, Driver: p.config.Driver,
		Capabilities:            drivers.CapabilitiesOf(p.driver),
		Protocols:               []cairn.Protocol{cairn.ProtocolWebDAV},
		Total:                   info.Total,
		ReservedPercent:         p.config.ReservedPercent,
		OverSubscriptionPercent: p.config.OverSubscriptionPercent,
	}, nil
}

// freeInterval is how often free space is measured: telemetry for placement, sent along with heartbeats.
const freeInterval = 2 * time.Second

// freeSpace knows how much is free in the node's pools. A pool that does not answer is left out, which placement reads as
// "not known".
type freeSpace struct {
	pools []pool

	mu   sync.Mutex
	free map[cairn.PoolID]int64
}

func newFreeSpace(pools []pool) *freeSpace {
	return &freeSpace{pools: pools, free: map[cairn.PoolID]int64{}}
}

// bytes returns the newest measurement. It does not block.
func (f *freeSpace) bytes() map[cairn.PoolID]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.free)
}

func (f *freeSpace) measure(ctx context.Context) {
	for _, p := range f.pools {
		ctx, cancel := context.WithTimeout(ctx, freeInterval)
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
	ticker := time.NewTicker(freeInterval)
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
