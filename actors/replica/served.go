package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// served is what one exporter serves, by replica. It is the exporter's own list, read at the first look and again when it
// is older than every, and kept up to date with what the actor tells the exporter in between. Reading the whole list for
// each look at one replica would cost the square of their number.
type served struct {
	exporter drivers.Exporter
	now      func() time.Time
	every    time.Duration

	mu      sync.Mutex
	read    time.Time // when the list was last read
	loaded  bool      // it has been read
	doubted bool      // a call has failed, so nobody knows what is served
	reading bool
	changed map[cairn.ReplicaID]bool // while reading: these are newer than the list
	table   map[cairn.ReplicaID][]drivers.ExportSpec
}

// of returns what is served of the replica. The caller must not change it.
func (s *served) of(ctx context.Context, id cairn.ReplicaID) ([]drivers.ExportSpec, error) {
	s.mu.Lock()
	list, loaded := s.table[id], s.loaded
	due := !s.reading && (!loaded || s.doubted || s.now().Sub(s.read) >= s.every)
	if due {
		s.reading, s.doubted, s.changed = true, false, make(map[cairn.ReplicaID]bool)
	}
	s.mu.Unlock()
	switch {
	case due:
		return s.reread(ctx, id)
	case !loaded: // another look reads it for the first time
		return s.list(ctx, id)
	}
	return list, nil
}

// list asks the exporter for one replica and remembers nothing.
func (s *served) list(ctx context.Context, id cairn.ReplicaID) ([]drivers.ExportSpec, error) {
	all, err := s.exporter.Exports(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(spec drivers.ExportSpec) bool { return spec.ID.Replica != id }), nil
}

func (s *served) reread(ctx context.Context, id cairn.ReplicaID) ([]drivers.ExportSpec, error) {
	read := false
	defer func() { // also when the exporter panics
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reading = false
		s.doubted = s.doubted || !read
	}()
	all, err := s.exporter.Exports(ctx)
	if err != nil {
		return nil, err
	}
	read = true
	return s.replace(all, id), nil
}

// replace takes over the list, except for replicas that have changed since the exporter was asked.
func (s *served) replace(all []drivers.ExportSpec, id cairn.ReplicaID) []drivers.ExportSpec {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := make(map[cairn.ReplicaID][]drivers.ExportSpec)
	for _, spec := range all {
		if !s.changed[spec.ID.Replica] {
			table[spec.ID.Replica] = append(table[spec.ID.Replica], spec)
		}
	}
	for changed := range s.changed {
		if list := s.table[changed]; len(list) > 0 {
			table[changed] = list
		}
	}
	s.table, s.loaded, s.read = table, true, s.now()
	return table[id]
}

// writable lists the replicas that are served to writers. What is served before the first look is not missed: the list is
// read then.
func (s *served) writable(ctx context.Context) []drivers.ExportSpec {
	if _, err := s.of(ctx, ""); err != nil {
		return nil // the next look asks again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []drivers.ExportSpec
	for _, list := range s.table {
		for _, spec := range list {
			if spec.ID.Snapshot == "" && !spec.ReadOnly {
				all = append(all, spec)
			}
		}
	}
	return all
}

// export tells the exporter and remembers it.
func (s *served) export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	locations, err := s.exporter.Export(ctx, spec)
	if err != nil {
		s.doubt()
		return nil, err
	}
	s.set(spec.ID, &spec)
	return locations, nil
}

// unexport tells the exporter and remembers it.
func (s *served) unexport(ctx context.Context, id drivers.ExportID) error {
	if err := s.exporter.Unexport(ctx, id); err != nil {
		s.doubt()
		return err
	}
	s.set(id, nil)
	return nil
}

func (s *served) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubted = true
}

func (s *served) set(id drivers.ExportID, spec *drivers.ExportSpec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading {
		s.changed[id.Replica] = true
	}
	if s.table == nil {
		s.table = make(map[cairn.ReplicaID][]drivers.ExportSpec)
	}
	list := slices.DeleteFunc(slices.Clone(s.table[id.Replica]), func(old drivers.ExportSpec) bool { return old.ID == id })
	if spec != nil {
		list = append(list, *spec)
	}
	if len(list) == 0 {
		delete(s.table, id.Replica)
		return
	}
	s.table[id.Replica] = list
}
