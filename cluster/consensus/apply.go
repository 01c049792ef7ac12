package consensus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// ErrNotLeader is an error of Apply and Read at a node that does not lead. Nothing was done.
var ErrNotLeader = errors.New("not the leader")

// defaultTimeout bounds calls whose context has no deadline.
const defaultTimeout = 10 * time.Second

// Apply proposes a command and waits for its result. Concurrent calls share log entries and disk writes. Errors mean that
// nothing was decided: ErrNotLeader, cairn.ErrUnavailable (certainly not done) or cairn.ErrUnknownOutcome.
func (e *Engine) Apply(ctx context.Context, data []byte) (fsm.Result, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := e.writable(ctx); err != nil {
		return fsm.Result{}, err
	}
	return e.queue.do(ctx, data)
}

// proposeEntry makes one log entry of the commands and returns their results, in order. An error is about all of them.
func (e *Engine) proposeEntry(commands [][]byte, deadline time.Time) ([]fsm.Result, error) {
	i, err := e.writable(e.ctx)
	if err != nil {
		return nil, err
	}
	entry := commands[0]
	if len(commands) > 1 {
		entry = fsm.Bundle(commands)
	}
	// failpoint: proposing
	future := i.Apply(entry, patience(deadline))
	answered := make(chan error, 1)
	go func() { answered <- e.answered(future) }()
	select {
	case err := <-answered:
		if err != nil {
			return nil, err
		}
	case <-i.done:
		// Raft forgets what was committed and not yet applied when it was stopped, and a disk that hangs never answers.
		return nil, fmt.Errorf("raft: was stopped: %w", cairn.ErrUnknownOutcome)
	}
	// failpoint: committed
	result, ok := future.Response().(fsm.Result)
	if !ok {
		return nil, fmt.Errorf("raft: the entry was applied before it was proposed: %w", cairn.ErrUnknownOutcome)
	}
	if len(commands) > 1 {
		return result.Bundle, nil
	}
	return []fsm.Result{result}, nil
}

// room is how many entries may be on their way at the same time, and of how many commands each. A node that does not
// understand bundles must not get any.
func (e *Engine) room() (entries, commands int) {
	if e.machine.View().CommandVersion() < fsm.BundleVersion {
		return math.MaxInt, 1
	}
	return maxEntries, maxBundled
}

// Begin makes a new leader ready: it commits an entry of its term and waits until everything before it has been applied.
// Before that a leader does not know what is committed, and must not serve reads.
func (e *Engine) Begin(ctx context.Context) error {
	i := e.instance.Load()
	term := i.CurrentTerm()
	if err := e.barrier(ctx); err != nil {
		return err
	}
	if i != e.instance.Load() || !i.leads(term) {
		return ErrNotLeader
	}
	e.ready.Store(term)
	return nil
}

// barrier commits an entry that holds nothing, and returns when everything before it has been applied.
func (e *Engine) barrier(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	i, err := e.writable(ctx)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	done := make(chan error, 1)
	go func() {
		future := i.Barrier(patience(deadline))
		err := e.answered(future)
		if entry, ok := future.(raft.IndexFuture); ok && err == nil {
			// The machine never sees a barrier. Without this, also for one that nobody waits for any more, a reader would
			// wait for its index until the next command.
			e.machine.advance(entry.Index(), 0)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("raft: no answer before the deadline: %w", cairn.ErrUnknownOutcome)
	}
}

// bounded gives the context a deadline, if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, defaultTimeout)
}

// patience is how long Raft may take to accept an entry; for Raft, 0 and less would be for ever.
func patience(deadline time.Time) time.Duration { return max(time.Until(deadline), time.Millisecond) }

// writable returns the instance that takes proposals now. Its errors mean that nothing was done.
func (e *Engine) writable(ctx context.Context) (*instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("raft: %w: %w", err, cairn.ErrUnavailable)
	}
	i := e.instance.Load()
	if !i.leads(i.CurrentTerm()) {
		return nil, ErrNotLeader
	}
	if waiting := e.DiskWaiting(); waiting > e.config.Timing.DiskLimit {
		return nil, fmt.Errorf("raft: the leader's disk has not answered for %s: %w", waiting.Round(time.Millisecond), cairn.ErrUnavailable)
	}
	return i, nil
}

// answered waits until Raft has decided about a proposal, or cannot any more.
func (e *Engine) answered(future raft.Future) error {
	err := future.Error()
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		e.watchTransfer()
	}
	return translate(err)
}

// translate maps what Raft says to what is known of the entry.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return ErrNotLeader
	case errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("raft: %w: %w", err, cairn.ErrUnavailable)
	default: // leadership lost, shut down, or the local log refused it after it was on its way
		return fmt.Errorf("raft: %w: %w", err, cairn.ErrUnknownOutcome)
	}
}

// watchTransfer lets the guard look at a transfer that refuses writes, and restarts Raft if it has stuck. It ends with
// the engine's context.
func (e *Engine) watchTransfer() {
	go func() {
		if e.transfer.Refused(e.ctx) {
			select {
			case e.restarts <- "a leadership transfer did not end, and every write was refused":
			default: // it is on its way
			}
		}
	}()
}

// probe is a write that changes nothing.
func (e *Engine) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.config.Timing.Heartbeat)
	defer cancel()
	return e.barrier(ctx)
}

func lastLog(r *raft.Raft) (index, term uint64) {
	stats := r.Stats()
	term, _ = strconv.ParseUint(stats["last_log_term"], 10, 64) // Raft formats it itself
	return r.LastIndex(), term
}
