package webdav

import (
	"context"
	"sync"
)

// gate lets many enter, and lets a holder wait until all have left while nobody new enters. Unlike a sync.RWMutex it
// obeys contexts, and several holders do not exclude each other. The zero gate is open.
type gate struct {
	mu      sync.Mutex
	inside  int
	holders int
	waiting int           // to enter
	changed chan struct{} // closed at the next change; nil while nobody waits for one
}

// enter waits for the holders to go. Every enter that succeeded is followed by leave.
func (g *gate) enter(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting++
	err := g.wait(ctx, func() bool { return g.holders == 0 })
	g.waiting--
	if err != nil {
		return err
	}
	g.inside++
	return nil
}

// tryEnter enters unless the gate is held.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders > 0 {
		return false
	}
	g.inside++
	return true
}

// occupied reports whether anybody is inside.
func (g *gate) occupied() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside > 0
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.signal()
}

// hold keeps newcomers out at once and returns when nobody is inside. release may be called more than once; if the
// context ends first the gate is not held.
func (g *gate) hold(ctx context.Context) (release func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holders++
	if err := g.wait(ctx, func() bool { return g.inside == 0 }); err != nil {
		g.holders--
		g.signal()
		return nil, err
	}
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.holders--
		g.signal()
	}), nil
}

// wait returns with the mutex held, as it was called.
func (g *gate) wait(ctx context.Context, ready func() bool) error {
	for !ready() {
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		g.mu.Lock()
		if err := ctx.Err(); err != nil && !ready() {
			return err
		}
	}
	return nil
}

func (g *gate) signal() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}
