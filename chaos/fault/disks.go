package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn/chaos/disk"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Disks are small file systems below the servers' directories. They are mounted in the mount namespace of this process, which has to be
// of the caller's own making, and end with it.
type Disks struct {
	tools tool.Runner
	logs  map[string]*disk.Disk // those of the raft logs, by server; none without file systems in user space
}

const (
	poolBytes = 512 << 20
	logBytes  = 160 << 20
)

// Mount gives every server, before its first start, a small disk for its pool, which is btrfs if it serves NFS, and another one for its raft
// log. The latter fails on demand, where there are file systems in user space.
func Mount(ctx context.Context, servers []*local.Server) (*Disks, error) {
	d := &Disks{tools: tool.NewMachine(), logs: map[string]*disk.Disk{}}
	for _, s := range servers {
		if err := d.mountPool(ctx, s); err != nil {
			return nil, err
		}
		if err := d.mountLog(s); err != nil {
			return nil, fmt.Errorf("disk of the raft log of %s: %w", s.Name, err)
		}
	}
	return d, nil
}

// mountPool puts an empty disk over the pool, whatever is there.
func (d *Disks) mountPool(ctx context.Context, s *local.Server) error {
	if err := syscall.Mount("tmpfs", s.PoolDir(), "tmpfs", 0, fmt.Sprintf("size=%d", poolBytes)); err != nil {
		return fmt.Errorf("disk of the pool of %s: %w", s.Name, err)
	}
	if s.NFSHost == "" {
		return nil
	}
	return d.mountBtrfs(ctx, s.PoolDir())
}

// mountBtrfs puts a btrfs over a directory in memory, in which its image is: under a new name, since mkfs.btrfs takes none that a mounted file
// system has, below this one, too. Data and metadata are mixed, so that a pool that was full has room for both again.
func (d *Disks) mountBtrfs(ctx context.Context, dir string) error {
	file, err := os.CreateTemp(dir, "image-")
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
	if err := d.mountBtrfs(ctx, dir); err != nil {
		return err
	}
	return syscall.Unmount(dir, 0)
}

func (d *Disks) do(ctx context.Context, command ...string) error {
	_, err := d.tools.Run(ctx, tool.Cmd{Name: command[0], Args: command[1:]})
	return err
}

// mountLog puts what can fail over what can be full.
func (d *Disks) mountLog(s *local.Server) error {
	below := logSpace(s)
	if err := os.Mkdir(below, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", below, "tmpfs", 0, fmt.Sprintf("size=%d", logBytes)); err != nil {
		return err
	}
	failing, err := disk.Mount(below, s.Disk())
	if err != nil {
		clear(d.logs)
		return syscall.Mount(below, s.Disk(), "", syscall.MS_BIND, "")
	}
	d.logs[s.Name] = failing
	return nil
}

// logSpace is where the bytes of a raft log's disk are. This process uses it and not the disk, which it answers for itself.
func logSpace(s *local.Server) string { return s.Disk() + ".space" }

// Close takes away what fails on demand. The servers have to be dead.
func (d *Disks) Close() error {
	var errs []error
	for _, failing := range d.logs {
		errs = append(errs, failing.Close())
	}
	clear(d.logs)
	return errors.Join(errs...)
}

// ballastName is the file that fills a disk; to a pool it is somebody else's.
const ballastName = "ballast"

// full takes all space of a disk. What a server that ended by it needs when there is room again is a start.
func full(dir func(*local.Server) string) func(context.Context, *World, *local.Server, *rand.Rand) (Heal, error) {
	return func(_ context.Context, _ *World, target *local.Server, _ *rand.Rand) (Heal, error) {
		path := filepath.Join(dir(target), ballastName)
		heal := func(context.Context) error {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("ballast: %w", err)
			}
			return revive(target)
		}
		return heal, fill(path)
	}
}

func fill(path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("ballast: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for block := int64(64 << 20); block >= 4096; { // allocated, not written: this is quick, and takes the space all the same
		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("ballast: %w", err)
		}
		switch err := syscall.Fallocate(int(file.Fd()), 0, info.Size(), block); {
		case errors.Is(err, syscall.ENOSPC):
			block /= 2
		case err != nil && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("ballast: %w", err)
		}
	}
	return nil
}

// failing has the disk of a raft log fail as draw says.
func failing(draw func(*rand.Rand) disk.Fault) func(context.Context, *World, *local.Server, *rand.Rand) (Heal, error) {
	return func(_ context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
		log := w.Disks.logs[target.Name]
		log.Set(draw(random))
		heal := func(context.Context) error {
			log.Set(disk.Fault{})
			return revive(target)
		}
		return heal, nil
	}
}

func hangs(*rand.Rand) disk.Fault { return disk.Fault{Hang: true} }

func refuses(*rand.Rand) disk.Fault { return disk.Fault{Err: syscall.EIO} }

func slow(random *rand.Rand) disk.Fault {
	return disk.Fault{Delay: 5*time.Millisecond + time.Duration(random.Int64N(int64(200*time.Millisecond)))}
}

// power ends a server and takes from its raft log what it had not synced.
func power(_ context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
	if err := target.Kill(); err != nil {
		return nil, err
	}
	heal := func(context.Context) error { return revive(target) }
	torn := random.IntN(2) == 0
	files, err := w.Disks.logs[target.Name].Lose(torn)
	w.Log("%s: %d files have lost what was not synced, torn: %t", target.Name, files, torn)
	return heal, err
}
