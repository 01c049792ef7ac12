package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Disks are small file systems below the servers' directories. They are mounted in the mount namespace of this process, which has to be
// of the caller's own making, and end with it.
type Disks struct {
	Freezes bool // the raft logs are on file systems that can be frozen
	tools   tool.Runner
}

const (
	poolBytes = 512 << 20
	logBytes  = 160 << 20
)

// Mount gives every server, before its first start, a small disk for its pool and another one for its raft log: ext4 on a loop
// device where there may be one, else tmpfs.
func Mount(ctx context.Context, servers []*local.Server) (*Disks, error) {
	d := &Disks{Freezes: true, tools: tool.NewMachine()}
	for _, s := range servers {
		if err := syscall.Mount("tmpfs", s.PoolDir(), "tmpfs", 0, fmt.Sprintf("size=%d", poolBytes)); err != nil {
			return nil, fmt.Errorf("disk of the pool of %s: %w", s.Name, err)
		}
		if d.Freezes && d.mountLoop(ctx, s) == nil {
			continue
		}
		d.Freezes = false
		if err := syscall.Mount("tmpfs", s.Disk(), "tmpfs", 0, fmt.Sprintf("size=%d", logBytes)); err != nil {
			return nil, fmt.Errorf("disk of the raft log of %s: %w", s.Name, err)
		}
	}
	return d, nil
}

func (d *Disks) mountLoop(ctx context.Context, s *local.Server) error {
	image := filepath.Join(s.Dir, "disk.ext4")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, logBytes)); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", image},
		{"mount", "-o", "loop", image, s.Disk()},
	} {
		if err := d.do(ctx, command...); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disks) do(ctx context.Context, command ...string) error {
	_, err := d.tools.Run(ctx, tool.Cmd{Name: command[0], Args: command[1:]})
	return err
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

func hang(ctx context.Context, w *World, target *local.Server, _ *rand.Rand) (Heal, error) {
	heal := func(ctx context.Context) error {
		err := w.Disks.do(ctx, "fsfreeze", "--unfreeze", target.Disk())
		if err != nil && strings.Contains(err.Error(), "Invalid argument") {
			return nil // is not frozen
		}
		return err
	}
	return heal, w.Disks.do(ctx, "fsfreeze", "--freeze", target.Disk())
}
