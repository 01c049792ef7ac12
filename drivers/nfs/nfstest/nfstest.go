//go:build lab

// Package nfstest is the kernel's NFS client for tests in the lab: mounts made on a node of netlab, used through the file
// system that all nodes share.
package nfstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Client is one machine that mounts exports. What it has mounted once stays mounted until the test ends, so a later call
// shows what a client sees that is mounted already. It implements drivertest.Client.
type Client struct {
	t       *testing.T
	node    *netlab.Node
	options string

	mu     sync.Mutex
	mounts map[string]string // by location
}

// New returns a client on the node. version is 3, 4.0, 4.1 or 4.2; more options of nfs(5) may follow.
func New(t *testing.T, node *netlab.Node, version string, options ...string) *Client {
	list := append([]string{"vers=" + version, "soft", "timeo=100", "retrans=2", "nosharecache", "noac", "lookupcache=none"}, options...)
	return &Client{t: t, node: node, options: strings.Join(list, ","), mounts: make(map[string]string)}
}

// Mount mounts the location unless it is mounted, and returns where. Refusals are sentinels of package cairn.
func (c *Client) Mount(ctx context.Context, at cairn.ExportLocation) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dir, ok := c.mounts[at.URL]; ok {
		return dir, nil
	}
	dir, err := os.MkdirTemp("/srv", "client")
	if err != nil {
		return "", err
	}
	source, port := mountable(at.URL)
	_, err = c.node.Run(ctx, tool.Cmd{Name: "mount", Args: []string{"-t", "nfs", "-o", c.options + port, source, dir}})
	if err != nil {
		return "", errors.Join(refusal(err), os.Remove(dir))
	}
	c.mounts[at.URL] = dir
	c.t.Cleanup(func() { c.unmount(dir) })
	return dir, nil
}

// mountable is the location as mount.nfs takes it: it knows no URLs, and the port is an option.
func mountable(location string) (source, port string) {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "nfs" {
		return location, ""
	}
	return u.Hostname() + ":" + u.Path, ",port=" + u.Port()
}

func (c *Client) unmount(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := c.node.Run(ctx, tool.Cmd{Name: "umount", Args: []string{"-f", "-l", dir}}); err != nil {
		c.t.Errorf("client: %v", err)
		return
	}
	if err := os.Remove(dir); err != nil {
		c.t.Errorf("client: %v", err)
	}
}

// refusal finds out what the server has said to mount.nfs.
func refusal(err error) error {
	var exit *tool.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	for text, sentinel := range map[string]error{
		"access denied by server": cairn.ErrDenied, "Permission denied": cairn.ErrDenied, "Operation not permitted": cairn.ErrDenied,
		"No such file or directory": cairn.ErrNotFound, "Stale file handle": cairn.ErrStale,
	} {
		if strings.Contains(string(exit.Stderr), text) {
			return fmt.Errorf("%w: %w", sentinel, err)
		}
	}
	return err
}

// verdict gives an error of the file system the sentinel that the suite looks for.
func verdict(err error) error {
	for errno, sentinel := range map[syscall.Errno]error{
		syscall.EACCES: cairn.ErrDenied, syscall.EPERM: cairn.ErrDenied, syscall.EROFS: cairn.ErrDenied,
		syscall.ENOENT: cairn.ErrNotFound, syscall.ESTALE: cairn.ErrStale, syscall.ENOSPC: cairn.ErrNoSpace, syscall.EDQUOT: cairn.ErrNoSpace,
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", sentinel, err)
		}
	}
	return err
}

// Read implements drivertest.Client. Symbolic links are the client's to follow, and it does not.
func (c *Client) Read(ctx context.Context, at cairn.ExportLocation, name string) ([]byte, error) {
	dir, err := c.Mount(ctx, at)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, verdict(err)
	}
	data, err := io.ReadAll(file)
	return data, verdict(errors.Join(err, file.Close()))
}

// Write implements drivertest.Client.
func (c *Client) Write(ctx context.Context, at cairn.ExportLocation, name string, data []byte) error {
	dir, err := c.Mount(ctx, at)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return verdict(err)
	}
	_, err = file.Write(data)
	return verdict(errors.Join(err, file.Sync(), file.Close()))
}

// Begin implements drivertest.Client: the write goes to a file beside name, which is renamed when it is complete.
func (c *Client) Begin(ctx context.Context, at cairn.ExportLocation, name string, first []byte) (io.WriteCloser, error) {
	dir, err := c.Mount(ctx, at)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	file, err := os.OpenFile(path+".part", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, verdict(err)
	}
	if _, err := file.Write(first); err != nil {
		return nil, verdict(errors.Join(err, file.Close()))
	}
	return &upload{file, path}, verdict(file.Sync())
}

type upload struct {
	*os.File
	path string
}

// Close gives the server's verdict on the whole write.
func (u *upload) Close() error {
	if err := errors.Join(u.Sync(), u.File.Close()); err != nil {
		return verdict(err)
	}
	return verdict(os.Rename(u.Name(), u.path))
}

// Eventually waits for a condition, for as long as anything sane takes on an emulated processor.
func Eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(2 * time.Minute)
	for !condition() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("still not: %s", what)
		}
	}
}

// Absent reports whether a path certainly does not exist.
func Absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
