package dir_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// The disk is full at one step after the other, and has room again afterwards. Every call says so, keeps what there was, and
// leaves nothing half made behind, since nobody may come back to a disk that is full.
func TestNoSpace(t *testing.T) {
	ctx := t.Context()
	ops := map[string]func(p *dir.Pool) error{
		"create": func(p *dir.Pool) error {
			_, err := p.Create(ctx, drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib})
			return err
		},
		"clone": func(p *dir.Pool) error {
			_, err := p.Clone(ctx, drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib}, "r1", "s1")
			return err
		},
		"adopt": func(p *dir.Pool) error {
			_, err := p.Adopt(ctx, drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib}, "theirs")
			return err
		},
		"snapshot": func(p *dir.Pool) error { _, err := p.CreateSnapshot(ctx, "r1", 1, "s2"); return err },
		"revert":   func(p *dir.Pool) error { return p.Revert(ctx, "r1", 1, "s1") },
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			for at := 1; fillUpAt(t, at, op); at++ {
			}
		})
	}
}

// fillUpAt lets the disk be full at one step of op, and reports whether op has so many.
func fillUpAt(t *testing.T, at int, op func(*dir.Pool) error) bool {
	t.Helper()
	s, remove := newStorage(t, memory(t))
	defer remove()
	counter := &fullDisk{}
	opened, err := s.Open(t.Context(), counter.step)
	must(t, err)
	p := opened.(*dir.Pool)
	must(t, drivertest.Tree{}.Fill(create(t, p, "r1").Root, "one"))
	_, err = p.CreateSnapshot(t.Context(), "r1", 1, "s1")
	must(t, err)
	_, err = s.Plant("theirs")
	must(t, err)
	counter.set(at)
	err = op(p)
	hit := counter.set(0)
	if hit {
		is(t, "on a full disk", err, cairn.ErrNoSpace)
	} else {
		must(t, err)
	}
	seen, err := drivertest.Observe(t.Context(), p, s, drivertest.Tree{})
	must(t, err)
	for _, object := range seen.Objects {
		if !object.Ready || slices.ContainsFunc(object.Snapshots, func(s drivers.SnapshotObject) bool { return !s.Ready }) {
			t.Errorf("disk full at step %d: left half made: %+v", at, object)
		}
	}
	if len(seen.Debris) > 0 {
		t.Errorf("disk full at step %d: left %v", at, seen.Debris)
	}
	must(t, op(p))
	must(t, p.Close())
	return hit
}

// fullDisk is a Step that finds the disk full, once.
type fullDisk struct {
	mu   sync.Mutex
	left int // steps until the disk is full, that one included; 0: never
	hit  bool
}

// set says which of the steps from now on finds the disk full, and reports whether the one set before has come.
func (f *fullDisk) set(at int) (hit bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hit, f.hit, f.left = f.hit, false, at
	return hit
}

func (f *fullDisk) step(name string, do func() error) error {
	if f.full() {
		return fmt.Errorf("%s: %w", name, unix.ENOSPC)
	}
	return do()
}

func (f *fullDisk) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return false
	}
	f.left--
	f.hit = f.left == 0
	return f.hit
}
