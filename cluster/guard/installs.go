package guard

import (
	"sync"

	"github.com/hashicorp/raft"
)

// installLimit is how often a leader may send the same snapshot before a fault is suspected. Twice can happen when an
// answer is lost.
const installLimit = 3

// Loop is a snapshot that was received again and again.
type Loop struct{ Index, Term uint64 }

// Installs counts how often a snapshot of the same index is stored in a row, with no entry stored in between. A node never takes its own
// snapshot twice at one index, so repetitions come from a leader, and whoever stores entries is not in a loop.
type Installs struct {
	raft.SnapshotStore
	loops chan Loop

	mu    sync.Mutex
	last  Loop
	count int
}

// NewInstalls watches a snapshot store.
func NewInstalls(store raft.SnapshotStore) *Installs {
	return &Installs{SnapshotStore: store, loops: make(chan Loop, 1)}
}

// Loops receives a snapshot that has been installed for the third time, and at every third time after that.
func (s *Installs) Loops() <-chan Loop { return s.loops }

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
	p.installs.last, p.installs.count = Loop{}, 0
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
	return &install{sink, s, Loop{index, term}}, nil
}

// install counts when it is whole.
type install struct {
	raft.SnapshotSink
	installs *Installs
	snapshot Loop
}

// Close implements raft.SnapshotSink.
func (i *install) Close() error {
	if err := i.SnapshotSink.Close(); err != nil {
		return err
	}
	i.installs.note(i.snapshot)
	return nil
}

func (s *Installs) note(snapshot Loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
// another term; or that entry is gone, later ones are there, and nothing was stored since before the first of the installs. Those are of
// another term, too: a leader sends a snapshot when it has found no entry of its own at or after the end of it. So every entry of the
// log is either covered by the snapshot or was never committed, and the whole log can and must go; Raft's InstallSnapshot should have
// done it. Entries that came after an install prove nothing of the kind, and may count.
func (s *Installs) Contradicts(snapshot Loop, log raft.LogStore) (bool, error) {
	var entry raft.Log
	switch err := log.GetLog(snapshot.Index, &entry); err {
	case nil:
		return entry.Term != snapshot.Term, nil
	case raft.ErrLogNotFound:
		last, err := log.LastIndex()
		s.mu.Lock()
		defer s.mu.Unlock()
		return err == nil && last > snapshot.Index && s.last == snapshot && s.count >= installLimit, err
	default:
		return false, err
	}
}
