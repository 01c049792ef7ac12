package nfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// kernel is the NFS server of the machine: its tools and its files.
type kernel struct {
	nfsd string // /proc/fs/nfsd
	run  tool.Runner
}

// check reports what is missing before anybody can be served.
func (k kernel) check(ctx context.Context) error {
	const start = "start it (systemctl start nfs-server, or rpcbind, rpc.mountd and rpc.nfsd)"
	threads, err := os.ReadFile(filepath.Join(k.nfsd, "threads"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the NFS server does not run: %s is not mounted; %s: %w", k.nfsd, start, cairn.ErrUnavailable)
	case err != nil:
		return err
	case strings.TrimSpace(string(threads)) == "0":
		return fmt.Errorf("the NFS server does not run: it has no threads; %s: %w", start, cairn.ErrUnavailable)
	}
	if daemons, err := mountds(ctx); err != nil {
		return err
	} else if len(daemons) == 0 {
		return fmt.Errorf("rpc.mountd does not run, and the NFS server asks it about every client; %s: %w", start, cairn.ErrUnavailable)
	}
	return nil
}

// mountds finds the daemons that answer the server's questions, as directories of /proc, in our network namespace: each has a
// server of its own.
func mountds(ctx context.Context) ([]string, error) {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, process := range processes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		comm, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil {
			continue // it has ended meanwhile
		}
		if daemon := strings.TrimSpace(string(comm)); daemon != "rpc.mountd" && daemon != "nfsv4.exportd" {
			continue
		}
		if theirs, err := os.Readlink(filepath.Join(process, "ns/net")); err == nil && theirs == ours {
			found = append(found, process)
		}
	}
	return found, nil
}

// seen returns nil if the daemons see the mount: one in another mount namespace may not.
func (k kernel) seen(ctx context.Context, path string, on device) error {
	daemons, err := mountds(ctx)
	if err != nil {
		return err
	}
	for _, process := range daemons {
		mounts, err := readMounts(filepath.Join(process, "mountinfo"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if mounts[path].device != on {
			return fmt.Errorf("rpc.mountd does not see what is mounted on %s: Cairn and the NFS server must share a mount namespace (no PrivateMounts, PrivateTmp or ProtectSystem in the unit): %w", path, cairn.ErrUnavailable)
		}
	}
	return nil
}

func (k kernel) table(ctx context.Context, root string) (table, error) {
	result, err := k.run.Run(ctx, tool.Cmd{Name: "exportfs", Args: []string{"-s"}})
	if err != nil {
		return nil, err
	}
	return parse(result.Stdout, root)
}

// apply makes the table below root the wanted one. exportfs ends with 0 after some failures, and with 1 after taking away
// what was gone, so only the table says whether it is done.
func (k kernel) apply(ctx context.Context, root string, want table) (changed bool, err error) {
	have, err := k.table(ctx, root)
	if err != nil {
		return false, err
	}
	todo := changes(have, want)
	if len(todo) == 0 {
		return false, nil
	}
	var said []error
	for _, c := range todo {
		cmd := tool.Cmd{Name: "exportfs", Args: c.args()}
		result, err := k.run.Run(ctx, cmd)
		if ctx.Err() != nil {
			return true, err
		}
		if err == nil && len(result.Stderr) > 0 {
			err = fmt.Errorf("%s: %s", cmd, bytes.TrimSpace(result.Stderr))
		}
		said = append(said, err)
	}
	if have, err = k.table(ctx, root); err != nil {
		return true, err
	}
	if len(changes(have, want)) > 0 {
		return true, fmt.Errorf("exportfs has not taken the rules: %w: %w", cairn.ErrUnavailable, errors.Join(said...))
	}
	return true, nil
}

// caches are what the server remembers of the answers of rpc.mountd.
var caches = [...]string{"auth.unix.ip", "auth.unix.gid", "nfsd.fh", "nfsd.export"}

// flush makes the server forget what rpc.mountd has told it, and close the files that it keeps open between requests. It is
// what "exportfs -f" does.
func (k kernel) flush(ctx context.Context) error {
	return within(ctx, func() error {
		until := strconv.FormatInt(time.Now().Unix()+1, 10) // old kernels want the time, new ones only a number
		for _, cache := range caches {
			if err := put(filepath.Join("/proc/net/rpc", cache, "flush"), until); err != nil {
				return err
			}
		}
		return nil
	})
}

// flushable reports whether a flush would take place at once. What is flushed is not used any more in any case. But the
// kernel counts flushes in seconds, gives each a second of its own, and sweeps when that has come: after many flushes in
// a row mounts stay busy for as many seconds, and one more flush would only add to them.
func (k kernel) flushable() (bool, error) {
	for _, cache := range caches {
		text, err := os.ReadFile(filepath.Join("/proc/net/rpc", cache, "flush"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return false, err
		}
		last, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return false, fmt.Errorf("%s: time of the last flush: %w", cache, err)
		}
		if time.Now().Unix() < last+2 { // both are rounded down
			return false, nil
		}
	}
	return true, nil
}

func (k kernel) bind(ctx context.Context, root, path string) error {
	_, err := k.run.Run(ctx, tool.Cmd{Name: "mount", Args: []string{"--bind", root, path}})
	return err
}

func (k kernel) mounted(path string) (*mount, error) {
	mounts, err := readMounts(ownMounts)
	if err != nil {
		return nil, err
	}
	if m, ok := mounts[path]; ok {
		return &m, nil
	}
	return nil, nil
}

// release unmounts path, and returns when it is not mounted: then no request is in progress and no client holds anything.
// Nobody is authorised for path any more.
func (k kernel) release(ctx context.Context, path string) error {
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		mounts, err := readMounts(ownMounts)
		if err != nil {
			return err
		}
		m, ok := mounts[path]
		if !ok {
			return nil
		}
		_, busy := k.run.Run(ctx, tool.Cmd{Name: "umount", Args: []string{"-i", deepest(mounts, path)}})
		switch {
		case busy == nil:
			continue // another mount may be below
		case ctx.Err() != nil:
			return errBusy(path, ctx, busy)
		case !isBusy(busy):
			return busy
		}
		if err := k.drop(ctx, path, m.device); err != nil {
			return err
		}
		if ready, err := k.flushable(); err != nil {
			return err
		} else if ready {
			if err := k.flush(ctx); err != nil {
				return err
			}
		}
		if wait(ctx, pause) != nil {
			return errBusy(path, ctx, busy)
		}
	}
}

func isBusy(err error) bool {
	var exit *tool.ExitError
	return errors.As(err, &exit) && exit.Code == 32 && bytes.Contains(exit.Stderr, []byte("target is busy"))
}

// drop takes from clients what keeps the file system busy: locks of NFSv3, and, of those that have state of NFSv4 on it, the
// lease, unless the kernel has revoked that state already (6.9 and later).
func (k kernel) drop(ctx context.Context, path string, on device) error {
	return within(ctx, func() error {
		if err := put(filepath.Join(k.nfsd, "unlock_filesystem"), path+"\n"); err != nil {
			return err
		}
		clients, err := filepath.Glob(filepath.Join(k.nfsd, "clients/*/states"))
		if err != nil {
			return err
		}
		for _, states := range clients {
			text, err := os.ReadFile(states)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
			if !bytes.Contains(text, []byte(on.inStates())) {
				continue
			}
			if err := put(filepath.Join(filepath.Dir(states), "ctl"), "expire\n"); err != nil {
				return err
			}
		}
		return nil
	})
}

// put writes to a file of the server. One that is gone, with the server or the client that it stood for, needs nothing.
func put(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if closing := file.Close(); err == nil {
		err = closing
	}
	return err
}

func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// within does what may hang with a disk, in a goroutine that ends when it does. The caller gets away when ctx ends.
func within(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("kernel does not answer: %w: %w", cairn.ErrTimeout, context.Cause(ctx))
	}
}
