package nfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
)

// device tells file systems apart.
type device struct{ major, minor uint32 }

// inStates is how /proc/fs/nfsd/clients/*/states names a file system.
func (d device) inStates() string { return fmt.Sprintf(`superblock: "%02x:%02x:`, d.major, d.minor) }

// mount is a line of mountinfo.
type mount struct {
	id     uint64
	device device
	root   string // the directory of the file system that is mounted; "/" is all of it
	point  string
}

// deepest is a mount point below path, or path itself, that nothing is mounted below.
func deepest(mounts map[string]mount, path string) string {
	last := path
	for point := range mounts {
		if strings.HasPrefix(point, path+"/") && len(point) > len(last) {
			last = point
		}
	}
	return last
}

// setApart keeps what is mounted below other mounts of the same file system from appearing below this one, which could not be
// unmounted then: ZFS mounts a snapshot below the mount point of its dataset, and takes it away after minutes.
func setApart(point string) error {
	if err := unix.Mount("", point, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%s: set apart from other mounts: %w", point, err)
	}
	return nil
}

const ownMounts = "/proc/self/mountinfo"

// readMounts reads the mounts of a process by mount point; where several are stacked, the one on top.
func readMounts(mountinfo string) (map[string]mount, error) {
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, err
	}
	return parseMounts(string(text))
}

func parseMounts(text string) (map[string]mount, error) {
	mounts := make(map[string]mount)
	for _, row := range strings.Split(strings.TrimSpace(text), "\n") {
		m, err := parseMount(row)
		if err != nil {
			return nil, fmt.Errorf("mountinfo: %q: %w", row, err)
		}
		mounts[m.point] = m
	}
	return mounts, nil
}

func parseMount(row string) (m mount, err error) {
	fields := strings.Fields(row)
	if len(fields) < 5 {
		return mount{}, errors.New("want five fields or more")
	}
	if m.id, err = strconv.ParseUint(fields[0], 10, 64); err != nil {
		return mount{}, err
	}
	if _, err := fmt.Sscanf(fields[2], "%d:%d", &m.device.major, &m.device.minor); err != nil {
		return mount{}, err
	}
	m.root, m.point = unescape(fields[3]), unescape(fields[4])
	return m, nil
}

// unescape undoes how mountinfo writes blanks and backslashes: three octal digits.
func unescape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// fileSystem returns the file system whose root is the directory. Opening the directory mounts what is mounted on demand,
// such as a snapshot of ZFS. cairn.ErrNotFound if it is certainly absent, cairn.ErrNotSupported if it is part of another
// file system.
func (k kernel) fileSystem(ctx context.Context, root string) (device, error) {
	var stat unix.Statx_t
	err := within(ctx, func() error {
		dir, err := os.OpenFile(root, unix.O_DIRECTORY|unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		err = unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stat)
		if err == nil {
			_, _, err = unix.NameToHandleAt(int(dir.Fd()), "", unix.AT_EMPTY_PATH)
		}
		return errors.Join(err, dir.Close())
	})
	if errors.Is(err, fs.ErrNotExist) {
		return device{}, fmt.Errorf("root: %w: %w", cairn.ErrNotFound, err)
	} else if errors.Is(err, unix.EOPNOTSUPP) {
		return device{}, fmt.Errorf("root %s: its file system has no file handles, so NFS cannot serve it: %w", root, cairn.ErrNotSupported)
	} else if err != nil {
		return device{}, fmt.Errorf("root: %w", err)
	}
	mounts, err := readMounts(ownMounts)
	if err != nil {
		return device{}, err
	}
	for _, m := range mounts {
		if m.id == stat.Mnt_id && m.root == "/" && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return m.device, nil
		}
	}
	return device{}, fmt.Errorf("root %s is not a mounted file system of its own, and of a mere directory the kernel's NFS server would serve what is beside it too: %w", root, cairn.ErrNotSupported)
}
