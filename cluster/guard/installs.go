package guard

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// installLimit is how often a leader may send the same snapshot before a fault is suspected. Twice can happen when an
// answer is lost.
const installLimit = 3

// Point is the entry that a snapshot goes to.
type Point struct{ Index, Term uint64 }

// Installs counts how often a snapshot of the same index is stored in a row, with no entry stored in between. A node never takes its own
// snapshot twice at one index, so repetitions come from a leader, and whoever stores entries is not in a loop.
type Installs struct {
	raft.SnapshotStore
	loops chan Point

	mu     sync.Mutex
	last   Point
	count  int
	newest Point
}

// NewInstalls watches a snapshot store.
func NewInstalls(store raft.SnapshotStore) (*Installs, error) {
	s := &Installs{SnapshotStore: store, loops: make(chan Point, 1)}
	snapshots, err := store.List() // the newest comes first
	if err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	if len(snapshots) > 0 {
		s.newest = Point{snapshots[0].Index, snapshots[0].Term}
	}
	return s, nil
}

// Newest is the newest snapshot that is whole; zero if there is none.
func (s *Installs) Newest() Point {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// Loops receives a snapshot that has been installed for the third time, and at every third time after that.
func (s *Installs) Loops() <-chan Point { return s.loops }

// Watch returns the log with its writes watched.
func (s *Installs) Watch(log raft.LogStore) raft.LogStore { return &progress{log, s} }

type progress struct {
	raft.LogStore
	installs *Installs
}

// StoreLog implements raft.LogStore.
func (p *progress) StoreLog(log *raft.Log) error { return p.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (p *progress) StoreLogs(logs []*raft.Log) error {
	p.installs.mu.Lock()
	p.installs.last, p.installs.count = Point{}, 0
	p.installs.mu.Unlock()
	return p.LogStore.StoreLogs(logs)
}

// Create implements raft.SnapshotStore.
func (s *Installs) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, err
	}
	return &install{sink, s, Point{index, term}}, nil
}

// install counts when it is whole.
type install struct {
	raft.SnapshotSink
	installs *Installs
	snapshot Point
}

// Close implements raft.SnapshotSink.
func (i *install) Close() error {
	if err := i.SnapshotSink.Close(); err != nil {
		return err
	}
	i.installs.note(i.snapshot)
	return nil
}

func (s *Installs) note(snapshot Point) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if snapshot.Index > s.newest.Index {
		s.newest = snapshot
	}
	if snapshot != s.last {
		s.last, s.count = snapshot, 0
	}
	if s.count++; s.count%installLimit != 0 {
		return
	}
	select {
	case s.loops <- snapshot:
	default: // one report is enough
	}
}

// Contradicts reports whether the log contradicts a snapshot that came again and again: it holds an entry of the snapshot's index and of
// another term. So every entry of the log is either covered by the snapshot or was never committed, and the whole log can and must go; Raft's
// InstallSnapshot should have done it.
func (s *Installs) Contradicts(snapshot Point, log raft.LogStore) (bool, error) {
	var entry raft.Log
	switch err := log.GetLog(snapshot.Index, &entry); err {
	case nil:
		return entry.Term != snapshot.Term, nil
	case raft.ErrLogNotFound:
		return false, nil
	default:
		return false, err
	}
}
