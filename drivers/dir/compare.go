package dir

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// node is one name in a tree. first is the first name of its file in the order of the walk: a file with several names has
// the same first everywhere.
type node struct {
	path  string // relative; "." is the root
	first string
	stat  unix.Stat_t
}

func (n *node) is(kind uint32) bool { return n.stat.Mode&unix.S_IFMT == kind }

// walkTree calls visit for every name in a tree, parents before children, in order.
func walkTree(ctx context.Context, root string, visit func(*node) error) error {
	firsts := make(map[inode]string)
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		n := &node{path: strings.TrimPrefix(path[len(root):], "/")}
		if n.path == "" {
			n.path = "."
		}
		if err := unix.Lstat(path, &n.stat); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		n.first = n.path
		if n.stat.Nlink > 1 && !n.is(unix.S_IFDIR) {
			key := inode{n.stat.Dev, n.stat.Ino}
			if first, seen := firsts[key]; seen {
				n.first = first
			} else {
				firsts[key] = n.path
			}
		}
		return visit(n)
	})
}

// treeMap has every name of a tree.
func treeMap(ctx context.Context, root string) (map[string]*node, error) {
	nodes := make(map[string]*node)
	err := walkTree(ctx, root, func(n *node) error {
		nodes[n.path] = n
		return nil
	})
	return nodes, err
}

// comparison tells what differs between a tree and its base. The maps say what the files of each were, where that is known:
// a file that was the same one on both sides need not be read.
type comparison struct {
	tree, base           string
	treeFiles, baseFiles map[string]ident
	old                  map[string]*node
}

// load looks at the base.
func (c *comparison) load(ctx context.Context) (err error) {
	c.old, err = treeMap(ctx, c.base)
	return err
}

// same reports whether a node of the tree is certainly in the base, too: name, attributes and contents.
func (c *comparison) same(ctx context.Context, n *node) (bool, error) {
	before := c.old[n.path]
	if before == nil || !sameAttributes(n, before) {
		return false, nil
	}
	x, y := filepath.Join(c.tree, n.path), filepath.Join(c.base, n.path)
	switch n.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if n.stat.Size != before.stat.Size {
			return false, nil
		}
		now, known := c.treeFiles[n.path]
		then, knew := c.baseFiles[n.path]
		if known && knew && now == then || n.stat.Dev == before.stat.Dev && n.stat.Ino == before.stat.Ino {
			return true, nil
		}
		return sameContents(ctx, x, y)
	case unix.S_IFLNK:
		now, err := os.Readlink(x)
		if err != nil {
			return false, err
		}
		then, err := os.Readlink(y)
		return now == then, err
	}
	return n.is(unix.S_IFDIR) || n.stat.Rdev == before.stat.Rdev, nil
}

func sameAttributes(a, b *node) bool {
	return a.stat.Mode == b.stat.Mode && a.stat.Uid == b.stat.Uid && a.stat.Gid == b.stat.Gid && a.stat.Mtim == b.stat.Mtim && a.first == b.first
}

// changes counts the bytes of files that are not the same; a name that is gone, and anything else that is not the same,
// counts as one. 0 is: the trees are the same.
func (c *comparison) changes(ctx context.Context) (int64, error) {
	if err := c.load(ctx); err != nil {
		return 0, err
	}
	var bytes, names int64
	err := walkTree(ctx, c.tree, func(n *node) error {
		names++
		same, err := c.same(ctx, n)
		if err != nil || same {
			return err
		}
		bytes++
		if n.is(unix.S_IFREG) {
			bytes += n.stat.Size
		}
		return nil
	})
	return bytes + max(0, int64(len(c.old))-names), err
}
