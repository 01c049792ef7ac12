package btrfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kind is what stands at a path.
type kind int

const (
	kindAbsent kind = iota
	kindSubvolume
	kindDirectory
	kindOther
)

// firstFree is the inode number of the root directory of every subvolume (BTRFS_FIRST_FREE_OBJECTID), and of nothing else.
const firstFree = 256

func kindOf(path string) (kind, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return kindAbsent, nil
	case err != nil:
		return kindOther, &fs.PathError{Op: "lstat", Path: path, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return kindOther, nil
	case st.Ino == firstFree:
		return kindSubvolume, nil
	}
	return kindDirectory, nil
}

// uuid names a subvolume on all machines.
type uuid [16]byte

// subvolume is struct btrfs_ioctl_get_subvol_info_args of linux/btrfs.h.
type subvolume struct {
	ID   uint64
	Name [256]byte
	// ParentID is the subvolume that holds it, in directory Dir.
	ParentID, Dir uint64
	// Generation is that of the transaction that last changed it.
	Generation, Flags uint64
	// ParentUUID is that of which it is a snapshot, Received that of which a received one is a copy; zero if there is none.
	UUID, ParentUUID, Received uuid
	Changed, Created           uint64 // generations
	Sent, ReceivedAt           uint64
	times                      [8]uint64
	reserved                   [8]uint64
}

// The kernel's interface, of which golang.org/x/sys has no part.
const (
	getSubvolInfo = 0x81f8943c // BTRFS_IOC_GET_SUBVOL_INFO
	fsInfo        = 0x8400941f // BTRFS_IOC_FS_INFO
	flagReadOnly  = 1          // BTRFS_ROOT_SUBVOL_RDONLY
)

// readOnly: nobody can write to it but through files that were open for writing when it became so.
func (s subvolume) readOnly() bool { return s.Flags&flagReadOnly != 0 }

// subvolumeAt asks about the subvolume whose root is path: fs.ErrNotExist if there is certainly nothing. Its generation counts
// what has been written before the last flush.
func subvolumeAt(path string) (subvolume, error) {
	kind, err := kindOf(path)
	switch {
	case err != nil:
		return subvolume{}, err
	case kind == kindAbsent:
		return subvolume{}, fmt.Errorf("subvolume %s: %w", path, fs.ErrNotExist)
	case kind != kindSubvolume:
		return subvolume{}, fmt.Errorf("%s is not a subvolume: %w", path, errForeign)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return subvolume{}, err
	}
	defer f.Close()
	var s subvolume
	if err := ioctl(f, getSubvolInfo, unsafe.Pointer(&s)); err != nil {
		return subvolume{}, fmt.Errorf("subvolume %s: %w", path, err)
	}
	return s, nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// makeSubvolume makes an empty one.
func (o *op) makeSubvolume(path string) error {
	return o.tool("make subvolume "+filepath.Base(path), "btrfs", "subvolume", "create", path)
}

// deleteSubvolume is durable when it returns. The kernel frees the blocks in its own time.
func (o *op) deleteSubvolume(path string) error {
	s, err := subvolumeAt(path)
	if err != nil {
		return err
	}
	if err := o.tool("delete subvolume "+filepath.Base(path), "btrfs", "subvolume", "delete", "--commit-after", path); err != nil {
		return err
	}
	return o.dropGroup(s.ID)
}

// snapshotTo makes a snapshot at a path where nothing is, durably. It has the limit of its source, which it can hardly ever
// use, and a read-only one also says of what it is a received copy.
func (o *op) snapshotTo(step, source, path string, readOnly bool) error {
	args := []string{"subvolume", "snapshot"}
	if readOnly {
		args = append(args, "-r")
	}
	// The tool would make it within a directory that is there.
	if taken, err := there(path); err != nil {
		return err
	} else if taken {
		return fmt.Errorf("%s: %w", path, errForeign)
	}
	return o.tool(step, "btrfs", append(args, source, path)...)
}

// setReadOnly turns read-only on or off.
func (o *op) setReadOnly(path string, on bool) error {
	value := fmt.Sprint(on)
	return o.tool("set read-only "+value, "btrfs", "property", "set", "-t", "subvol", path, "ro", value)
}

// writableCopy makes a snapshot that is going to be data, without the uploads that were in progress in the source, with the
// limit of a replica of size that is sealed or not.
func (o *op) writableCopy(source, path string, size int64, sealed bool) error {
	if err := o.remove(path); err != nil {
		return err
	}
	if err := o.snapshotTo("make "+filepath.Base(path), source, path, false); err != nil {
		return err
	}
	if err := o.limit(path, unlimited); err != nil {
		return err
	}
	uploads, err := os.ReadDir(filepath.Join(source, "staging")) // in path it would change the time of the last access
	if err != nil {
		return err
	}
	for _, upload := range uploads {
		if err := o.remove(filepath.Join(path, "staging", upload.Name())); err != nil {
			return err
		}
	}
	if sealed {
		return o.seal(path)
	}
	return o.limit(path, size)
}
