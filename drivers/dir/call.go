package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
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
	// failpoint: before(name) make_work_directory make_pool_directory write_pool_mark replace_pool_mark make_probe probe make_replica write_mark replace_mark make_staging make_snapshots make_work make_data sync_replica COMMIT_place_replica COMMIT_take_replica_away copy_directory copy_file copy_link copy_special_file finish_directory COMMIT_place_snapshot COMMIT_take_snapshot_away COMMIT_exchange_data COMMIT_move_data_in COMMIT_move_data_out make_removable make_directory make_link make_symbolic_link make_special_file link_directory link_file write_file remove_file remove_directory sync_removal sync_file_system
	err := o.step(name, change)
	// failpoint: after(name) make_work_directory make_pool_directory write_pool_mark replace_pool_mark make_probe probe make_replica write_mark replace_mark make_staging make_snapshots make_work make_data sync_replica COMMIT_place_replica COMMIT_take_replica_away copy_directory copy_file copy_link copy_special_file finish_directory COMMIT_place_snapshot COMMIT_take_snapshot_away COMMIT_exchange_data COMMIT_move_data_in COMMIT_move_data_out make_removable make_directory make_link make_symbolic_link make_special_file link_directory link_file write_file remove_file remove_directory sync_removal sync_file_system
	return err
}

// call runs f under the lock of id. When ctx ends, call returns and leaves f to find out before its next step: the outcome
// is unknown, and the next call for the same ID waits for it to be known.
func call[T any](ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) (T, error)) (T, error) {
	var none T
	if err := cairn.CheckName("replica", string(id)); err != nil {
		return none, err
	}
	release, err := p.locks.acquire(ctx, id)
	if err != nil {
		return none, fmt.Errorf("replica %s: %s: wait for an earlier call: %w", id, what, classify(err))
	}
	value, err := run(ctx, p, func() (T, error) {
		defer release()
		return f(&op{Pool: p, ctx: ctx, id: id})
	})
	if err != nil {
		return none, fmt.Errorf("replica %s: %s: %w", id, what, classify(err))
	}
	return value, nil
}

// callPool is call for what is about no replica in particular. It takes no lock.
func callPool[T any](ctx context.Context, p *Pool, what string, f func(*op) (T, error)) (T, error) {
	value, err := run(ctx, p, func() (T, error) { return f(&op{Pool: p, ctx: ctx}) })
	if err != nil {
		return value, fmt.Errorf("pool %s: %s: %w", p.poolID, what, classify(err))
	}
	return value, nil
}

// run waits for f until ctx ends.
func run[T any](ctx context.Context, p *Pool, f func() (T, error)) (T, error) {
	type result struct {
		value    T
		err      error
		panicked any
	}
	done := make(chan result, 1)
	p.calls.Go(func() {
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
		var none T
		return none, ctx.Err()
	}
}

// change is call for what returns no value.
func change(ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) error) error {
	_, err := call(ctx, p, id, what, func(o *op) (struct{}, error) { return struct{}{}, f(o) })
	return err
}

// classify adds the sentinel for what the operating system says in its own words. What it does not know, it leaves.
func classify(err error) error {
	switch {
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

// mkdir makes a directory, or finds it there.
func (o *op) mkdir(name, path string) error {
	err := o.do(name, func() error { return os.Mkdir(path, 0o700) })
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// rename moves a directory to a name that is free, durably: errForeign if the name is taken. The sync is part of the step,
// so that no call of this process can build on a rename that is not durable; Open sees to those of an earlier process.
func (o *op) rename(name, from, to string) error {
	return o.do(name, func() error {
		err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		switch {
		case errors.Is(err, unix.EEXIST):
			return fmt.Errorf("%s: %w", to, errForeign)
		case err != nil:
			return fmt.Errorf("rename %s to %s: %w", from, to, err)
		}
		return syncDirs(filepath.Dir(from), filepath.Dir(to))
	})
}

// syncDirs makes the entries of directories durable.
func syncDirs(paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", path, err)
		}
	}
	return nil
}

// syncAll makes everything on the file system durable: one call for a tree of any number of files.
func (o *op) syncAll() error {
	return o.do("sync file system", func() error {
		if err := unix.Syncfs(int(o.dir.Fd())); err != nil {
			return fmt.Errorf("syncfs: %w", err)
		}
		return nil
	})
}

// locks hands out one lock per replica.
type locks struct {
	mu   sync.Mutex
	held map[cairn.ReplicaID]*lock
}

type lock struct {
	taken chan struct{} // capacity 1; full while the lock is held
	users int           // holders and waiters
}

// acquire waits for the lock until ctx ends.
func (l *locks) acquire(ctx context.Context, id cairn.ReplicaID) (release func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[cairn.ReplicaID]*lock)
	}
	k := l.held[id]
	if k == nil {
		k = &lock{taken: make(chan struct{}, 1)}
		l.held[id] = k
	}
	k.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.held, id)
		}
	}
	select {
	case k.taken <- struct{}{}:
		return func() { <-k.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// claims keeps a snapshot from being removed while a clone of another replica is read from it.
type claims struct {
	mu   sync.Mutex
	held map[cairn.SnapshotID]int // number of readers, or -1 for one remover
}

// take claims a snapshot to read from it or to remove it: cairn.ErrInUse if that collides.
func (c *claims) take(snap cairn.SnapshotID, remove bool) (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = make(map[cairn.SnapshotID]int)
	}
	n := c.held[snap]
	switch {
	case remove && n > 0:
		return nil, fmt.Errorf("snapshot %s: a clone is being copied from it: %w", snap, cairn.ErrInUse)
	case n < 0:
		return nil, fmt.Errorf("snapshot %s: is being removed: %w", snap, cairn.ErrInUse)
	case remove:
		c.held[snap] = -1
	default:
		c.held[snap] = n + 1
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.held[snap]--; remove || c.held[snap] == 0 {
			delete(c.held, snap)
		}
	}, nil
}
