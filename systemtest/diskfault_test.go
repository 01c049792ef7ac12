package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/disk"
	"github.com/cairn-storage/cairn/chaos/local"
)

// faulty is a cluster whose data directories lie on disks that fail on demand.
type faulty struct {
	*cluster
	disks map[string]*disk.Disk // by server
}

// withFaultyDisks runs body with n servers. It needs FUSE.
func withFaultyDisks(t *testing.T, n int, body func(t *testing.T, f *faulty)) {
	t.Helper()
	withMounts(t, func(t *testing.T) {
		f := &faulty{disks: map[string]*disk.Disk{}}
		t.TempDir() // is removed last, before that the disks are closed, and before that the servers are killed
		t.Cleanup(func() {
			for _, d := range f.disks {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
		f.cluster = prepare(t)
		for range n {
			s, err := f.Prepare()
			f.check(err)
			f.disks[s.Name] = faultyDisk(t, s.Disk())
		}
		t.Cleanup(func() { // a process whose disk hangs cannot be killed before the disk answers
			for _, d := range f.disks {
				d.Set(disk.Fault{})
			}
		})
		f.check(f.Start(t.Context(), n))
		f.must(nil, "share", "create", "docs", "--size", "1GiB")
		f.check(f.touch(t.Context(), "docs", 0))
		body(t, f)
	})
}

// faultyDisk puts one at the directory. It is closed after the servers have ended.
func faultyDisk(t *testing.T, at string) *disk.Disk {
	t.Helper()
	backing := at + ".backing"
	if err := os.MkdirAll(backing, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Mount(backing, at)
	if err != nil {
		t.Skipf("no file system in user space: %v; run as root, with /dev/fuse", err)
	}
	return d
}

// TestHungDisk: the disk of the leader hangs. Another server leads and takes writes within 5 s; when the disk answers again the
// old leader follows.
func TestHungDisk(t *testing.T) {
	t.Parallel()
	withFaultyDisks(t, 3, func(t *testing.T, f *faulty) {
		old := f.leader()
		began := time.Now()
		f.disks[old.Name].Set(disk.Fault{Hang: true})
		f.writeElsewhere(old, 1)
		took := time.Since(began)
		t.Logf("the leader's disk hung; first write elsewhere after %s", took.Round(time.Millisecond))
		if took > 5*time.Second {
			t.Errorf("took %s, want at most 5 s", took)
		}
		f.disks[old.Name].Set(disk.Fault{})
		f.recovered(old, 1)
	})
}

// TestFailingDisk: the disk of the leader refuses every write. Another server leads; the old one says so and goes on
// when the disk is good again.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	withFaultyDisks(t, 3, func(t *testing.T, f *faulty) {
		old := f.leader()
		began := time.Now()
		f.disks[old.Name].Set(disk.Fault{Err: syscall.EIO})
		f.writeElsewhere(old, 1)
		t.Logf("the leader's disk failed; first write elsewhere after %s", time.Since(began).Round(time.Millisecond))
		log, err := os.ReadFile(old.Log)
		f.check(err)
		if !bytes.Contains(log, []byte(syscall.EIO.Error())) {
			t.Errorf("the log of %s does not say that its disk fails", old.Name)
		}
		if bytes.Contains(log, []byte("goroutine ")) || !old.Running() {
			t.Errorf("%s has ended; the end of its log is %s", old.Name, old.LastLine())
		}
		f.disks[old.Name].Set(disk.Fault{})
		f.recovered(old, 1)
	})
}

// TestSlowDisk: the disk of a follower takes 300 ms for everything. The others do not wait for it.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	withFaultyDisks(t, 3, func(t *testing.T, f *faulty) {
		leader := f.leader()
		var slow *local.Server
		for _, s := range f.Servers() {
			if s != leader {
				slow = s
			}
		}
		f.disks[slow.Name].Set(disk.Fault{Delay: 300 * time.Millisecond})
		for n := range 20 {
			f.check(f.touchAt(t.Context(), leader, "docs", n))
		}
		f.disks[slow.Name].Set(disk.Fault{})
		f.recovered(slow, 19)
	})
}

// TestLostWrites: all servers are killed, and what they had not synced is lost, or torn. What was acknowledged is there.
func TestLostWrites(t *testing.T) {
	t.Parallel()
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprintf("torn=%t", torn), func(t *testing.T) {
			withFaultyDisks(t, 3, func(t *testing.T, f *faulty) {
				n := 0
				for range 5 {
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan int)
					go func() { // acknowledges one after the other until everybody is dead
						last := n
						for f.touch(ctx, "docs", last+1) == nil {
							last++
						}
						done <- last
					}()
					pause(t.Context(), 300*time.Millisecond)
					for _, s := range f.Servers() {
						f.check(s.Kill())
					}
					cancel()
					n = <-done
					lost := 0
					for _, s := range f.Servers() {
						files, err := f.disks[s.Name].Lose(torn)
						f.check(err)
						lost += files
						f.check(s.Start())
					}
					t.Logf("change %d was the last one acknowledged; %d files lost something", n, lost)
					for _, s := range f.Servers() {
						f.check(f.AwaitUp(t.Context(), s))
						got, err := f.touched(t.Context(), s, "docs")
						f.check(err)
						if got < n || got > n+1 {
							t.Fatalf("%s reads change %d, and %d was acknowledged", s.Name, got, n)
						}
						n = max(n, got)
					}
					f.agree()
				}
			})
		})
	}
}

// writeElsewhere writes change n through the other servers, as soon as that works.
func (f *faulty) writeElsewhere(old *local.Server, n int) {
	f.t.Helper()
	var others []*local.Server
	for _, s := range f.Servers() {
		if s != old {
			others = append(others, s)
		}
	}
	attempt := 0
	f.await(30*time.Second, "a write elsewhere", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		attempt++
		err := f.touchAt(ctx, others[attempt%2], "docs", n)
		return err == nil, err
	})
}

// recovered waits until the server is up again, started anew if it has ended, and has change n like all others.
func (f *faulty) recovered(s *local.Server, n int) {
	f.t.Helper()
	if !s.Running() {
		f.t.Logf("%s has ended: %s", s.Name, s.LastLine())
		f.check(s.Start())
	}
	f.check(f.AwaitUp(f.t.Context(), s))
	f.agree()
	if got, err := f.touched(f.t.Context(), s, "docs"); err != nil || got != n {
		f.t.Errorf("%s reads change %d (%v), want %d", s.Name, got, err, n)
	}
}

// TestPowerLoss: everything of a server lies on one ext4, which is put aside as it is at the moment at which something was
// acknowledged: with nothing that the kernel still holds back. The server that is started on that has all of it.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	withMounts(t, func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs a loop device: run as root")
		}
		c := prepare(t)
		s, err := c.Prepare()
		c.check(err)
		image := filepath.Join(t.TempDir(), "image")
		c.check(os.WriteFile(image, nil, 0o600))
		c.check(os.Truncate(image, 256<<20))
		if err := execute("mkfs.ext4", "-q", "-F", "-m", "0", image); err != nil {
			t.Skip(err)
		}
		disk := filepath.Join(s.Dir, "ext4")
		c.check(os.Mkdir(disk, 0o700))
		mountImage(t, image, disk)
		for _, dir := range []string{s.Disk(), s.PoolDir()} {
			c.check(os.RemoveAll(dir))
			c.check(os.Mkdir(filepath.Join(disk, filepath.Base(dir)), 0o700))
			c.check(os.Symlink(filepath.Join(disk, filepath.Base(dir)), dir))
		}
		c.check(c.Start(t.Context(), 1))
		docs := c.makeShare("docs", "64MiB")
		content := strings.Repeat("acknowledged ", 10_000)
		changes := 0
		for round, change := range []struct {
			name string
			do   func()
		}{
			{"upload", func() { c.put(docs, "file", []byte(content)) }},
			{"directory", func() { c.check(docs.files.Mkdir(t.Context(), "d")); c.put(docs, "d/file", []byte(content)) }},
			{"move", func() { c.check(docs.files.Move(t.Context(), "d", "e")) }},
			{"snapshot", func() { c.must(nil, "snapshot", "create", "docs", "s") }},
			{"overwritten", func() { c.put(docs, "file", []byte("other")) }},
			{"revert", func() { c.must(nil, "share", "revert", "docs", "s", "--yes") }},
			{"clone", func() {
				c.must(nil, "share", "create", "copy", "--from-snapshot", "docs/s")
				c.must(nil, "access", "allow", "copy", "ip", "127.0.0.0/8", "rw")
			}},
			{"deleted", func() { c.check(docs.files.Delete(t.Context(), "e")) }},
		} {
			change.do()
			changes = round + 1
			c.check(c.touch(t.Context(), "docs", changes))
			after := fmt.Sprintf("%s.%d", image, round)
			c.check(execute("cp", "--sparse=always", image, after)) // what has arrived on the disk
			c.check(s.Kill())
			c.check(syscall.Unmount(disk, 0))
			mountImage(t, after, disk)
			image = after
			c.check(s.Start())
			c.check(c.AwaitUp(t.Context(), s))
			c.await(convergence, "order after power was lost after "+change.name, c.wholeNow)
			if got, err := c.touched(t.Context(), s, "docs"); err != nil || got != changes {
				t.Errorf("power lost after %s: change %d (%v), want %d", change.name, got, err, changes)
			}
			want := content
			if change.name == "overwritten" {
				want = "other"
			}
			if got := string(c.get(docs, "file")); got != want {
				t.Errorf("power lost after %s: the file has %d bytes, want %d", change.name, len(got), len(want))
			}
		}
		if _, err := read(t.Context(), docs.files, "e/file"); err == nil {
			t.Error("a directory that was deleted is back")
		}
		c.check(s.Kill())
		c.check(syscall.Unmount(disk, 0))
	})
}

// mountImage mounts ext4 that writes nothing by itself for as long as the test takes.
func mountImage(t *testing.T, image, at string) {
	t.Helper()
	if err := execute("mount", "-o", "loop,commit=600,noauto_da_alloc", image, at); err != nil {
		t.Skip(err)
	}
}
