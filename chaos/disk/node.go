package disk

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or directory of the disk.
type node struct {
	*fs.LoopbackNode
	disk *Disk
}

// WrapChild implements fs.NodeWrapChilder.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: ops.(*fs.LoopbackNode), disk: n.disk}
}

func (n *node) path() string { return filepath.Join(n.RootData.Path, n.Path(n.Root())) }

// stale is the error of what was done to a node by its path. The kernel has found the node; if there is nothing, it was renamed or replaced
// meanwhile. That is not "absent": told ESTALE, the kernel looks for the name again.
func stale(errno syscall.Errno) syscall.Errno {
	if errno == syscall.ENOENT {
		return syscall.ESTALE
	}
	return errno
}

// Lookup implements fs.NodeLookuper. A directory that is not where this node is thought to be tells nothing of what is in it.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	inode, errno := n.LoopbackNode.Lookup(ctx, name, out)
	if errno != syscall.ENOENT || n.IsRoot() {
		return inode, errno
	}
	var stat syscall.Stat_t
	if err := syscall.Lstat(n.path(), &stat); err != nil || stat.Ino != n.StableAttr().Ino {
		return nil, syscall.ESTALE
	}
	return nil, errno
}

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return stale(n.LoopbackNode.Getattr(ctx, f, out))
}

// Open implements fs.NodeOpener.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	file, err := os.OpenFile(n.path(), int(flags)&^(syscall.O_APPEND|syscall.O_CREAT|syscall.O_EXCL), 0)
	if err != nil {
		return nil, 0, stale(fs.ToErrno(err))
	}
	return n.handle(file), 0, 0
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	inner, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, stale(errno)
	}
	return &directory{inner.(directoryHandle), n}, fuseFlags, 0 // what it is made of has all of that
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.disk.suffer(); errno != 0 {
		return nil, nil, 0, errno
	}
	inode, handle, _, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	child := inode.Operations().(*node) // WrapChild makes no other
	if closer, ok := handle.(fs.FileReleaser); ok {
		closer.Release(ctx)
	}
	file, err := os.OpenFile(filepath.Join(n.path(), name), int(flags)&syscall.O_ACCMODE, 0)
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	return inode, child.handle(file), 0, 0
}

func (n *node) handle(file *os.File) *handle {
	return &handle{LoopbackFile: fs.NewLoopbackFileFromOS(file), file: file, disk: n.disk}
}

// Mkdir implements fs.NodeMkdirer.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.disk.suffer(); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

// Rmdir implements fs.NodeRmdirer.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

// Rename implements fs.NodeRenamer.
func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, parent, to, flags)
}

// Symlink implements fs.NodeSymlinker.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.disk.suffer(); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Symlink(ctx, target, name, out)
}

// Link implements fs.NodeLinker.
func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.disk.suffer(); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Link(ctx, target, name, out)
}

// Mknod implements fs.NodeMknoder.
func (n *node) Mknod(ctx context.Context, name string, mode, device uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.disk.suffer(); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mknod(ctx, name, mode, device, out)
}

// Setxattr implements fs.NodeSetxattrer.
func (n *node) Setxattr(ctx context.Context, name string, value []byte, flags uint32) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	return stale(n.LoopbackNode.Setxattr(ctx, name, value, flags))
}

// Removexattr implements fs.NodeRemovexattrer.
func (n *node) Removexattr(ctx context.Context, name string) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	return stale(n.LoopbackNode.Removexattr(ctx, name))
}

// Setattr implements fs.NodeSetattrer. What is cut off is lost at once: nobody here relies on the opposite.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	return stale(n.LoopbackNode.Setattr(ctx, f, in, out))
}

// Fsync implements fs.NodeFsyncer, of files and directories.
func (n *node) Fsync(ctx context.Context, f fs.FileHandle, _ uint32) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	if h, ok := f.(*handle); ok {
		return fs.ToErrno(n.disk.synced(h.file))
	}
	dir, err := os.Open(n.path())
	if err != nil {
		return fs.ToErrno(err)
	}
	defer dir.Close()
	return fs.ToErrno(dir.Sync())
}
