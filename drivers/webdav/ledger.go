package webdav

import (
	"fmt"
	"sync"

	"github.com/cairn-storage/cairn"
)

// ledger holds a replica to its size. Used is the sum of the sizes of its regular files in bytes, each name counted:
// directories, symbolic links and the rounding of the file system to blocks cost nothing. That is what the pool's Usage says,
// too. A write reserves before it stores, so any number of uploads together stay below the size.
//
// The nil ledger limits nothing.
type ledger struct {
	mu       sync.Mutex
	size     int64
	used     int64
	reserved int64
}

// resize changes the limit. It may be below what is used: then only writes that need no room go on.
func (l *ledger) resize(size int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size = size
}

// free books bytes that are gone.
func (l *ledger) free(bytes int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used -= bytes
}

// reservation is the room of one write in progress: bytes to come, less the credit of the file that they will replace.
type reservation struct {
	ledger *ledger
	credit int64
	bytes  int64
	held   int64
}

// reserve begins a reservation of nothing.
func (l *ledger) reserve(credit int64) *reservation {
	return &reservation{ledger: l, credit: credit}
}

// grow reserves n bytes more, or returns cairn.ErrNoSpace and leaves the reservation as it is.
func (r *reservation) grow(n int64) error { return r.set(r.bytes+n, r.credit) }

func (r *reservation) set(bytes, credit int64) error {
	l := r.ledger
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	held := max(0, bytes-credit)
	if more := held - r.held; more > 0 && more > l.size-l.used-l.reserved {
		return fmt.Errorf("share is full: %s used of %s and %s being written, this needs %s more; delete files or extend the share: %w",
			cairn.FormatSize(l.used), cairn.FormatSize(l.size), cairn.FormatSize(l.reserved), cairn.FormatSize(more), cairn.ErrNoSpace)
	}
	l.reserved += held - r.held
	r.bytes, r.credit, r.held = bytes, credit, held
	return nil
}

// book turns the reservation into used bytes: the write has replaced a file of credit bytes.
func (r *reservation) book() {
	if r.ledger == nil {
		return
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.ledger.used += r.bytes - r.credit
	r.ledger.reserved -= r.held
	r.bytes, r.credit, r.held = 0, 0, 0
}

// drop gives up what is not booked.
func (r *reservation) drop() {
	if r.ledger == nil {
		return
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.ledger.reserved -= r.held
	r.bytes, r.credit, r.held = 0, 0, 0
}
