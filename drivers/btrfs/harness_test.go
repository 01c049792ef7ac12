package btrfs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/btrfs"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

const (
	poolID cairn.PoolID = "node-1/btrfs"

	mib = 1 << 20
	gib = 1 << 30
)

// storage is a pool directory, for package drivertest.
type storage struct {
	path string
	// subvolumes: what others have there are subvolumes, not directories.
	subvolumes bool
}

// harness keeps pools on a disk.
func harness(d disk, subvolumes bool) drivertest.Harness {
	return drivertest.Harness{
		New: func(t *testing.T) (drivertest.Storage, func()) {
			parent, err := os.MkdirTemp(d.dir, "cairn-")
			if err != nil {
				t.Error(err)
			}
			// What a test leaves goes with the disk.
			return storage{filepath.Join(parent, "pool"), subvolumes}, func() {}
		},
		Data: drivertest.Tree{},
	}
}

func (s storage) config(step drivertest.Step) btrfs.Config {
	return btrfs.Config{Path: s.path, PoolID: poolID, Step: step, Logger: slog.New(slog.DiscardHandler)}
}

func (s storage) Open(ctx context.Context, step drivertest.Step) (drivers.Pool, error) {
	p, err := btrfs.Open(ctx, s.config(step))
	if err != nil {
		return nil, err // not a nil *btrfs.Pool in an interface
	}
	return p, nil
}

func (s storage) Close(p drivers.Pool) error { return p.(*btrfs.Pool).Close() }

func (s storage) Plant(name string) (string, error) {
	root := filepath.Join(s.path, name)
	if s.subvolumes {
		return root, execute("btrfs", "subvolume", "create", root)
	}
	return root, os.Mkdir(root, 0o755)
}

// Break makes the pool directory what it is when its disk is not mounted: there, and empty.
func (s storage) Break() (func() error, error) {
	away := s.path + ".unmounted"
	repair := func() error { return errors.Join(os.Remove(s.path), os.Rename(away, s.path)) }
	return repair, errors.Join(os.Rename(s.path, away), os.Mkdir(s.path, 0o755))
}

// Survey accounts for every name that the layout in the package comment allows, and for no other, and for the limits. The
// temporary file of a mark is allowed: there is one at most, and the next mark replaces it.
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
		if !object.Ready {
			continue
		}
		for _, name := range []string{".cairn-replica", ".cairn-replica.tmp", "data", "data/files", "data/staging", "snapshots", "receive"} {
			known[filepath.Join(id, name)] = true
		}
		for _, snap := range object.Snapshots {
			known[id+"/snapshots/"+string(snap.ID)] = snap.Ready
		}
		for _, sub := range []string{id, id + "/data", id + "/data/staging", id + "/snapshots", id + "/receive"} {
			left, err := s.unknown(sub, known)
			if err != nil {
				return nil, nil, err
			}
			debris = append(debris, left...)
		}
		if limit, err := btrfs.LimitOf(filepath.Join(s.path, id, "data")); err != nil {
			return nil, nil, err
		} else if limit != object.Size && !object.Sealed || limit != 1 && object.Sealed {
			debris = append(debris, fmt.Sprintf("%s has size %d, is sealed: %t, and has limit %d", id, object.Size, object.Sealed, limit))
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

func TestConformance(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) { drivertest.Conformance(t, harness(disks[0], true)) })
}

func TestCrashSweep(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) { drivertest.CrashSweep(t, harness(disks[0], false)) })
}
