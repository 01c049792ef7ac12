package guard

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// Suffix is a log whose end is replaced as a whole. A follower first takes back entries of which the leader has others, and then writes
// those. If that fails, Raft still believes in the entries that it took back, and refuses what the leader sends from then on.
type Suffix struct {
	raft.LogStore
	Persistence
	gone atomic.Bool // the end was taken back, and nothing has come in its place
}

// DeleteRange implements raft.LogStore. What a snapshot has made needless is deleted from the other end, by another goroutine.
func (s *Suffix) DeleteRange(from, to uint64) error {
	last, err := s.LastIndex()
	if err == nil {
		err = s.LogStore.DeleteRange(from, to)
	}
	if err == nil && to >= last {
		s.gone.Store(true)
	}
	return err
}

// StoreLog implements raft.LogStore.
func (s *Suffix) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *Suffix) StoreLogs(logs []*raft.Log) error {
	write := func() error { return s.LogStore.StoreLogs(logs) }
	if !s.gone.Load() {
		return write()
	}
	err := s.insist("what replaces the end of its log", write)
	if err == nil {
		s.gone.Store(false)
	}
	return err
}
