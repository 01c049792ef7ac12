package consensus

import (
	"context"
	"sync"
)

// Rounds lets concurrent callers share the result of one costly round. A caller only ever gets the result of a round that
// began after it asked: what a round under way has found may already be old.
//
// A round runs in a goroutine of its own, one at a time, for as long as somebody waits for the next.
type Rounds struct {
	ctx   context.Context
	round func(context.Context) (uint64, error)

	mu      sync.Mutex
	busy    bool
	waiting *round
}

type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// NewRounds runs rounds until ctx ends. The function must end soon after its context does.
func NewRounds(ctx context.Context, function func(context.Context) (uint64, error)) *Rounds {
	return &Rounds{ctx: ctx, round: function}
}

// Do waits for the result of a round that begins after the call.
func (r *Rounds) Do(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = &round{done: make(chan struct{})}
	}
	mine := r.waiting
	if !r.busy {
		r.busy = true
		go r.run()
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (r *Rounds) run() {
	for {
		r.mu.Lock()
		current := r.waiting
		r.waiting = nil
		r.busy = current != nil
		r.mu.Unlock()
		if current == nil {
			return
		}
		current.index, current.err = r.round(r.ctx)
		close(current.done)
	}
}
