package consensus

import (
	"context"
	"errors"
	"fmt"
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

// Apply proposes a command and waits for its result. Concurrent calls share a disk write. Errors mean that nothing was
// decided: ErrNotLeader, cairn.ErrUnavailable (certainly not done) or cairn.ErrUnknownOutcome.
func (e *Engine) Apply(ctx context.Context, data []byte) (fsm.Result, error) {
	response, err := e.propose(ctx, func(r *raft.Raft, timeout time.Duration) raft.Future { return r.Apply(data, timeout) })
	if err != nil {
		return fsm.Result{}, err
	}
	result, ok := response.(fsm.Result)
	if !ok {
		return fsm.Result{}, fmt.Errorf("raft: the entry was applied before it was proposed: %w", cairn.ErrUnknownOutcome)
	}
	return result, nil
}

// Begin makes a new leader ready: it commits an entry of its term and waits until everything before it has been applied.
// Before that a leader does not know what is committed, and must not serve reads.
func (e *Engine) Begin(ctx context.Context) error {
	i := e.instance.Load()
	term := i.CurrentTerm()
	if err := e.barrier(ctx); err != nil {
		return err
	}
	if i != e.instance.Load() || i.State() != raft.Leader || i.CurrentTerm() != term {
		return ErrNotLeader
	}
	e.ready.Store(term)
	return nil
}

// barrier commits an entry that holds nothing, and returns when everything before it has been applied.
func (e *Engine) barrier(ctx context.Context) error {
	_, err := e.propose(ctx, func(r *raft.Raft, timeout time.Duration) raft.Future { return r.Barrier(timeout) })
	return err
}

func (e *Engine) propose(ctx context.Context, submit func(*raft.Raft, time.Duration) raft.Future) (any, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("raft: %w: %w", err, cairn.ErrUnavailable)
	}
	i := e.instance.Load()
	if i.State() != raft.Leader {
		return nil, ErrNotLeader
	}
	if waiting := e.DiskWaiting(); waiting > e.config.Timing.DiskLimit {
		return nil, fmt.Errorf("raft: the leader's disk has not answered for %s: %w", waiting.Round(time.Millisecond), cairn.ErrUnavailable)
	}
	deadline, _ := ctx.Deadline()
	type outcome struct {
		response any
		err      error
	}
	done := make(chan outcome, 1)
	go func() {
		future := submit(i.Raft, time.Until(deadline))
		o := outcome{err: future.Error()}
		if f, ok := future.(raft.ApplyFuture); ok && o.err == nil {
			o.response = f.Response()
			// The machine never sees a barrier. Without this, also for one that nobody waits for any more, a reader would
			// wait for its index until the next command.
			e.machine.advance(f.Index(), 0)
		}
		done <- o
	}()
	select {
	case o := <-done:
		if errors.Is(o.err, raft.ErrLeadershipTransferInProgress) {
			e.watchTransfer()
		}
		return o.response, translate(o.err)
	case <-ctx.Done():
		return nil, fmt.Errorf("raft: no answer before the deadline: %w", cairn.ErrUnknownOutcome)
	}
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
