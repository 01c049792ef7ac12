package bench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// noop is a pool that does nothing but remember. All replicas have the same two empty directories, so that the exporter has
// something to serve.
type noop struct {
	root, staging string

	mu      sync.Mutex
	objects map[cairn.ReplicaID]drivers.Object
}

var _ drivers.Pool = (*noop)(nil)

func newNoop(dir string) (*noop, error) {
	p := &noop{root: filepath.Join(dir, "root"), staging: filepath.Join(dir, "staging"), objects: map[cairn.ReplicaID]drivers.Object{}}
	for _, dir := range []string{p.root, p.staging} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Info implements drivers.Pool.
func (p *noop) Info(context.Context) (drivers.Info, error) {
	return drivers.Info{Total: cairn.MaxSize, Free: cairn.MaxSize, Enforcement: drivers.EnforcedByFileSystem, AtomicSnapshots: true}, nil
}

// Stat implements drivers.Pool.
func (p *noop) Stat(_ context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	object, ok := p.objects[id]
	if !ok {
		return drivers.Object{}, fmt.Errorf("replica %s: %w", id, cairn.ErrNotFound)
	}
	return object, nil
}

// List implements drivers.Pool.
func (p *noop) List(context.Context) ([]drivers.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]drivers.Object, 0, len(p.objects))
	for _, id := range slices.Sorted(maps.Keys(p.objects)) {
		all = append(all, p.objects[id])
	}
	return all, nil
}

// Create implements drivers.Pool.
func (p *noop) Create(_ context.Context, spec drivers.CreateSpec) (drivers.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	object := drivers.Object{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, Ready: true, Root: p.root, Staging: p.staging}
	p.objects[spec.ID] = object
	return object, nil
}

// Delete implements drivers.Pool.
func (p *noop) Delete(_ context.Context, id cairn.ReplicaID, _ uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.objects, id)
	return nil
}
