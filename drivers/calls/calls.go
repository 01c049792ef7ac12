// Package calls lets callers of a pool get away from storage that hangs. It knows neither pools nor storage.
package calls

import (
	"context"
	"fmt"
	"sync"
)

// Calls are those that are at work on one pool. The zero value is ready. Each works in a goroutine of its own; Wait waits
// for them.
type Calls struct {
	mu      sync.Mutex
	held    map[string]*lock
	working sync.WaitGroup
}

// lock is a mutex that can be given up on.
type lock struct {
	taken chan struct{} // one element while it is held
	users int           // holders and waiters; at 0 it is forgotten
}

// Do runs f while it holds the lock named key; "" is no lock. When ctx ends, Do returns its error at once. f is left to find
// out by itself, and holds the lock until it has: whoever calls for the same key next waits until the outcome is known.
func Do[T any](ctx context.Context, c *Calls, key string, f func() (T, error)) (T, error) {
	var none T
	release, err := c.acquire(ctx, key)
	if err != nil {
		return none, fmt.Errorf("wait for an earlier call: %w", err)
	}
	type result struct {
		value    T
		err      error
		panicked any
	}
	done := make(chan result, 1)
	c.working.Go(func() {
		defer release()
		var r result
		defer func() {
			// A panic belongs to the caller, who fails one pass; here it would end the process.
			r.panicked = recover()
			done <- r
		}()
		r.value, r.err = f()
	})
	select {
	case r := <-done:
		if r.panicked != nil {
			panic(r.panicked)
		}
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Wait returns when no call is at work any more, those that their callers have left included.
func (c *Calls) Wait() { c.working.Wait() }

func (c *Calls) acquire(ctx context.Context, key string) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if key == "" {
		return func() {}, nil
	}
	k := c.enter(key)
	select {
	case k.taken <- struct{}{}:
		return func() { <-k.taken; c.leave(key, k) }, nil
	case <-ctx.Done():
		c.leave(key, k)
		return nil, ctx.Err()
	}
}

func (c *Calls) enter(key string) *lock {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = make(map[string]*lock)
	}
	k := c.held[key]
	if k == nil {
		k = &lock{taken: make(chan struct{}, 1)}
		c.held[key] = k
	}
	k.users++
	return k
}

func (c *Calls) leave(key string, k *lock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(c.held, key)
	}
}
