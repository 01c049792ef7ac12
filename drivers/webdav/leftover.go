package webdav

import (
	"context"
	"errors"
	"sync"
)

// leftover is what is of no use any more in the staging directory.
type leftover struct {
	name      string
	committed bool // it was replaced or deleted, and its bytes count until it is gone; else it is a broken upload, which counts no more
	ledger    *ledger
	counted   bool
	bytes     int64
}

// leftovers are those that could not be removed. Their disk failed; the next change tries again, since it may be well by then.
type leftovers struct {
	mu  sync.Mutex
	all []leftover
}

// take returns all of them; whoever takes one puts it back or has removed it.
func (l *leftovers) take() []leftover {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

func (l *leftovers) put(e leftover) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

// clear removes one. Nothing of it was acknowledged, or its removal was: a fault here is not the client's.
func (x *export) clear(e leftover) {
	err := x.remove(&e)
	if err == nil || errors.Is(err, context.Canceled) {
		return // withdrawn; the next Export empties the directory
	}
	x.left.put(e)
	message := "webdav: a broken upload is left in the staging directory; the next change tries again"
	if e.committed {
		message = "webdav: deleted files are left in the staging directory; the next change tries again"
	}
	x.owner.config.Logger.Warn(message, "export", x.path, "entry", e.name, "err", err)
}

// remove counts before it removes, and only once: half of it may be gone the next time.
func (x *export) remove(e *leftover) (err error) {
	if e.committed && !e.counted {
		if e.bytes, err = usage(x.ctx, x.staging, e.name); err != nil {
			return err
		}
		e.counted = true
	}
	if err := x.staging.RemoveAll(e.name); err != nil {
		return err
	}
	if e.committed {
		e.ledger.free(e.bytes)
	}
	return nil
}

// tidy tries again to remove what is left.
func (x *export) tidy() {
	for _, e := range x.left.take() {
		if err := x.remove(&e); err != nil {
			x.left.put(e) // it was logged when it was first left
		}
	}
}
