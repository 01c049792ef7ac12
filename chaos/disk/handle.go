package disk

import (
	"bytes"
	"context"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
)

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

// Writev implements fs.FileWritever: what comes in pieces is one write.
func (h *handle) Writev(ctx context.Context, data [][]byte, at int64) (uint32, syscall.Errno) {
	return h.Write(ctx, bytes.Join(data, nil), at)
}

// Ioctl implements fs.FileIoctler: there are none, since nothing tells those that change something.
func (h *handle) Ioctl(context.Context, uint32, uint64, []byte, []byte) (int32, syscall.Errno) {
	return 0, syscall.ENOTTY
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
