package nfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// Subvolumes are what a Ganesha that was built without libbtrfsutil, as Debian's is, does not see for itself: it serves what the list of
// mounts has, and of that the program reads /etc/mtab. Here that is a file, with the data of every replica as if it were mounted.
type Subvolumes struct {
	pools []string
	stop  context.CancelFunc
	group sync.WaitGroup
	err   error
}

// listEvery is how old the list may be: a replica is made, and Ganesha told to serve it, in little more.
const listEvery = 10 * time.Millisecond

// ListSubvolumes keeps the list for pools on btrfs. It puts a copy of /etc, in dir, in the place of /etc, so the mount namespace has to be
// of the caller's own making.
func ListSubvolumes(ctx context.Context, dir string, pools []string) (*Subvolumes, error) {
	if _, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: "cp", Args: []string{"-a", "/etc/.", dir}}); err != nil {
		return nil, fmt.Errorf("copy of /etc: %w", err)
	}
	if err := syscall.Mount(dir, "/etc", "", syscall.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("private /etc: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("list of mounts: %w", err)
	}
	s := &Subvolumes{pools: pools}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.group.Go(func() { s.err = s.keep(ctx, string(mounts)) })
	return s, nil
}

// Close ends it, and says what has gone wrong.
func (s *Subvolumes) Close() error {
	s.stop()
	s.group.Wait()
	return errors.Join(s.err, syscall.Unmount("/etc", syscall.MNT_DETACH))
}

func (s *Subvolumes) keep(ctx context.Context, mounts string) error {
	ticker := time.NewTicker(listEvery)
	defer ticker.Stop()
	for last := ""; ctx.Err() == nil; {
		var text strings.Builder
		text.WriteString(mounts)
		for _, pool := range s.pools {
			found, err := filepath.Glob(filepath.Join(pool, "*", "data"))
			if err != nil {
				return err
			}
			for _, dir := range found {
				fmt.Fprintf(&text, "none %s btrfs rw 0 0\n", dir)
			}
		}
		if text.String() != last {
			last = text.String()
			if err := errors.Join(os.WriteFile("/etc/mtab.new", []byte(last), 0o644), os.Rename("/etc/mtab.new", "/etc/mtab")); err != nil {
				return fmt.Errorf("list of subvolumes: %w", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	return nil
}
