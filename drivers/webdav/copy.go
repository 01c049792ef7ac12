package webdav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// copyChunk is how much is copied between two looks at the context and the room. The kernel copies it (copy_file_range),
// sharing blocks where the file system can.
const copyChunk = 16 << 20

// copier copies a file or tree of a share into its staging directory.
type copier struct {
	ctx      context.Context
	from, to *os.Root
	disk     disk
	deep     bool // with what is in a directory
	room     *reservation
	isTree   bool
}

func (c *copier) copy(src, dst string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	info, err := c.from.Lstat(src)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return c.copyDir(src, dst, info)
	case 0:
		return c.copyFile(src, dst, info)
	case fs.ModeSymlink:
		target, err := c.from.Readlink(src)
		if err != nil {
			return err
		}
		return c.to.Symlink(target, dst)
	}
	return errNotAFile()
}

func (c *copier) copyDir(src, dst string, info fs.FileInfo) error {
	c.isTree = true
	if err := c.to.Mkdir(dst, info.Mode().Perm()|0o700); err != nil || !c.deep {
		return err
	}
	dir, err := c.from.Open(src)
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, entry := range entries {
		if err := c.copy(path.Join(src, entry.Name()), path.Join(dst, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) copyFile(src, dst string, info fs.FileInfo) error {
	in, _, err := readable(c.from, src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.to.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	err = c.copyBytes(out, in, info.Size())
	// failpoint: file-copied
	if err == nil && !c.isTree {
		err = c.disk.sync(out)
	}
	return errors.Join(err, out.Close())
}

// copyBytes copies what the file held when it was looked at.
func (c *copier) copyBytes(out *os.File, in *os.File, size int64) error {
	for left := size; left > 0; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		chunk := min(left, copyChunk)
		if err := c.room.grow(chunk); err != nil {
			return err
		}
		n, err := io.CopyN(out, in, chunk)
		if errors.Is(err, io.EOF) {
			return c.room.grow(n - chunk) // it has become shorter
		} else if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// sync makes the copy durable, a tree by one call for the whole file system: one for each of its files would take longer.
func (c *copier) sync(en entry) error {
	if !c.isTree {
		return nil // the file has been
	}
	// failpoint: tree-copied
	if err := c.disk.syncAll(en.dir); err != nil {
		return fmt.Errorf("sync copy: %w", err)
	}
	return nil
}
