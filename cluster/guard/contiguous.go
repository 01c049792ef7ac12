package guard

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// Contiguous is a log that goes on from a snapshot. Raft does not see to that when it has installed one:
//
//   - It keeps the newest entries of a log that ended before the snapshot, and stores what follows behind a gap. A later leader finds one of
//     those to be its own and sends what comes next, which is missing in the gap, and Raft refuses it for ever. So before something is stored
//     that does not follow the end of the log, everything there is deleted.
//   - It has no entry at the snapshot's index, and does not look at the snapshot when a leader sends what follows once more, whose answer
//     was lost, or what another leader has there. It refuses, and is sent the snapshot again and again (raft #697). So the log knows the term of
//     the entry before its first.
//
// No more than the term is known of that entry, and no leader sends it: it looks for the one before it first, and there is none. It has to be
// around a cache, which would else have what is deleted here.
type Contiguous struct {
	raft.LogStore
	Snapshots *Installs
}

// GetLog implements raft.LogStore.
func (c *Contiguous) GetLog(index uint64, log *raft.Log) error {
	err := c.LogStore.GetLog(index, log)
	if err != raft.ErrLogNotFound { // as Raft compares it
		return err
	}
	first, failed := c.FirstIndex()
	if failed != nil {
		return fmt.Errorf("begin of the log: %w", failed)
	}
	// Nothing comes before the first entry of all, so that one would be sent.
	if newest := c.Snapshots.Newest(); index > 1 && index == newest.Index && index+1 == first {
		*log, err = raft.Log{Index: newest.Index, Term: newest.Term, Type: raft.LogNoop}, nil
	}
	return err
}

// StoreLog implements raft.LogStore.
func (c *Contiguous) StoreLog(log *raft.Log) error { return c.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. A gap that no snapshot covers is refused.
func (c *Contiguous) StoreLogs(logs []*raft.Log) error {
	last, err := c.LastIndex()
	if err == nil && last > 0 && logs[0].Index > last+1 {
		if covered := c.Snapshots.Newest().Index; logs[0].Index > covered+1 {
			return fmt.Errorf("log: entry %d after entry %d, and the newest snapshot is of entry %d", logs[0].Index, last, covered)
		}
		err = c.clear(last)
	}
	if err != nil {
		return fmt.Errorf("log before a snapshot: %w", err)
	}
	return c.LogStore.StoreLogs(logs)
}

func (c *Contiguous) clear(last uint64) error {
	first, err := c.FirstIndex()
	if err != nil {
		return err
	}
	return c.DeleteRange(first, last)
}
