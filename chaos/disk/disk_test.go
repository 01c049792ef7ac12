package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mount(t *testing.T) (d *Disk, backing, at string) {
	t.Helper()
	return mountBy(t, Mount)
}

func mountBy(t *testing.T, by func(backing, at string) (*Disk, error)) (d *Disk, backing, at string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: run as root")
	}
	backing, at = t.TempDir(), t.TempDir()
	d, err := by(backing, at)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, backing, at
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLose(t *testing.T) {
	for _, c := range []struct {
		name  string
		torn  bool
		after func(f *os.File) error
		want  []byte
	}{
		{"synced", false, func(f *os.File) error { return write(f, 0, 'b', 4096, true) }, fill('b', 4096)},
		{"overwritten", false, func(f *os.File) error { return write(f, 0, 'b', 4096, false) }, fill('a', 4096)},
		{"twice", false, func(f *os.File) error {
			return errors.Join(write(f, 0, 'b', 2048, false), write(f, 1024, 'c', 2048, false))
		}, fill('a', 4096)},
		{"appended", false, func(f *os.File) error { return write(f, 4096, 'b', 4096, false) }, fill('a', 4096)},
		{"torn", true, func(f *os.File) error { return write(f, 0, 'b', 4096, false) }, append(fill('b', 2048), fill('a', 2048)...)},
		{"torn at the end", true, func(f *os.File) error { return write(f, 4096, 'b', 4096, false) }, append(fill('a', 4096), fill('b', 2048)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, backing, dir := mount(t)
			path := filepath.Join(dir, "file")
			f, err := os.Create(path)
			must(t, err)
			must(t, write(f, 0, 'a', 4096, true))
			must(t, c.after(f))
			must(t, f.Close())
			_, err = d.Lose(c.torn)
			must(t, err)
			got, err := os.ReadFile(filepath.Join(backing, "file")) // the kernel still has the pages of the mount
			must(t, err)
			if !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes that begin with %.1q and end with %.1q, want %d", len(got), got, got[max(0, len(got)-1):], len(c.want))
			}
		})
	}
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func write(f *os.File, at int64, b byte, n int, sync bool) error {
	if _, err := f.WriteAt(fill(b, n), at); err != nil || !sync {
		return err
	}
	return f.Sync()
}

// TestFaults: each fault is met by what changes the disk, by nothing else, and is over when it is healed.
func TestFaults(t *testing.T) {
	d, _, dir := mount(t)
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("before"), 0o600))
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"write", func() error { return os.WriteFile(path, []byte("before"), 0o600) }},
		{"create", func() error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600) }},
		{"rename", func() error { return os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "moved")) }},
		{"make directory", func() error { return os.Mkdir(filepath.Join(dir, "d"), 0o700) }},
		{"remove", func() error { return os.RemoveAll(filepath.Join(dir, "d")) }},
		{"sync directory", func() error {
			f, err := os.Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(f.Sync(), f.Close())
		}},
		{"cut off", func() error { return os.Truncate(path, 6) }},
		{"change mode", func() error { return os.Chmod(path, 0o640) }},
		{"change owner", func() error { return os.Chown(path, 1, 1) }},
		{"change times", func() error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(2, 0)) }},
		{"symbolic link", func() error { return os.Symlink("file", filepath.Join(dir, "symbolic")) }},
		{"hard link", func() error { return os.Link(path, filepath.Join(dir, "hard")) }},
		{"make pipe", func() error { return unix.Mknod(filepath.Join(dir, "pipe"), unix.S_IFIFO|0o600, 0) }},
		{"set attribute", func() error { return unix.Lsetxattr(path, "user.a", []byte("b"), 0) }},
		{"remove attribute", func() error { return unix.Lremovexattr(path, "user.a") }},
		{"exchange", func() error { return exchange(filepath.Join(dir, "symbolic"), filepath.Join(dir, "hard")) }},
		{"allocate", func() error {
			return with(path, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 8192) })
		}},
		{"write in place", func() error {
			return with(filepath.Join(dir, "moved"), func(fd int) error { return all(unix.Pwrite(fd, []byte("before"), 0)) })
		}},
		{"copy within the kernel", func() error { return copyRange(path, filepath.Join(dir, "moved")) }},
	} {
		d.Set(Fault{Err: syscall.EIO})
		if err := change.do(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s on a disk that fails: %v", change.name, err)
		}
		d.Set(Fault{Hang: true})
		done := make(chan error, 1)
		go func() { done <- change.do() }()
		select {
		case err := <-done:
			t.Errorf("%s on a disk that hangs has ended: %v", change.name, err)
		case <-time.After(20 * time.Millisecond):
		}
		if got, err := os.ReadFile(path); err != nil || change.name != "write" && string(got) != "before" {
			t.Errorf("a read while %s hangs: %q (%v)", change.name, got, err)
		}
		d.Set(Fault{})
		if err := <-done; err != nil {
			t.Errorf("%s after the disk was healed: %v", change.name, err)
		}
	}
	if pieces := (&handle{disk: d}); true {
		d.Set(Fault{Err: syscall.EIO})
		if _, errno := pieces.Writev(t.Context(), [][]byte{{1}, {2}}, 0); errno != syscall.EIO {
			t.Errorf("a write in pieces to a disk that fails: %v", errno)
		}
	}
	d.Set(Fault{Delay: 30 * time.Millisecond})
	began := time.Now()
	must(t, os.WriteFile(path, []byte("slow"), 0o600))
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("a write to a slow disk took %s", took)
	}
}

func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// with opens a file without truncating it, which would be a change of its own.
func with(path string, do func(fd int) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(int(f.Fd())), f.Close())
}

func all(_ int, err error) error { return err }

// copyRange copies without reading and writing, as Go does where it can.
func copyRange(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return with(to, func(fd int) error { return all(unix.CopyFileRange(int(in.Fd()), nil, fd, nil, 6, 0)) })
}

// TestWhatPoolsNeed: what a pool on directories does works as on the file system below, and what is said not to be there is not.
func TestWhatPoolsNeed(t *testing.T) {
	d, backing, dir := mountBy(t, MountLasting)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, os.WriteFile(a, []byte("a"), 0o600))
	must(t, os.WriteFile(b, []byte("b"), 0o600))
	must(t, exchange(a, b))
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a rename that must not replace: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(backing, "a")); err != nil || string(got) != "b" {
		t.Errorf("after the exchange: %q (%v)", got, err)
	}
	must(t, os.Link(a, filepath.Join(dir, "hard")))
	var one, other, space unix.Stat_t
	must(t, unix.Stat(a, &one))
	must(t, unix.Stat(filepath.Join(dir, "hard"), &other))
	must(t, unix.Stat(filepath.Join(backing, "a"), &space))
	if one.Ino != other.Ino || one.Nlink != 2 || one.Ino != space.Ino || one.Ctim != space.Ctim {
		t.Errorf("a hard link is %+v, and what it was made of %+v; below it is %+v", other, one, space)
	}
	var at, below unix.Statfs_t
	must(t, unix.Statfs(dir, &at))
	must(t, unix.Statfs(backing, &below))
	if at.Blocks*uint64(at.Frsize) != below.Blocks*uint64(below.Frsize) {
		t.Errorf("a disk of %d blocks, want %d", at.Blocks, below.Blocks)
	}
	must(t, with(b, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }))
	in, err := os.Open(a)
	must(t, err)
	defer in.Close()
	if err := with(b, func(fd int) error { return unix.IoctlFileClone(fd, int(in.Fd())) }); err == nil {
		t.Error("blocks are shared, which the package says is not there")
	}
	if _, err := d.Lose(false); err == nil {
		t.Error("a lasting disk has lost what was not synced")
	}
}

// TestReplacedFile: a name that is replaced all the time is there all the time, for who opens it and for who looks at it.
func TestReplacedFile(t *testing.T) {
	_, _, dir := mountBy(t, MountLasting)
	name, other := filepath.Join(dir, "name"), filepath.Join(dir, "other")
	must(t, os.WriteFile(name, []byte("content"), 0o600))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				close(done)
				return
			default:
			}
			if err := errors.Join(os.WriteFile(other, []byte("content"), 0o600), os.Rename(other, name)); err != nil {
				done <- err
				return
			}
		}
	}()
	for look := range 500 {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("look %d: %v", look, err)
		}
		if got, err := os.ReadFile(name); errors.Is(err, fs.ErrNotExist) || err == nil && string(got) != "content" {
			t.Errorf("read %d: %q (%v)", look, got, err)
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	must(t, <-done) // with a thread that waits for its own answer this process would not end
}
