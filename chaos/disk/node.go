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

// Open implements fs.NodeOpener.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	file, err := os.OpenFile(n.path(), int(flags)&^(syscall.O_APPEND|syscall.O_CREAT|syscall.O_EXCL), 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	return n.handle(file), 0, 0
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

// Setattr implements fs.NodeSetattrer. What is cut off is lost at once: nobody here relies on the opposite.
func (n *node) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := n.disk.suffer(); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
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

// handle is an open file.
type handle struct {
	*fs.LoopbackFile
	file *os.File
	disk *Disk
}

// Write implements fs.FileWriter.
func (h *handle) Write(ctx context.Context, data []byte, at int64) (uint32, syscall.Errno) {
	if errno := h.disk.suffer(); errno != 0 {
		return 0, errno
	}
	if err := h.disk.writing(h.file, data, at); err != nil {
		return 0, fs.ToErrno(err)
	}
	return h.LoopbackFile.Write(ctx, data, at)
}

// Fsync implements fs.FileFsyncer.
func (h *handle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	if errno := h.disk.suffer(); errno != 0 {
		return errno
	}
	return fs.ToErrno(h.disk.synced(h.file))
}

// Allocate implements fs.FileAllocater.
func (h *handle) Allocate(ctx context.Context, at, size uint64, mode uint32) syscall.Errno {
	if errno := h.disk.suffer(); errno != 0 {
		return errno
	}
	return h.LoopbackFile.Allocate(ctx, at, size, mode)
}

// PassthroughFd implements fs.FilePassthroughFder: the kernel must not write past us.
func (h *handle) PassthroughFd() (int, bool) { return 0, false }

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	inner, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &directory{inner.(directoryHandle), n}, fuseFlags, 0 // what it is made of has all of that
}

type directoryHandle interface {
	fs.FileReaddirenter
	fs.FileReleasedirer
	fs.FileSeekdirer
}

// directory is an open directory.
type directory struct {
	directoryHandle
	node *node
}

// Fsyncdir implements fs.FileFsyncdirer.
func (d *directory) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.node.Fsync(ctx, nil, flags)
}
