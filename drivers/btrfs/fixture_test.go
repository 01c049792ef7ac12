package btrfs_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/btrfs"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// fixture is one pool on a disk.
type fixture struct {
	testing.TB
	storage
	p *btrfs.Pool
}

func newFixture(t testing.TB, d disk, edit func(*btrfs.Config)) *fixture {
	t.Helper()
	parent, err := os.MkdirTemp(d.dir, "cairn-")
	must(t, err)
	f := &fixture{TB: t, storage: storage{path: filepath.Join(parent, "pool")}}
	f.open(edit)
	t.Cleanup(func() { must(t, f.p.Close()) })
	return f
}

func (f *fixture) open(edit func(*btrfs.Config)) {
	f.Helper()
	cfg := f.config(nil)
	if edit != nil {
		edit(&cfg)
	}
	var err error
	f.p, err = btrfs.Open(f.Context(), cfg)
	must(f, err)
}

func spec(id cairn.ReplicaID, size int64) drivers.CreateSpec {
	return drivers.CreateSpec{ID: id, Epoch: 1, Size: size}
}

func (f *fixture) create(id cairn.ReplicaID, size int64) drivers.Object {
	f.Helper()
	object, err := f.p.Create(f.Context(), spec(id, size))
	must(f, err)
	return object
}

func (f *fixture) stat(id cairn.ReplicaID) drivers.Object {
	f.Helper()
	object, err := f.p.Stat(f.Context(), id)
	must(f, err)
	return object
}

func (f *fixture) write(id cairn.ReplicaID, text string) {
	f.Helper()
	must(f, os.WriteFile(filepath.Join(f.stat(id).Root, "file"), []byte(text), 0o644))
}

// holds checks what clients would read from a root.
func (f *fixture) holds(root, text string) {
	f.Helper()
	if data, err := os.ReadFile(filepath.Join(root, "file")); err != nil || string(data) != text {
		f.Errorf("%s holds %.40q, %v; want %.40q", root, data, err, text)
	}
}

func (f *fixture) snapshot(id cairn.ReplicaID, snap cairn.SnapshotID) drivers.SnapshotObject {
	f.Helper()
	object, err := f.p.CreateSnapshot(f.Context(), id, 1, snap)
	must(f, err)
	return object
}

func (f *fixture) changed(id cairn.ReplicaID, since cairn.SnapshotID) int64 {
	f.Helper()
	n, err := f.p.Changed(f.Context(), id, since)
	must(f, err)
	return n
}

func (f *fixture) send(id cairn.ReplicaID, snap, base cairn.SnapshotID) []byte {
	f.Helper()
	var stream bytes.Buffer
	must(f, f.p.Send(f.Context(), id, drivers.SendSpec{Snapshot: snap, Base: base}, &stream))
	return stream.Bytes()
}

func (f *fixture) receive(id cairn.ReplicaID, snap, base cairn.SnapshotID, stream io.Reader) error {
	return f.p.Receive(f.Context(), drivers.ReceiveSpec{CreateSpec: spec(id, gib/8), Snapshot: snap, Base: base}, stream)
}

func is(t testing.TB, what string, err, want error, texts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v; want %v", what, err, want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v; want %q in it", what, err, text)
		}
	}
}

// random is data that no file system can compress or share.
func random(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	return data
}

// fillUp has a file take all that the disk has left.
func fillUp(t testing.TB, path string) {
	t.Helper()
	hog, err := os.Create(path)
	must(t, err)
	defer hog.Close()
	for step, at := int64(64*mib), int64(0); step >= mib; {
		switch err := unix.Fallocate(int(hog.Fd()), 0, at, step); {
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case err != nil:
			t.Fatalf("filling the disk: %v", err)
		default:
			at += step
		}
	}
	must(t, hog.Sync())
}

func (f *fixture) holdsSnapshot(id cairn.ReplicaID, snap cairn.SnapshotID) {
	f.Helper()
	want, err := drivertest.Tree{}.Fingerprint(f.stat(id).Root)
	must(f, err)
	i := slices.IndexFunc(f.stat(id).Snapshots, func(s drivers.SnapshotObject) bool { return s.ID == snap })
	if got, err := (drivertest.Tree{}).Fingerprint(f.stat(id).Snapshots[i].Root); err != nil || got != want {
		f.Errorf("%s@%s differs from its replica: %v", id, snap, err)
	}
}
