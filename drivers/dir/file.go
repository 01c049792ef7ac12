package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// chunk is how much is copied between two looks at the context.
const chunk = 16 << 20

// canReflink reports whether the file system shares blocks between files, by doing it.
func canReflink(from, to string) bool {
	in, err := os.Open(from)
	if err != nil {
		return false
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return false
	}
	defer out.Close()
	return unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil
}

// copyFile copies a regular file with its attributes.
func (o *op) copyFile(e entry) (err error) {
	in, err := os.OpenFile(e.from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(e.to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := o.copyData(in, out, e.stat); err != nil {
		return err
	}
	return copyAttributes(e)
}

// copyData shares the blocks where that works and copies what is not a hole where it does not.
func (o *op) copyData(in, out *os.File, st unix.Stat_t) error {
	if o.reflink && unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	if st.Blocks*512 >= st.Size {
		return copyRange(o.ctx, in, out, st.Size)
	}
	if err := out.Truncate(st.Size); err != nil {
		return err
	}
	for end := int64(0); ; {
		start, err := unix.Seek(int(in.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return fmt.Errorf("seek data: %w", err)
		}
		if end, err = unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("seek hole: %w", err)
		}
		for _, f := range []*os.File{in, out} {
			if _, err := f.Seek(start, io.SeekStart); err != nil {
				return err
			}
		}
		if err := copyRange(o.ctx, in, out, end-start); err != nil {
			return err
		}
	}
}

// copyRange copies n bytes from where both files stand, or up to the end of in. The kernel does it without a buffer of ours.
func copyRange(ctx context.Context, in, out *os.File, n int64) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		copied, err := io.CopyN(out, in, min(n, chunk))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n -= copied
	}
	return nil
}

// copySpecial copies a symbolic link, a pipe, a socket or a device. What may not be made (a device, without privilege) is
// an error: a copy that silently lacks something is none.
func copySpecial(e entry) error {
	if e.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := os.Readlink(e.from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, e.to); err != nil {
			return err
		}
	} else if err := unix.Mknod(e.to, e.stat.Mode, int(e.stat.Rdev)); err != nil {
		return fmt.Errorf("make special file %s: %w", e.to, err)
	}
	return copyAttributes(e)
}

// copyAttributes gives the copy the owner, mode, user attributes and times of the original, in an order in which none
// undoes another: chown clears set-uid, and everything changes times.
func copyAttributes(e entry) error {
	if os.Geteuid() == 0 {
		if err := os.Lchown(e.to, int(e.stat.Uid), int(e.stat.Gid)); err != nil {
			return err
		}
	}
	if e.stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := copyXattrs(e.from, e.to); err != nil {
			return fmt.Errorf("extended attributes: %w", err)
		}
		if err := unix.Chmod(e.to, e.stat.Mode&0o7777); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	times := []unix.Timespec{e.stat.Atim, e.stat.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, e.to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// copyXattrs copies user.* attributes.
func copyXattrs(from, to string) error {
	attributes, err := userXattrs(from)
	if err != nil {
		return err
	}
	for name, value := range attributes {
		if err := unix.Lsetxattr(to, name, value, 0); err != nil {
			return err
		}
	}
	return nil
}

// userXattrs reads the user.* attributes. Others belong to the system or need privilege.
func userXattrs(path string) (map[string][]byte, error) {
	size, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(path, names); err != nil {
		return nil, err
	}
	attributes := make(map[string][]byte)
	for name := range strings.SplitSeq(string(names[:size]), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		size, err := unix.Lgetxattr(path, name, nil)
		if err != nil {
			return nil, err
		}
		value := make([]byte, size)
		if size, err = unix.Lgetxattr(path, name, value); err != nil {
			return nil, err
		}
		attributes[name] = value[:size]
	}
	return attributes, nil
}
