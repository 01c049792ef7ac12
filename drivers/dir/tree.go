package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
)

// copyWorkers copy files at the same time. A small file costs a dozen system calls and no bandwidth, so a few more than
// there are disks or cores keep both busy.
const copyWorkers = 8

// inode is the identity of a file with several names.
type inode struct{ device, number uint64 }

// entry is something in a tree: where it is, where its copy goes, and what it was when the walk saw it.
type entry struct {
	from, to string
	stat     unix.Stat_t
}

// copier copies one tree.
type copier struct {
	*op
	project project // of the copy
	files   chan entry
	dirs    []entry          // parents before children
	links   []entry          // further names: from is the copy that has the first one
	inodes  map[inode]string // the copy of a file that has several names
}

// copyTree copies the directory src to dst, which does not exist: contents, modes, owners (if privileged), times, symbolic
// links, hard links within the tree, user.* attributes and holes. All of it belongs to project p. Nothing in it is durable
// before the next syncAll.
func (o *op) copyTree(src, dst string, p project) error {
	c := &copier{op: o, project: p, files: make(chan entry, 4*copyWorkers), inodes: make(map[inode]string)}
	group, ctx := errgroup.WithContext(o.ctx)
	workers := &op{Pool: o.Pool, ctx: ctx, id: o.id}
	for range copyWorkers {
		group.Go(func() error {
			for e := range c.files {
				if err := workers.do("copy file", func() error { return workers.copyFile(e) }); err != nil {
					return fmt.Errorf("copy %s: %w", e.from, err)
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(c.files)
		return filepath.WalkDir(src, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return c.visit(workers, path, dst+path[len(src):])
		})
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return c.finish()
}

// visit copies what is not a regular file, and hands out what is.
func (c *copier) visit(o *op, from, to string) error {
	e := entry{from: from, to: to}
	if err := unix.Lstat(from, &e.stat); err != nil {
		return &fs.PathError{Op: "lstat", Path: from, Err: err}
	}
	kind := e.stat.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		if err := o.checkDevice(e); err != nil {
			return err
		}
		c.dirs = append(c.dirs, e)
		return o.do("copy directory", func() error { return makeDir(to, 0o700, c.project) })
	}
	if e.stat.Nlink > 1 {
		key := inode{e.stat.Dev, e.stat.Ino}
		if first, seen := c.inodes[key]; seen {
			e.from = first
			c.links = append(c.links, e)
			return nil
		}
		c.inodes[key] = to
	}
	if kind != unix.S_IFREG {
		return o.do("copy special file", func() error { return copySpecial(e) })
	}
	select {
	case c.files <- e:
		return nil
	case <-o.ctx.Done():
		return o.ctx.Err()
	}
}

// finish makes the links, whose files are there now, and gives the directories their attributes, which must wait until
// nothing is created in them any more.
func (c *copier) finish() error {
	for _, e := range c.links {
		if err := c.do("copy link", func() error { return os.Link(e.from, e.to) }); err != nil {
			return err
		}
	}
	for _, e := range slices.Backward(c.dirs) {
		if err := c.do("finish directory", func() error { return copyAttributes(e) }); err != nil {
			return fmt.Errorf("copy attributes of %s: %w", e.from, err)
		}
	}
	return nil
}

// checkDevice refuses to cross into another file system that somebody mounted inside a replica.
func (o *op) checkDevice(e entry) error {
	if e.stat.Dev != o.device {
		return fmt.Errorf("%s: another file system is mounted there: %w", e.from, cairn.ErrInUse)
	}
	return nil
}

// removeTree removes whatever is at path, or nothing. It gives directories back the permission to be emptied, and does not
// cross into other file systems.
func (o *op) removeTree(path string) error {
	e := entry{from: path}
	if err := unix.Lstat(path, &e.stat); errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	if e.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return o.do("remove file", func() error { return os.Remove(path) })
	}
	if err := o.checkDevice(e); err != nil {
		return err
	}
	if e.stat.Mode&0o700 != 0o700 {
		if err := o.do("make removable", func() error { return os.Chmod(path, 0o700) }); err != nil {
			return err
		}
	}
	if err := o.removeBelow(path); err != nil {
		return err
	}
	return o.do("remove directory", func() error { return os.Remove(path) })
}

// removeBelow empties a directory.
func (o *op) removeBelow(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, child := range entries {
		childPath := filepath.Join(path, child.Name())
		if child.IsDir() {
			err = o.removeTree(childPath)
		} else {
			err = o.do("remove file", func() error { return os.Remove(childPath) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// usage adds up the bytes that the files of a tree appear to have, each file once.
func (o *op) usage(root string) (int64, error) {
	var used int64
	seen := make(map[inode]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = o.ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); errors.Is(err, unix.ENOENT) {
			return nil // a client removed it during the walk
		} else if err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		key := inode{st.Dev, st.Ino}
		if st.Nlink > 1 && seen[key] {
			return nil
		}
		if st.Nlink > 1 {
			seen[key] = true
		}
		used += st.Size
		return nil
	})
	return used, err
}
