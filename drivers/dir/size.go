package dir

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/cairn-storage/cairn"
)

// Resize changes the limit, and then the size in the mark. Without quotas shrinking walks the data.
func (p *Pool) Resize(ctx context.Context, id cairn.ReplicaID, epoch uint64, size int64) error {
	return change(ctx, p, id, "resize", func(o *op) error {
		if err := cairn.CheckSize(size); err != nil {
			return err
		}
		f, err := o.lookReady(epoch)
		if err != nil || f.Size == size {
			return err
		}
		if size < f.Size {
			used, err := o.used(f)
			if err == nil {
				err = fits(used, size)
			}
			if err != nil {
				return err
			}
		}
		if err := o.limit(f.Project, size); err != nil {
			return err
		}
		f.Size = size
		return o.writeMark(o.home(id), f.mark)
	})
}

// Usage is what is compared with the size: where quotas are on, what the file system has counted, the blocks of directories
// and of uploads in progress included. Elsewhere it walks the data and counts the bytes that files appear to have, each
// hard-linked file once, because that is what the exporter counts when it enforces the size.
func (p *Pool) Usage(ctx context.Context, id cairn.ReplicaID) (int64, error) {
	return call(ctx, p, id, "usage", func(o *op) (int64, error) {
		f, err := o.look()
		if err != nil {
			return 0, err
		}
		if err := f.checkReady(o.home(id)); err != nil {
			return 0, err
		}
		return o.used(f)
	})
}

func (o *op) used(f found) (int64, error) {
	if f.Project == 0 || !o.quota.on() {
		return o.usage(filepath.Join(o.home(o.id), "data"))
	}
	now, err := o.getQuota(f.Project)
	return int64(now.Space), err
}

// checkFits is cairn.ErrDataLoss if a directory holds more than size.
func (o *op) checkFits(dir string, size int64) error {
	used, err := o.usage(dir)
	if err != nil {
		return err
	}
	return fits(used, size)
}

func fits(used, size int64) error {
	if used > size {
		return fmt.Errorf("%s (%d bytes) are used, more than %s: %w", cairn.FormatSize(used), used, cairn.FormatSize(size), cairn.ErrDataLoss)
	}
	return nil
}
