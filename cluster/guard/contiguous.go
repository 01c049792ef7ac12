package guard

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// Contiguous is a log without gaps: before something is stored that does not follow its end, everything before that is deleted. Raft stores
// such an entry after a snapshot that covers everything before it, and keeps the newest entries of before the snapshot. A later leader finds
// one of those to be its own and sends what follows, which is missing in the gap, and Raft refuses it for ever.
//
// It has to be around a cache, which would else have what is deleted here.
type Contiguous struct{ raft.LogStore }

// StoreLog implements raft.LogStore.
func (c *Contiguous) StoreLog(log *raft.Log) error { return c.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (c *Contiguous) StoreLogs(logs []*raft.Log) error {
	last, err := c.LastIndex()
	if err == nil && last > 0 && logs[0].Index > last+1 {
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
