package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/calls"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// op is one call on the pool: its context, and the replica that it is about.
type op struct {
	*Pool
	ctx context.Context
	id  cairn.ReplicaID
}

// do is the only way to change the file system. A call whose context has ended takes no further step.
func (o *op) do(name string, change func() error) error {
	if err := o.ctx.Err(); err != nil {
		return err
	}
	return o.step(name, change)
}

// call runs f, which may change the replica. One runs at a time for each ID.
func call[T any](ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) (T, error)) (T, error) {
	return run(ctx, p, string(id), id, what, f)
}

// change is call for what returns no value.
func change(ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) error) error {
	_, err := call(ctx, p, id, what, func(o *op) (struct{}, error) { return struct{}{}, f(o) })
	return err
}

// look runs f, which only looks. One runs at a time for each ID, so that calls which hang do not pile up. The ID "" is the
// pool itself.
func look[T any](ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) (T, error)) (T, error) {
	return run(ctx, p, "look "+string(id), id, what, f)
}

func run[T any](ctx context.Context, p *Pool, key string, id cairn.ReplicaID, what string, f func(*op) (T, error)) (T, error) {
	var none T
	subject := "pool " + string(p.poolID)
	if key != "look " {
		if err := cairn.CheckName("replica", string(id)); err != nil {
			return none, err
		}
		subject = "replica " + string(id)
	}
	value, err := calls.Do(ctx, &p.calls, key, func() (T, error) { return f(&op{Pool: p, ctx: ctx, id: id}) })
	if err != nil {
		return none, fmt.Errorf("%s: %s: %w", subject, what, classify(err))
	}
	return value, nil
}

// classify adds the sentinel for what the operating system says in its own words, and for a context that ended between two
// tools. What it does not know, it leaves.
func classify(err error) error {
	switch {
	case errors.Is(err, cairn.ErrTimeout), errors.Is(err, cairn.ErrUnknownOutcome), errors.Is(err, cairn.ErrUnavailable):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("outcome unknown, look before trying again: %w: %w", cairn.ErrTimeout, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", cairn.ErrUnknownOutcome, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", cairn.ErrNoSpace, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", cairn.ErrInUse, err)
	}
	return err
}

// undo removes what a call that went wrong has half made, so that a full disk does not stay full. It is a courtesy: after
// a crash nobody runs it, and what it does not remove the next call for the same ID does.
func (o *op) undo(err error, remove func() error) error {
	if o.ctx.Err() != nil {
		return err // the caller has left
	}
	if failed := remove(); failed != nil {
		return fmt.Errorf("%w (and its remains are still there: %v)", err, failed)
	}
	return err
}

// tool runs a tool as a step.
func (o *op) tool(step, name string, args ...string) error {
	return o.do(step, func() error {
		_, err := o.runner.Run(o.ctx, tool.Cmd{Name: name, Args: args})
		return diagnose(err)
	})
}

// stream runs the btrfs tool between two streams; either may be nil.
func (o *op) stream(stdin io.Reader, stdout io.Writer, args ...string) error {
	_, err := o.runner.Stream(o.ctx, tool.Cmd{Name: "btrfs", Args: args}, stdin, stdout)
	return diagnose(err)
}
