package dir_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

const gib = 1 << 30

// open opens a pool in a new directory and closes it with the test.
func open(t *testing.T, step drivertest.Step) (*dir.Pool, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pool")
	p, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: poolID, Step: step})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		reopenDirs(path)
	})
	return p, path
}

func create(t *testing.T, p *dir.Pool, id cairn.ReplicaID) drivers.Object {
	t.Helper()
	object, err := p.Create(t.Context(), drivers.CreateSpec{ID: id, Epoch: 1, Size: gib})
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v; want %q", what, err, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		cfg     dir.Config
		want    error
	}{
		{"another pool's directory", func(*testing.T, string) {}, dir.Config{PoolID: "node-2/default"}, cairn.ErrPrecondition},
		{"an unmounted disk", func(t *testing.T, path string) { must(t, os.Remove(path+"/.cairn-pool")) },
			dir.Config{PoolID: poolID, MustExist: true}, cairn.ErrUnavailable},
		{"a missing directory", func(t *testing.T, path string) { must(t, os.RemoveAll(path)) },
			dir.Config{PoolID: poolID, MustExist: true}, os.ErrNotExist},
		{"a file", func(t *testing.T, path string) { must(t, os.RemoveAll(path)); must(t, os.WriteFile(path, nil, 0o644)) },
			dir.Config{PoolID: poolID}, unix.ENOTDIR},
		{"a mark that is none", func(t *testing.T, path string) { must(t, os.WriteFile(path+"/.cairn-pool", []byte("{"), 0o644)) },
			dir.Config{PoolID: poolID}, cairn.ErrCorrupt},
		{"a mark that cannot be read", func(t *testing.T, path string) { unreadable(t, path+"/.cairn-pool") },
			dir.Config{PoolID: poolID}, unix.ELOOP},
		{"a newer format", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+"/.cairn-pool", []byte(`{"format":2,"pool":"node-1/default"}`), 0o644))
		}, dir.Config{PoolID: poolID}, cairn.ErrUpgrade},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pool")
			p, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: poolID})
			must(t, err)
			must(t, p.Close())
			tt.prepare(t, path)
			tt.cfg.Path = path
			_, err = dir.Open(t.Context(), tt.cfg)
			is(t, "Open", err, tt.want)
			if err != nil && (strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path)) {
				t.Errorf("Open: %q; want one line that names %s", err, path)
			}
		})
	}
}

// unreadable makes a path for which the answer to "is it there?" is an error, also for root: a link to itself.
func unreadable(t *testing.T, path string) {
	t.Helper()
	must(t, os.Remove(path))
	must(t, os.Symlink(filepath.Base(path), path))
}

func TestOpenTwice(t *testing.T) {
	_, path := open(t, nil)
	_, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: poolID})
	is(t, "Open of an open pool", err, cairn.ErrInUse)
}

// A mark that cannot be read says nothing about whether the replica is there, and never that it is somebody else's.
// TestOpenEmptiesStagings: what a server was preparing for clients when it died is gone when the next one starts, and nothing else is.
func TestOpenEmptiesStagings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	p, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: poolID})
	must(t, err)
	object := create(t, p, "r1")
	must(t, os.WriteFile(filepath.Join(object.Root, "kept"), nil, 0o644))
	must(t, os.MkdirAll(filepath.Join(object.Staging, "tree", "below"), 0o500))
	must(t, os.WriteFile(filepath.Join(object.Staging, "upload"), []byte("half"), 0o644))
	foreign := filepath.Join(path, "foreign", "staging", "file")
	must(t, os.MkdirAll(filepath.Dir(foreign), 0o755))
	must(t, os.WriteFile(foreign, nil, 0o644))
	must(t, p.Close())
	p, err = dir.Open(t.Context(), dir.Config{Path: path, PoolID: poolID})
	must(t, err)
	defer p.Close()
	left, err := os.ReadDir(object.Staging)
	if err != nil || len(left) > 0 {
		t.Errorf("left of uploads: %v, %v", left, err)
	}
	for _, name := range []string{filepath.Join(object.Root, "kept"), foreign} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

func TestUnreadableMark(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, mark string)
		want  error
	}{
		{"garbage", func(t *testing.T, mark string) { must(t, os.WriteFile(mark, []byte("\x00"), 0o600)) }, cairn.ErrCorrupt},
		{"empty", func(t *testing.T, mark string) { must(t, os.Truncate(mark, 0)) }, cairn.ErrCorrupt},
		{"newer", func(t *testing.T, mark string) { must(t, os.WriteFile(mark, []byte(`{"format":9,"id":"r1"}`), 0o600)) }, cairn.ErrUpgrade},
		{"another's", func(t *testing.T, mark string) { must(t, os.WriteFile(mark, []byte(`{"format":1,"id":"r2"}`), 0o600)) }, cairn.ErrCorrupt},
		{"no answer", unreadable, unix.ELOOP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, path := open(t, nil)
			kept := filepath.Join(create(t, p, "r1").Root, "kept")
			must(t, os.WriteFile(kept, []byte("data"), 0o644))
			tt.spoil(t, filepath.Join(path, "r1/.cairn-replica"))
			_, err := p.Stat(t.Context(), "r1")
			is(t, "Stat", err, tt.want)
			_, err = p.Create(t.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib})
			is(t, "Create", err, tt.want)
			is(t, "Delete", p.Delete(t.Context(), "r1", 1), tt.want)
			if data, err := os.ReadFile(kept); err != nil || string(data) != "data" {
				t.Errorf("data: %q, %v", data, err)
			}
		})
	}
}

// A replica that was ready and has lost its data is a fault to be shown. Taken for half made, it would be made again, empty.
func TestLostDataIsNotHalfMade(t *testing.T) {
	p, path := open(t, nil)
	create(t, p, "r1")
	_, err := p.CreateSnapshot(t.Context(), "r1", 1, "s1")
	must(t, err)
	must(t, os.Rename(filepath.Join(path, "r1/data"), filepath.Join(path, "moved by hand")))
	_, err = p.Stat(t.Context(), "r1")
	is(t, "Stat", err, cairn.ErrCorrupt)
	_, err = p.Create(t.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib})
	is(t, "Create", err, cairn.ErrCorrupt)
	is(t, "Release", p.Release(t.Context(), "r1", 1, "out"), cairn.ErrCorrupt)
	is(t, "Delete with a snapshot", p.Delete(t.Context(), "r1", 1), cairn.ErrInUse)
	must(t, p.DeleteSnapshot(t.Context(), "r1", 1, "s1"))
	must(t, p.Delete(t.Context(), "r1", 1))
}

// Adopted data is no different.
func TestLostAdoptedDataIsNotHalfMade(t *testing.T) {
	p, path := open(t, nil)
	must(t, os.Mkdir(filepath.Join(path, "theirs"), 0o755))
	_, err := p.Adopt(t.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib}, "theirs")
	must(t, err)
	must(t, os.Rename(filepath.Join(path, "r1/data"), filepath.Join(path, "theirs")))
	_, err = p.Stat(t.Context(), "r1")
	is(t, "Stat", err, cairn.ErrCorrupt)
}

// A release that was interrupted after its commit is finished under its own name and no other, whatever stands there.
func TestInterruptedReleaseKeepsItsName(t *testing.T) {
	interrupt := errors.New("interrupted")
	p, path := open(t, func(name string, do func() error) error {
		if name == "COMMIT take replica away" && interrupt != nil {
			return interrupt
		}
		return do()
	})
	kept := filepath.Join(create(t, p, "r1").Root, "kept")
	must(t, os.WriteFile(kept, []byte("data"), 0o644))
	must(t, os.Mkdir(filepath.Join(path, "other"), 0o755))
	is(t, "Release", p.Release(t.Context(), "r1", 1, "ours"), interrupt)
	interrupt = nil
	is(t, "Release under another name", p.Release(t.Context(), "r1", 1, "other"), cairn.ErrPrecondition)
	must(t, p.Release(t.Context(), "r1", 1, "ours"))
	if data, err := os.ReadFile(filepath.Join(path, "ours/kept")); err != nil || string(data) != "data" {
		t.Errorf("released data: %q, %v", data, err)
	}
}

// A call whose caller has left still owns its replica: the next one waits, and changes nothing while it does.
func TestAbandonedCallKeepsItsReplica(t *testing.T) {
	reached, resume := make(chan struct{}), make(chan struct{})
	var hold atomic.Bool
	var steps atomic.Int64
	p, _ := open(t, func(_ string, do func() error) error {
		steps.Add(1)
		if hold.CompareAndSwap(true, false) {
			close(reached)
			<-resume
		}
		return do()
	})
	hold.Store(true)
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error)
	spec := drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib}
	go func() { _, err := p.Create(ctx, spec); ended <- err }()
	<-reached
	leave()
	is(t, "Create whose caller leaves", <-ended, cairn.ErrUnknownOutcome)
	before := steps.Load()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := p.Create(short, spec)
	is(t, "Create while the first one hangs", err, cairn.ErrTimeout)
	if now := steps.Load(); now != before {
		t.Errorf("the second call took %d steps beside the first one", now-before)
	}
	close(resume)
	create(t, p, "r1")
}

// A copy of a replica's directory that somebody made by hand is not the replica, whatever its mark says.
func TestHandMadeCopyIsIgnored(t *testing.T) {
	p, path := open(t, nil)
	create(t, p, "r1")
	must(t, os.CopyFS(filepath.Join(path, "backup"), os.DirFS(filepath.Join(path, "r1"))))
	list, err := p.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != "r1" {
		t.Errorf("List: %+v, %v; want r1 alone", list, err)
	}
	_, err = p.Adopt(t.Context(), drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib}, "backup")
	is(t, "Adopt", err, cairn.ErrExists)
	must(t, p.Delete(t.Context(), "r1", 1))
	if _, err := os.Stat(filepath.Join(path, "backup/data")); err != nil {
		t.Errorf("the copy: %v", err)
	}
}

func TestAdoptRefusesWhatIsNoDirectory(t *testing.T) {
	p, path := open(t, nil)
	must(t, os.WriteFile(filepath.Join(path, "file"), nil, 0o644))
	must(t, os.Symlink("/", filepath.Join(path, "link")))
	for _, name := range []string{"file", "link", ".cairn-work", ".cairn-pool"} {
		_, err := p.Adopt(t.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib}, name)
		is(t, "Adopt of "+name, err, cairn.ErrInvalid)
	}
}

// Between the look and the commit a foreign object may take the name.
func TestForeignArrivesBeforeCommit(t *testing.T) {
	var path string
	p, path := open(t, func(name string, do func() error) error {
		if name == "COMMIT place replica" {
			if err := os.Mkdir(filepath.Join(path, "r1"), 0o755); err != nil {
				return err
			}
		}
		return do()
	})
	_, err := p.Create(t.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib})
	is(t, "Create", err, cairn.ErrExists)
	if left, err := os.ReadDir(filepath.Join(path, "r1")); err != nil || len(left) != 0 {
		t.Errorf("the foreign directory holds %v (%v)", left, err)
	}
}

// A snapshot cannot go while a clone is read from it; nor can a clone begin while it goes.
func TestSnapshotInUseByClone(t *testing.T) {
	reached, resume := make(chan struct{}), make(chan struct{})
	var hold string
	p, _ := open(t, func(name string, do func() error) error {
		if name == hold {
			hold = ""
			reached <- struct{}{}
			<-resume
		}
		return do()
	})
	root := create(t, p, "r1").Root
	must(t, os.WriteFile(filepath.Join(root, "file"), []byte("data"), 0o644))
	_, err := p.CreateSnapshot(t.Context(), "r1", 1, "s1")
	must(t, err)
	ended := make(chan error)

	hold = "copy directory"
	go func() {
		_, err := p.Clone(t.Context(), drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib}, "r1", "s1")
		ended <- err
	}()
	<-reached
	is(t, "DeleteSnapshot while it is cloned", p.DeleteSnapshot(t.Context(), "r1", 1, "s1"), cairn.ErrInUse)
	resume <- struct{}{}
	must(t, <-ended)

	hold = "COMMIT take snapshot away"
	go func() { ended <- p.DeleteSnapshot(t.Context(), "r1", 1, "s1") }()
	<-reached
	_, err = p.Clone(t.Context(), drivers.CreateSpec{ID: "r3", Epoch: 1, Size: gib}, "r1", "s1")
	is(t, "Clone while the snapshot is deleted", err, cairn.ErrInUse)
	resume <- struct{}{}
	must(t, <-ended)
	if data, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(root)), "r2/data/file")); err != nil || string(data) != "data" {
		t.Errorf("the clone: %q, %v", data, err)
	}
}

func TestDeadlineIsTimeout(t *testing.T) {
	p, _ := open(t, nil)
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	_, err := p.Create(ctx, drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib})
	is(t, "Create", err, cairn.ErrTimeout)
}

// A panic must reach the caller, who knows how to fail one pass, and must not leave the replica locked.
func TestPanicReachesCaller(t *testing.T) {
	broken := false
	p, _ := open(t, func(_ string, do func() error) error {
		if broken {
			panic("bug")
		}
		return do()
	})
	broken = true
	func() {
		defer func() {
			if got := recover(); got != "bug" {
				t.Errorf("recovered %v; want the panic of the step", got)
			}
		}()
		_, err := p.Create(t.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib})
		t.Errorf("Create returned %v", err)
	}()
	broken = false
	create(t, p, "r1")
}

func TestHolesAreKept(t *testing.T) {
	p, _ := open(t, nil)
	sparse := filepath.Join(create(t, p, "r1").Root, "sparse")
	must(t, os.WriteFile(sparse, []byte("head"), 0o644))
	must(t, os.Truncate(sparse, 256<<20))
	snap, err := p.CreateSnapshot(t.Context(), "r1", 1, "s1")
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(snap.Root, "sparse"), &st))
	if st.Size != 256<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("the copy has %d bytes in %d blocks", st.Size, st.Blocks)
	}
}

func TestInfo(t *testing.T) {
	path := t.TempDir()
	p, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: poolID, MaxBytes: 1 << 20})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	info, err := p.Info(t.Context())
	must(t, err)
	if info.Total != 1<<20 || info.Free > 1<<20 || info.AtomicSnapshots || info.Enforcement != drivers.EnforcedByExporter {
		t.Errorf("Info: %+v", info)
	}
	if !slices.ContainsFunc(info.Notes, func(note string) bool { return strings.Contains(note, "not by quotas") }) {
		t.Errorf("Notes: %q; want one about the missing quotas", info.Notes)
	}
}
