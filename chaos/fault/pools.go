package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cairn-storage/cairn/chaos/disk"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// mountPool puts an empty disk over the pool, whatever is there: what can fail over what can be full. With NFS it is btrfs, whose image lies on
// what can fail.
func (d *Disks) mountPool(ctx context.Context, s *local.Server) error {
	below, at := s.PoolDir()+".space", s.PoolDir()
	if s.NFSHost != "" {
		at += ".disk"
	}
	err := errors.Join(os.MkdirAll(at, 0o700), d.memory(below, poolBytes))
	if err == nil {
		err = d.show(s, d.pools, disk.MountLasting, below, at)
	}
	if err != nil {
		return fmt.Errorf("disk of the pool of %s: %w", s.Name, err)
	}
	if s.NFSHost == "" {
		s.PoolSpace = below
		return nil
	}
	d.away = append(d.away, func() error { return syscall.Unmount(s.PoolDir(), 0) })
	return d.mountBtrfs(ctx, at, s.PoolDir())
}

// mountBtrfs puts a btrfs over dir, whose image is in a directory in memory: under a new name, since mkfs.btrfs takes none that a mounted file
// system has, below this one, too. Data and metadata are mixed, so that a pool that was full has room for both again.
func (d *Disks) mountBtrfs(ctx context.Context, memory, dir string) error {
	file, err := os.CreateTemp(memory, "image-")
	if err != nil {
		return fmt.Errorf("disk of a pool: %w", err)
	}
	image := file.Name()
	if err := errors.Join(file.Truncate(poolBytes), file.Close()); err != nil {
		return fmt.Errorf("disk of a pool: %w", err)
	}
	if err := d.do(ctx, "mkfs.btrfs", "-q", "--mixed", image); err != nil {
		return err
	}
	return d.do(ctx, "mount", "-o", "loop,noatime", image, dir)
}

// CheckBtrfs returns why there can be no btrfs on a loop device; nil if there can. dir is a directory for it, and for what
// it leaves behind.
func CheckBtrfs(ctx context.Context, dir string) error {
	d := &Disks{tools: tool.NewMachine()}
	if err := d.mountBtrfs(ctx, dir, dir); err != nil {
		return err
	}
	return syscall.Unmount(dir, 0)
}
