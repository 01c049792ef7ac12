// Package disk puts a directory behind a file system in user space that fails on demand, as a disk does: it becomes slow, it
// hangs, it refuses to write, and it loses what was written and not synced when power fails, or tears the last write. Reads of
// what is there are answered throughout, as from a cache, unless a page of it is just being written.
//
// The process that mounts a disk answers for it, so it had better not use it: were it killed while one of its threads waits for an answer, it
// would not end, and neither would the mount. It reads below instead.
//
// It knows nothing of what is stored there. It needs root and /dev/fuse. What it loses is data of files: directories are kept as
// they are, and syncfs is not seen, because the kernel does not tell a file system in user space of it: it neither waits nor fails. What
// depends on those is tested on images of a real file system. Nor are there ioctls, and with them project quotas and FICLONE;
// files without a name (O_TMPFILE); and times of access, which are as the directory below keeps them.
package disk

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Fault is what happens to everything that changes the disk. The zero value is a healthy one.
type Fault struct {
	Delay time.Duration // of every change
	Hang  bool          // changes wait until another fault is set, or none
	Err   syscall.Errno // what changes fail with
}

// Disk is one directory behind a mount point. It is safe for concurrent use.
type Disk struct {
	server *fuse.Server

	mu      sync.Mutex
	fault   Fault
	changed chan struct{}        // closed when there is another fault
	dirty   map[uint64]*unsynced // nil: nothing is ever lost
}

// Mount shows the directory backing at the directory at, which must both be there.
func Mount(backing, at string) (*Disk, error) {
	return show(&Disk{changed: make(chan struct{}), dirty: map[uint64]*unsynced{}}, backing, at)
}

// MountLasting is Mount for a disk that never loses anything: what writes replace is not kept, however much of it is never synced, or by
// syncfs alone.
func MountLasting(backing, at string) (*Disk, error) {
	return show(&Disk{changed: make(chan struct{})}, backing, at)
}

func show(d *Disk, backing, at string) (*Disk, error) {
	var stat syscall.Stat_t
	if err := syscall.Stat(backing, &stat); err != nil {
		return nil, fmt.Errorf("disk %s: %w", backing, err)
	}
	root := &fs.LoopbackRoot{Path: backing, Dev: stat.Dev}
	top := &node{LoopbackNode: &fs.LoopbackNode{RootData: root}, disk: d}
	root.RootNode = top
	server, err := fs.Mount(at, top, &fs.Options{
		MountOptions:    fuse.MountOptions{DirectMountStrict: true, FsName: backing, Name: "cairn-disk", MaxWrite: 1 << 20},
		NullPermissions: true,
	})
	if err != nil {
		return nil, fmt.Errorf("disk %s: mount: %w", at, err)
	}
	d.server = server
	return d, nil
}

// Set injects a fault in place of the one before; the zero Fault heals the disk. What hung then goes on as the new fault says.
func (d *Disk) Set(fault Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
	close(d.changed)
	d.changed = make(chan struct{})
}

// Close heals the disk and takes the mount away. Nobody may use it any more.
func (d *Disk) Close() error {
	d.Set(Fault{})
	if err := d.server.Unmount(); err != nil {
		return fmt.Errorf("disk: unmount: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ino, u := range d.dirty {
		_ = u.file.Close() // everything stays as it was written
		delete(d.dirty, ino)
	}
	return nil
}

// suffer is what every change goes through first. As with a real disk no signal to the caller ends it.
func (d *Disk) suffer() syscall.Errno {
	for {
		d.mu.Lock()
		fault, changed := d.fault, d.changed
		d.mu.Unlock()
		if fault.Err != 0 {
			return fault.Err
		}
		var over <-chan time.Time
		if !fault.Hang {
			if fault.Delay == 0 {
				return 0
			}
			over = time.After(fault.Delay)
		}
		select {
		case <-over:
			return 0
		case <-changed:
		}
	}
}
