package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn/chaos/disk"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Disks are small file systems below the servers' directories. They are mounted in the mount namespace of this process, which has to be
// of the caller's own making. They end with Close. If the process is killed they end with the namespace, unless one of its threads
// waits for an answer of its own (see package disk): so it looks at nothing that it answers for. What lies on a btrfs above a disk it does look at;
// a kill -9 while that disk hangs may leave the process, and its loop device, until the connection of the file system is aborted.
type Disks struct {
	tools tool.Runner
	// logs and pools are what fails on demand, by server; none without file systems in user space.
	logs, pools map[string]*disk.Disk
	away        []func() error // take away what was mounted, the first one first
}

const (
	poolBytes = 512 << 20
	logBytes  = 160 << 20
)

// Mount gives every server, before its first start, a small disk for its pool, which is btrfs if it serves NFS, and another one for its raft
// log. Both fail on demand, where there are file systems in user space.
func Mount(ctx context.Context, servers []*local.Server) (*Disks, error) {
	d := &Disks{tools: tool.NewMachine(), logs: map[string]*disk.Disk{}, pools: map[string]*disk.Disk{}}
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

func (d *Disks) do(ctx context.Context, command ...string) error {
	_, err := d.tools.Run(ctx, tool.Cmd{Name: command[0], Args: command[1:]})
	return err
}

// mountLog puts what can fail over what can be full.
func (d *Disks) mountLog(s *local.Server) error {
	if err := d.memory(logSpace(s), logBytes); err != nil {
		return err
	}
	return d.show(s, d.logs, disk.Mount, logSpace(s), s.Disk())
}

// memory puts an empty file system in memory over a directory, which is made.
func (d *Disks) memory(dir string, size int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return err
	}
	d.away = append(d.away, func() error { return syscall.Unmount(dir, syscall.MNT_DETACH) }) // our own files are closed; a server's end may be late
	return nil
}

// show puts what is below at another place, where it fails on demand; or as it is, where there are no file systems in user space.
func (d *Disks) show(s *local.Server, disks map[string]*disk.Disk, mount func(below, at string) (*disk.Disk, error), below, at string) error {
	failing, err := mount(below, at)
	if err != nil {
		clear(disks)
		return syscall.Mount(below, at, "", syscall.MS_BIND, "")
	}
	disks[s.Name] = failing
	d.away = append(d.away, failing.Close)
	return nil
}

// logSpace is where the bytes of a raft log's disk are. This process uses it and not the disk, which it answers for itself.
func logSpace(s *local.Server) string { return s.Disk() + ".space" }

// Heal ends what the disks suffer from. Who waits for one cannot be killed before.
func (d *Disks) Heal() {
	for _, disks := range []map[string]*disk.Disk{d.logs, d.pools} {
		for _, failing := range disks {
			failing.Set(disk.Fault{})
		}
	}
}

// closeTimeout is how long what servers have started, such as a Ganesha, may take to end when they have been killed.
const closeTimeout = 30 * time.Second

// Close takes everything away. The servers have to be dead; whoever still uses a disk is waited for.
func (d *Disks) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for _, away := range slices.Backward(d.away) {
		errs = append(errs, local.Await(ctx, "nobody who uses a disk", func(context.Context) (bool, error) {
			err := away()
			return err == nil, err
		}))
	}
	d.away = nil
	clear(d.logs)
	clear(d.pools)
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

// failing has a disk of a server fail as draw says.
func failing(of func(*Disks) map[string]*disk.Disk, draw func(*rand.Rand) disk.Fault) func(context.Context, *World, *local.Server, *rand.Rand) (Heal, error) {
	return func(_ context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
		victim := of(w.Disks)[target.Name]
		victim.Set(draw(random))
		heal := func(context.Context) error {
			victim.Set(disk.Fault{})
			return revive(target)
		}
		return heal, nil
	}
}

func ofLog(d *Disks) map[string]*disk.Disk { return d.logs }

func ofPool(d *Disks) map[string]*disk.Disk { return d.pools }

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
