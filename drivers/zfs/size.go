package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/calls"
)

// Resize sets the limits in the order in which OpenZFS takes them, and records the size last.
func (p *Pool) Resize(ctx context.Context, id cairn.ReplicaID, epoch uint64, size int64) error {
	return change(ctx, p, id, "resize", func(o *op) error {
		if err := cairn.CheckSize(size); err != nil {
			return err
		}
		f, err := o.lookReady(epoch)
		if err != nil || f.size() == size {
			return err
		}
		if size < f.size() {
			if f, err = o.checkShrinks(f, size); err != nil {
				return err
			}
		}
		return o.resize(f, size)
	})
}

// checkShrinks is cairn.ErrDataLoss if the replica holds more than size.
func (o *op) checkShrinks(f found, size int64) (found, error) {
	if err := o.sync(); err != nil {
		return found{}, err
	}
	f, err := o.lookAt(f.at)
	if err != nil {
		return found{}, err
	}
	return f, checkFits(f.row, size)
}

// checkFits is cairn.ErrDataLoss if a dataset or snapshot refers to more than size.
func checkFits(r row, size int64) error {
	if used := r.number("referenced"); used > size {
		return fmt.Errorf("%s: %s (%d bytes) are used, more than %s: %w", r["name"], cairn.FormatSize(used), used, cairn.FormatSize(size), cairn.ErrDataLoss)
	}
	return nil
}

func (o *op) resize(f found, size int64) error {
	limits := []string{"refquota=" + bytes(size)}
	reserve, thick := f.row["cairn:reserve"], f.row["cairn:thick"] != ""
	if reserve != "" {
		percent, err := strconv.ParseInt(reserve, 10, 64)
		if err != nil {
			return fmt.Errorf("dataset %s: snapshot reserve %q is no number: %w", f.at, reserve, cairn.ErrCorrupt)
		}
		limits = append(limits, "quota="+bytes(withReserve(size, percent)))
	}
	if thick {
		limits = append(limits, "refreservation="+bytes(size))
	}
	if size < f.size() {
		slices.Reverse(limits) // a reservation may never be more than a limit
	}
	// One command for each: of several in one, those that are possible are set although another one is refused.
	for _, limit := range append(limits, "cairn:size="+bytes(size)) {
		if err := o.zfs("set", limit, f.at); err != nil {
			return o.explain(f, size, err)
		}
	}
	return nil
}

// explain says how much is used when a limit was refused because of it: clients may have written since checkShrinks.
func (o *op) explain(f found, size int64, err error) error {
	if !errors.Is(err, errTooSmall) {
		return err
	}
	now, lookErr := o.lookAt(f.at)
	if lookErr != nil {
		return err
	}
	return fmt.Errorf("%s (%d bytes) are used, more than %s: %w",
		cairn.FormatSize(now.row.number("referenced")), now.row.number("referenced"), cairn.FormatSize(size), err)
}

func bytes(n int64) string { return strconv.FormatInt(n, 10) }

// Usage is what the size limits: the bytes that the data refers to, shared with snapshots or not. It waits until what has
// been written counts, so it costs a flush of the zpool.
func (p *Pool) Usage(ctx context.Context, id cairn.ReplicaID) (int64, error) {
	return look(ctx, p, id, "usage", func(o *op) (int64, error) {
		if err := o.checkHealth(); err != nil { // a zpool that does not answer would not end its flush either
			return 0, err
		}
		if err := o.sync(); err != nil {
			return 0, err
		}
		f, err := o.look()
		if err != nil {
			return 0, err
		}
		return f.row.number("referenced"), f.checkReady()
	})
}

// sync waits until everything that has been written before counts. Callers that wait at the same time share a flush.
func (o *op) sync() error {
	turn := o.syncs.started.Load() + 1
	_, err := calls.Do(o.ctx, &o.calls, "zpool sync", func() (struct{}, error) {
		if o.syncs.finished >= turn {
			return struct{}{}, nil
		}
		turn := o.syncs.started.Add(1)
		_, err := o.query("zpool", "sync", o.zpool)
		if err == nil {
			o.syncs.finished = turn
		}
		return struct{}{}, err
	})
	return err
}

// syncs numbers the flushes of a zpool.
type syncs struct {
	started  atomic.Uint64
	finished uint64 // the last that succeeded; under the lock "zpool sync"
}
