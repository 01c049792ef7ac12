package consensus

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/fsm"
)

// machine is Raft's view of the state machine. It outlives a Raft instance: one that starts anew replays entries that the
// machine has, and those are skipped. It refuses a snapshot of an earlier state. So nobody sees the state go back in time.
type machine struct {
	*fsm.Machine

	moved signal

	mu      sync.Mutex
	applied uint64 // newest entry that the machine has seen or that certainly holds nothing for it
	command uint64 // newest entry that was a command, or several
	grown   uint64 // commands since the last snapshot was begun
}

// Apply implements raft.FSM.
func (m *machine) Apply(log *raft.Log) any { return m.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch implements raft.BatchingFSM: waiting readers are woken once per batch. Raft's own applied index is no use to
// them: it rises when entries are handed over, not when they have been applied.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	applied, command := m.position()
	grown := uint64(0)
	for i, log := range logs {
		if log.Index <= applied {
			continue
		}
		if log.Type == raft.LogCommand {
			result := m.Machine.Apply(log.Index, log.Data)
			results[i], command = result, log.Index
			grown += max(1, uint64(len(result.Bundle)))
		}
		applied = log.Index
	}
	m.mu.Lock()
	m.grown += grown
	m.mu.Unlock()
	m.advance(applied, command)
	return results
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	m.grown = 0
	m.mu.Unlock()
	return snapshot{m.Machine.Snapshot()}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(source io.ReadCloser) error {
	defer source.Close()
	// failpoint: restoring
	if err := m.Machine.Restore(bufio.NewReaderSize(source, 1<<20)); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	index := m.View().Index()
	m.advance(index, index)
	// failpoint: restored
	return nil
}

func (m *machine) position() (applied, command uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied, m.command
}

// sinceSnapshot is how many commands a restart would replay.
func (m *machine) sinceSnapshot() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grown
}

// advance notes that everything up to applied has been applied; command is the newest command among it, or 0.
func (m *machine) advance(applied, command uint64) {
	m.mu.Lock()
	m.applied, m.command = max(m.applied, applied), max(m.command, command)
	m.mu.Unlock()
	m.moved.fire()
}

// wait blocks until the entry of index has been applied.
func (m *machine) wait(ctx context.Context, index uint64) error {
	for {
		moved := m.moved.wait()
		if applied, _ := m.position(); applied >= index {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type snapshot struct{ frozen *fsm.Snapshot }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	// failpoint: snapshot-begun
	if _, err := s.frozen.WriteTo(sink); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	// failpoint: snapshot-written
	return nil
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
