package dir_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

const poolID cairn.PoolID = "node-1/default"

// storage is a pool directory, for package drivertest.
type storage struct{ path string }

// newStorage makes a pool directory under base.
func newStorage(t *testing.T, base string) (drivertest.Storage, func()) {
	parent, err := os.MkdirTemp(base, "cairn-dir-")
	if err != nil {
		t.Error(err)
	}
	return storage{filepath.Join(parent, "pool")}, func() {
		reopenDirs(parent)
		if err := os.RemoveAll(parent); err != nil {
			t.Error(err)
		}
	}
}

// memory is where a sweep of hundreds of crash points runs: in memory if the machine lets us, since what is durable is not
// what a sweep can tell. The other tests run on a real disk.
func memory(t *testing.T) string {
	const shared = "/dev/shm"
	if unix.Access(shared, unix.W_OK) == nil {
		return shared
	}
	return t.TempDir()
}

// reopenDirs gives closed directories back the permission to be removed with the test's directory.
func reopenDirs(root string) {
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
}

func (s storage) Open(ctx context.Context, step drivertest.Step) (drivers.Pool, error) {
	p, err := dir.Open(ctx, dir.Config{Path: s.path, PoolID: poolID, Step: step, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err // not a nil *dir.Pool in an interface
	}
	return p, nil
}

func (s storage) Close(p drivers.Pool) error { return p.(*dir.Pool).Close() }

func (s storage) Plant(name string) (string, error) {
	root := filepath.Join(s.path, name)
	return root, os.Mkdir(root, 0o755)
}

// Break makes the pool directory what it is when its disk is not mounted: there, and empty.
func (s storage) Break() (func() error, error) {
	away := s.path + ".unmounted"
	repair := func() error { return errors.Join(os.Remove(s.path), os.Rename(away, s.path)) }
	return repair, errors.Join(os.Rename(s.path, away), os.Mkdir(s.path, 0o755))
}

// Survey accounts for every name that the layout in the package comment allows, and for no other. The temporary file of a
// mark is allowed: there is one at most, and the next mark replaces it.
func (s storage) Survey(objects []drivers.Object) (map[string]string, []string, error) {
	known := map[string]bool{".cairn-pool": true, ".cairn-work": true}
	var debris []string
	for _, object := range objects {
		id := string(object.ID)
		if _, err := os.Lstat(filepath.Join(s.path, id)); err != nil {
			known[".cairn-work/"+id] = true // half made or half removed: all of it is one object
			continue
		}
		known[id] = true
		for _, name := range []string{".cairn-replica", ".cairn-replica.tmp", "staging", "snapshots", "work"} {
			known[id+"/"+name] = true
		}
		known[id+"/data"] = object.Ready
		for _, snap := range object.Snapshots {
			known[id+"/snapshots/"+string(snap.ID)] = snap.Ready
			known[id+"/work/"+string(snap.ID)] = !snap.Ready
		}
		for _, sub := range []string{id, id + "/snapshots", id + "/work", id + "/staging"} {
			left, err := s.unknown(sub, known)
			if err != nil {
				return nil, nil, err
			}
			debris = append(debris, left...)
		}
	}
	left, err := s.unknown(".cairn-work", known)
	if err != nil {
		return nil, nil, err
	}
	foreign := make(map[string]string)
	top, err := s.unknown(".", known)
	for _, name := range top {
		if strings.HasPrefix(name, ".cairn") {
			left = append(left, name)
			continue
		}
		foreign[name] = filepath.Join(s.path, name)
	}
	return foreign, append(debris, left...), err
}

// unknown lists the entries of a directory of the pool that are not known, as paths in the pool.
func (s storage) unknown(sub string, known map[string]bool) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.path, sub))
	if err != nil {
		return nil, fmt.Errorf("survey: %w", err)
	}
	var left []string
	for _, entry := range entries {
		if name := filepath.Join(sub, entry.Name()); !known[name] {
			left = append(left, name)
		}
	}
	return left, nil
}

// harness keeps pools under base.
func harness(base string) drivertest.Harness {
	return drivertest.Harness{
		New:  func(t *testing.T) (drivertest.Storage, func()) { return newStorage(t, base) },
		Data: drivertest.Tree{},
	}
}

func TestCrashSweep(t *testing.T) { drivertest.CrashSweep(t, harness(memory(t))) }

func TestConformance(t *testing.T) { drivertest.Conformance(t, harness(t.TempDir())) }
