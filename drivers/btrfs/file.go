package btrfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
)

// mkdir makes a directory, or finds it there.
func (o *op) mkdir(name, path string, mode fs.FileMode) error {
	err := o.do(name, func() error { return os.Mkdir(path, mode) })
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// rename moves a directory or subvolume to a name that is free, durably: errForeign if the name is taken. The kernel moves
// no read-only subvolume to another directory. The sync is part of the step, so that no call of this process can build on a
// rename that is not durable; Open sees to those of an earlier process.
func (o *op) rename(name, from, to string) error {
	return o.renameat(name, from, to, unix.RENAME_NOREPLACE)
}

// exchange swaps two subvolumes of one directory, durably.
func (o *op) exchange(name, a, b string) error {
	return o.renameat(name, a, b, unix.RENAME_EXCHANGE)
}

func (o *op) renameat(name, from, to string, flags uint) error {
	return o.do(name, func() error {
		err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
		switch {
		case errors.Is(err, unix.EEXIST):
			return fmt.Errorf("%s: %w", to, errForeign)
		case err != nil:
			return fmt.Errorf("rename %s to %s: %w", from, to, err)
		}
		return syncDirs(filepath.Dir(from), filepath.Dir(to))
	})
}

// syncDirs makes the entries of directories durable.
func syncDirs(paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", path, err)
		}
	}
	return nil
}

// flush makes everything on the file system durable, and has it counted by quotas and generations. It is no step: it changes
// nothing that anybody sees.
func (o *op) flush() error {
	if err := o.ctx.Err(); err != nil {
		return err
	}
	if err := unix.Syncfs(int(o.dir.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}

// there reports whether anything is at path.
func there(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// remove removes the subvolume or directory at path, or nothing. A subvolume goes as a whole.
func (o *op) remove(path string) error {
	kind, err := kindOf(path)
	switch {
	case err != nil || kind == kindAbsent:
		return err
	case kind == kindSubvolume:
		return o.deleteSubvolume(path)
	}
	if _, err := o.survey(path); err != nil {
		return err
	}
	return o.do("remove directory "+filepath.Base(path), func() error {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		return syncDirs(filepath.Dir(path))
	})
}

// inode is the identity of a file with several names.
type inode struct{ device, number uint64 }

// survey adds up the bytes that the files of a tree appear to have, each file once. Another subvolume or file system within
// is cairn.ErrInUse: it would be lost by a copy, and destroyed by a removal.
func (o *op) survey(root string) (used int64, err error) {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return 0, &fs.PathError{Op: "lstat", Path: root, Err: err}
	}
	seen := make(map[inode]bool)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = o.ctx.Err()
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); errors.Is(err, unix.ENOENT) {
			return nil // a client removed it during the walk
		} else if err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Dev != top.Dev {
			return fmt.Errorf("%s: another subvolume or file system is there: %w", path, cairn.ErrInUse)
		}
		key := inode{st.Dev, st.Ino}
		if d.Type().IsRegular() && !seen[key] {
			seen[key] = st.Nlink > 1
			used += st.Size
		}
		return nil
	})
	return used, err
}
