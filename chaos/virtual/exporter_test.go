package virtual

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// exporter serves files as package webdav does: the guard is asked when a request comes, and again before it takes effect.
type exporter struct {
	process *process

	mu    sync.Mutex
	specs map[drivers.ExportID]drivers.ExportSpec
}

func (e *exporter) Export(_ context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.specs[spec.ID] = spec
	return []cairn.ExportLocation{{URL: fmt.Sprintf("https://%s/%s/%s", e.process.name, spec.Share, spec.ID.Snapshot)}}, nil
}

func (e *exporter) Unexport(_ context.Context, id drivers.ExportID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.specs, id)
	return nil
}

func (e *exporter) Exports(context.Context) ([]drivers.ExportSpec, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.SortedFunc(maps.Values(e.specs), func(a, b drivers.ExportSpec) int {
		return cmp.Or(cmp.Compare(a.ID.Replica, b.ID.Replica), cmp.Compare(a.ID.Snapshot, b.ID.Snapshot))
	}), nil
}

func (e *exporter) Fence(context.Context, cairn.ReplicaID, uint64) error { return nil }

// writable finds what clients may write of a share here and now.
func (e *exporter) writable(share cairn.ShareID) (drivers.ExportSpec, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.find(share)
}

func (e *exporter) find(share cairn.ShareID) (drivers.ExportSpec, bool) {
	for _, spec := range e.specs {
		if spec.Share == share && spec.ID.Snapshot == "" && !spec.ReadOnly && e.process.guard.Check(spec.ID.Replica, spec.Epoch) == nil {
			return spec, true
		}
	}
	return drivers.ExportSpec{}, false
}

// write appends a line to the one file of a share. acknowledged is called, before anything else is written here, if the line is
// on the disk.
func (e *exporter) write(share cairn.ShareID, line string, acknowledged func(drivers.ExportSpec)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	spec, ok := e.find(share)
	if !ok || e.process.dead.Load() {
		return fmt.Errorf("share %s: %w", share, cairn.ErrUnavailable)
	}
	shelf := e.process.shelf
	shelf.mu.Lock()
	defer shelf.mu.Unlock()
	o := shelf.objects[spec.ID.Replica]
	if o == nil || o.Sealed {
		return fmt.Errorf("share %s: %w", share, errFault)
	}
	o.lines += line + "\n"
	acknowledged(spec)
	return nil
}
