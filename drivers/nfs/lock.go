package nfs

import (
	"context"
	"fmt"
	"sync"

	"github.com/cairn-storage/cairn"
)

// lock is a mutex that obeys contexts.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("another call is in progress: %w: %w", cairn.ErrTimeout, ctx.Err())
	}
}

// nameLocks lets one call at a time change the mount of a name. The zero value is ready.
type nameLocks struct {
	mu   sync.Mutex
	held map[string]*nameLock
}

type nameLock struct {
	lock
	users int
}

func (n *nameLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	n.mu.Lock()
	l := n.held[name]
	if l == nil {
		if n.held == nil {
			n.held = make(map[string]*nameLock)
		}
		l = &nameLock{lock: newLock()}
		n.held[name] = l
	}
	l.users++
	n.mu.Unlock()
	release, err := l.lock.lock(ctx)
	if err != nil {
		n.leave(name)
		return nil, err
	}
	return func() { release(); n.leave(name) }, nil
}

func (n *nameLocks) leave(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.held[name]
	if l.users--; l.users == 0 {
		delete(n.held, name)
	}
}
