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

// Installs counts how often a snapshot of the same index is made in a row. A node never takes its own snapshot twice at
// one index, so repetitions come from a leader.
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

// Loops receives a snapshot that is being installed for the third time, and at every third time after that.
func (s *Installs) Loops() <-chan Loop { return s.loops }

// Create implements raft.SnapshotStore.
func (s *Installs) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	s.note(Loop{index, term})
	return s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
}

func (s *Installs) note(snapshot Loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if snapshot != s.last {
		s.last, s.count = snapshot, 0
	}
	if s.count++; s.count < installLimit {
		return
	}
	s.count = 0
	select {
	case s.loops <- snapshot:
	default: // one report is enough
	}
}

// Conflicts reports whether the log contradicts a snapshot: it holds an entry of the snapshot's index and of another term.
// Then every entry of the log is either covered by the snapshot or follows one that was never committed, so the whole log
// can and must go; Raft's InstallSnapshot should have done it.
func (l Loop) Conflicts(log raft.LogStore) (bool, error) {
	var entry raft.Log
	switch err := log.GetLog(l.Index, &entry); err {
	case nil:
		return entry.Term != l.Term, nil
	case raft.ErrLogNotFound:
		return false, nil
	default:
		return false, err
	}
}
