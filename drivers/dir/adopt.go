package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Adopt places an empty replica beside the directory of that name, and then moves the directory into it as its data: one
// rename, before which the directory is as it was and after which the replica is ready.
func (p *Pool) Adopt(ctx context.Context, spec drivers.CreateSpec, name string) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "adopt", func(o *op) (drivers.Object, error) {
		if err := checkForeignName(name); err != nil {
			return drivers.Object{}, err
		}
		want := mark{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, State: stateAdopting, Adopted: name}
		object, err := o.make(spec, &want, func(string) error {
			if err := o.checkAdoptable(name, spec.Size); err != nil {
				return err
			}
			return o.checkNoProject(filepath.Join(o.path, name))
		})
		if err != nil || object.Ready {
			return object, err
		}
		if err := o.moveIn(want, name); err != nil {
			return drivers.Object{}, o.undo(err, func() error { return o.remove(found{mark: want, placed: true}) })
		}
		want.State = stateReady
		if err := o.writeMark(o.home(o.id), want); err != nil {
			return drivers.Object{}, err
		}
		return o.object(found{mark: want, placed: true, data: true})
	})
}

// moveIn has the data counted and limited before it is the replica's.
func (o *op) moveIn(m mark, name string) error {
	from := filepath.Join(o.path, name)
	if m.Project != 0 {
		if err := o.retag(from, 0, m.Project); err != nil {
			return err
		}
	}
	if err := o.limit(m.Project, m.Size); err != nil {
		return err
	}
	return o.rename("COMMIT move data in", from, filepath.Join(o.home(o.id), "data"))
}

// checkAdoptable makes sure that name is a directory that nobody owns and that does not hold more than size.
func (o *op) checkAdoptable(name string, size int64) error {
	path := filepath.Join(o.path, name)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := o.checkPoolMark(); err != nil {
			return err
		}
		return fmt.Errorf("directory %s: %w", path, cairn.ErrNotFound)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: is not a directory: %w", path, cairn.ErrInvalid)
	}
	switch m, err := readMark(path); {
	case err == nil:
		return fmt.Errorf("%s carries the mark of replica %s: %w", path, m.ID, cairn.ErrExists)
	case !errors.Is(err, errNoMark):
		return err
	}
	return o.checkFits(path, size)
}

// Release is Adopt backwards: the mark says what is going to happen, one rename moves the data out, and the rest of the
// replica is removed.
func (p *Pool) Release(ctx context.Context, id cairn.ReplicaID, epoch uint64, name string) error {
	return change(ctx, p, id, "release", func(o *op) error {
		if err := checkForeignName(name); err != nil {
			return err
		}
		f, err := o.look()
		if errors.Is(err, cairn.ErrNotFound) {
			return o.checkReleased(name)
		}
		if err != nil {
			return err
		}
		if err := o.admit(&f, epoch); err != nil {
			return err
		}
		if err := f.checkWhole(o.home(id)); err != nil {
			return err
		}
		switch {
		case f.ready():
			err = o.moveOut(&f, name)
		case f.outside(name):
			err = o.checkReleased(name)
		default:
			err = f.checkReady(o.home(id))
		}
		if err != nil {
			return err
		}
		return o.remove(f)
	})
}

// outside: the data of a replica that is not ready stands outside under that name, because it was moved out, or never in.
func (f found) outside(name string) bool {
	switch f.State {
	case stateReleasing:
		return f.Released == name
	case stateAdopting:
		return f.Adopted == name
	}
	return f.State == "" // cut off when even the mark was removed: only the name can tell
}

func (o *op) moveOut(f *found, name string) error {
	if err := o.checkNoSnapshots(); err != nil {
		return err
	}
	to := filepath.Join(o.path, name)
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%s: %w", to, errForeign)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.State, f.Released = stateReleasing, name
	if err := o.writeMark(o.home(o.id), f.mark); err != nil {
		return err
	}
	f.data = false
	return o.rename("COMMIT move data out", filepath.Join(o.home(o.id), "data"), to)
}

// checkReleased is nil if an unmarked directory of that name is there, as a completed release leaves it.
func (o *op) checkReleased(name string) error {
	return o.checkAdoptable(name, cairn.MaxSize)
}

// checkForeignName refuses names that are not those of a directory directly in the pool, or that are the pool's own.
func checkForeignName(name string) error {
	switch {
	case name == "", name == ".", name == "..", len(name) > cairn.MaxNameLength:
	case strings.ContainsAny(name, "/\x00"), strings.HasPrefix(name, ".cairn-"):
	default:
		return nil
	}
	return fmt.Errorf("name %q: want the name of a directory directly in the pool: %w", name[:min(len(name), 40)], cairn.ErrInvalid)
}
