package guard

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Disk knows whether a write to the local log is in flight, and since when.
type Disk struct {
	epoch   time.Time
	started atomic.Int64 // since epoch; 0 = no write in flight
}

// NewDisk returns a Disk for one log store.
func NewDisk() *Disk { return &Disk{epoch: time.Now()} }

// Waiting is for how long the write in flight has not come back; 0 if there is none.
func (d *Disk) Waiting() time.Duration {
	started := d.started.Load()
	if started == 0 {
		return 0
	}
	return time.Since(d.epoch) - time.Duration(started)
}

// Watch returns the store with its writes watched. Raft writes its log from one goroutine, one write at a time.
func (d *Disk) Watch(store raft.LogStore) raft.LogStore { return &watchedLog{store, d} }

type watchedLog struct {
	raft.LogStore
	disk *Disk
}

// StoreLog implements raft.LogStore.
func (w *watchedLog) StoreLog(log *raft.Log) error { return w.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (w *watchedLog) StoreLogs(logs []*raft.Log) error {
	w.disk.started.Store(max(1, int64(time.Since(w.disk.epoch))))
	defer w.disk.started.Store(0)
	// failpoint: log-writing
	err := w.LogStore.StoreLogs(logs)
	// failpoint: log-written
	return err
}
