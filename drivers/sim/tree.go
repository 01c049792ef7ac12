package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// node is one entry of a tree, with everything that a copy keeps. Owners are not: that takes privilege.
type node struct {
	Path   string // "" for the root
	Mode   uint32
	Mtime  [2]int64 // seconds, nanoseconds
	Target string   // of a symbolic link
	Same   string   // the path of the first name of a file with several
	Linked bool     // whether it is one more name
	Data   []byte
	Attrs  [][2]string
}

// pack reads a tree, parents before what is in them.
func pack(root string, skip func(string) (skipped, mounted bool)) ([]node, error) {
	var nodes []node
	first := make(map[uint64]string)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		skipped, mounted := skip(path)
		if mounted {
			nodes = append(nodes, node{Path: path[len(root):], Mode: unix.S_IFDIR | 0o755})
		}
		if skipped {
			return skipEntry(entry)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		n := node{Path: path[len(root):], Mode: st.Mode, Mtime: [2]int64{st.Mtim.Sec, st.Mtim.Nsec}}
		n.Same, n.Linked = first[st.Ino]
		first[st.Ino] = n.Path
		if !n.Linked {
			err = n.read(path)
		}
		nodes = append(nodes, n)
		return err
	})
	return nodes, err
}

func (n *node) read(path string) (err error) {
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Data, err = os.ReadFile(path)
	case unix.S_IFLNK:
		n.Target, err = os.Readlink(path)
		return err
	case unix.S_IFDIR, unix.S_IFIFO:
	default:
		return unknown("%s, which is a device or a socket", path)
	}
	if err == nil {
		n.Attrs, err = attributes(path)
	}
	return err
}

// attributes are the extended attributes of users, in order.
func attributes(path string) ([][2]string, error) {
	list := make([]byte, 4096)
	length, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var attrs [][2]string
	for name := range strings.SplitSeq(string(list[:length]), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, [2]string{name, string(value[:n])})
	}
	return attrs, nil
}

// unpack makes a tree. root must not exist.
func unpack(nodes []node, root string) error {
	for _, n := range nodes {
		if err := n.write(root); err != nil {
			return fmt.Errorf("sim: copy: %w", err)
		}
	}
	for i := len(nodes) - 1; i >= 0; i-- { // the deepest first: what is put into a directory changes its time
		if err := nodes[i].finish(root + nodes[i].Path); err != nil {
			return fmt.Errorf("sim: copy: %w", err)
		}
	}
	return nil
}

func (n node) write(root string) error {
	to := root + n.Path
	if n.Linked {
		return os.Link(root+n.Same, to)
	}
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return os.Mkdir(to, 0o700)
	case unix.S_IFLNK:
		return os.Symlink(n.Target, to)
	case unix.S_IFIFO:
		return unix.Mkfifo(to, 0o600)
	}
	return os.WriteFile(to, n.Data, 0o600)
}

// finish gives a copy its attributes, its mode and its time.
func (n node) finish(to string) error {
	for _, attr := range n.Attrs {
		if err := unix.Lsetxattr(to, attr[0], []byte(attr[1]), 0); err != nil {
			return err
		}
	}
	if n.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, n.Mode&0o7777); err != nil {
			return err
		}
	}
	mtime := unix.Timespec{Sec: n.Mtime[0], Nsec: n.Mtime[1]}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyTree copies a tree. to must not exist.
func copyTree(from, to string, skip func(string) (skipped, mounted bool)) error {
	nodes, err := pack(from, skip)
	if err != nil {
		return fmt.Errorf("sim: copy: %w", err)
	}
	return unpack(nodes, to)
}

// removeTree removes a tree, closed directories included. Of what is not there it succeeds.
func removeTree(root string) error {
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(root)
}

// all skips nothing.
func all(string) (skipped, mounted bool) { return false, false }

func skipEntry(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}
