package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func mount(t *testing.T) (d *Disk, backing, at string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: run as root")
	}
	backing, at = t.TempDir(), t.TempDir()
	d, err := Mount(backing, at)
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
	d.Set(Fault{Delay: 30 * time.Millisecond})
	began := time.Now()
	must(t, os.WriteFile(path, []byte("slow"), 0o600))
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("a write to a slow disk took %s", took)
	}
}
