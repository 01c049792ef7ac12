package btrfs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Adopt takes the directory or subvolume of that name into the replica's home, copies what it holds to a data subvolume
// without copying blocks, and removes it. A directory of another layout cannot become a subvolume, nor its files be renamed
// into one. Until the copy is whole, whatever takes the replica away gives the original its name back.
func (p *Pool) Adopt(ctx context.Context, spec drivers.CreateSpec, name string) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "adopt", func(o *op) (drivers.Object, error) {
		if err := checkForeignName(name); err != nil {
			return drivers.Object{}, err
		}
		if err := checkSpec(spec); err != nil {
			return drivers.Object{}, err
		}
		want := mark{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, State: stateAdopting, Adopted: name}
		f, err := o.look()
		if err != nil && !errors.Is(err, cairn.ErrNotFound) {
			return drivers.Object{}, err
		}
		if err == nil && f.placed && f.Adopted == name && (f.State == stateAdopting || f.State == stateAdopted) {
			if err := o.admit(&f, spec.Epoch); err != nil {
				return drivers.Object{}, err
			}
		} else {
			object, err := o.make(spec, want, func(string) error { return o.checkAdoptable(name, spec.Size) })
			if err != nil || object.Ready {
				return object, err
			}
			f = found{mark: want, placed: true}
		}
		f.Size = spec.Size
		if err := o.adopt(&f); err != nil {
			return drivers.Object{}, o.undo(err, func() error { return o.takeAway(f) })
		}
		return o.again()
	})
}

// adopt goes on where the state of f says.
func (o *op) adopt(f *found) error {
	if f.State == stateAdopting {
		if err := o.takeIn(f); err != nil {
			return err
		}
		if err := o.copyIn(f); err != nil {
			return err
		}
		f.State, f.hasData = stateAdopted, true
		if err := o.writeMark(o.home(o.id), f.mark); err != nil {
			return err
		}
	}
	if err := o.remove(o.in("origin")); err != nil {
		return err
	}
	f.State = stateReady
	return o.writeMark(o.home(o.id), f.mark)
}

func (o *op) takeIn(f *found) error {
	taken, err := there(o.in("origin"))
	if err != nil || taken {
		return err
	}
	if err := o.checkAdoptable(f.Adopted, f.Size); err != nil {
		return err
	}
	return o.rename("take origin in", filepath.Join(o.path, f.Adopted), o.in("origin"))
}

func (o *op) copyIn(f *found) error {
	for _, name := range []string{"aside", "data"} {
		if err := o.remove(o.in(name)); err != nil {
			return err
		}
	}
	if err := o.makeData(o.in("aside"), f.Size); err != nil {
		return err
	}
	if err := o.copyTree(o.in("origin"), o.in("aside", "files")); err != nil {
		return err
	}
	return o.rename("place data", o.in("aside"), o.in("data"))
}

// copyTree makes the directory to equal to another one: contents, modes, owners, times, links, attributes and holes. Files
// share their blocks where the kernel lets them. All is durable then.
func (o *op) copyTree(from, to string) error {
	err := o.tool("copy tree", "cp", "-R", "--no-dereference", "--preserve=mode,ownership,timestamps,links,xattr",
		"--reflink=auto", "--no-target-directory", from, to)
	if err != nil {
		return err
	}
	return o.flush()
}

// checkAdoptable makes sure that name is a directory or subvolume that nobody owns and that does not hold more than size.
func (o *op) checkAdoptable(name string, size int64) error {
	path := filepath.Join(o.path, name)
	switch kind, err := kindOf(path); {
	case err != nil:
		return err
	case kind == kindAbsent:
		if err := o.checkPoolMark(); err != nil {
			return err
		}
		return fmt.Errorf("directory %s: %w", path, cairn.ErrNotFound)
	case kind == kindOther:
		return fmt.Errorf("%s: is not a directory: %w", path, cairn.ErrInvalid)
	}
	switch m, err := readMark(path); {
	case err == nil:
		return fmt.Errorf("%s carries the mark of replica %s: %w", path, m.ID, cairn.ErrExists)
	case !errors.Is(err, errNoMark):
		return err
	}
	used, err := o.survey(path)
	if err != nil {
		return err
	}
	return checkFits(used, size)
}

// Release copies the data to a subvolume with the layout of somebody else, without copying blocks, gives that its name, and
// removes the replica.
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
		switch {
		case f.ready():
			err = o.startRelease(&f, name)
		case f.outside(name) && f.placed:
		case f.outside(name): // cut off when the rest was removed
			err = o.checkReleased(name)
		default:
			err = f.checkReady()
		}
		if err != nil {
			return err
		}
		return o.takeAway(f)
	})
}

// outside: the data of a replica that is not ready is on its way from or to that name, or was.
func (f found) outside(name string) bool {
	switch f.State {
	case stateAdopting, stateAdopted:
		return f.Adopted == name
	case stateReleasing, stateReleased:
		return f.Released == name
	}
	return f.State == "" // cut off when even the mark was removed: only the name can tell
}

func (o *op) startRelease(f *found, name string) error {
	if err := f.checkNoSnapshots(); err != nil {
		return err
	}
	to := filepath.Join(o.path, name)
	if taken, err := there(to); err != nil {
		return err
	} else if taken {
		return fmt.Errorf("%s: %w", to, errForeign)
	}
	f.State, f.Released = stateReleasing, name
	return o.writeMark(o.home(o.id), f.mark)
}

// giveBack gives what is somebody else's its name outside of the replica, from where it is.
func (o *op) giveBack(f *found) error {
	switch f.State {
	case stateAdopting:
		if taken, err := there(o.in("origin")); err != nil || !taken {
			return err
		}
		return o.rename("give origin back", o.in("origin"), filepath.Join(o.path, f.Adopted))
	case stateAdopted:
		f.State, f.Released = stateReleasing, f.Adopted
		if err := o.writeMark(o.home(o.id), f.mark); err != nil {
			return err
		}
	}
	if f.State == stateReleasing {
		if err := o.copyOut(f); err != nil {
			return err
		}
	}
	if f.State != stateReleased {
		return nil
	}
	if left, err := there(o.in("out")); err != nil || !left {
		return err
	}
	return o.rename("COMMIT move data out", o.in("out"), filepath.Join(o.path, f.Released))
}

func (o *op) copyOut(f *found) error {
	if err := o.remove(o.in("out")); err != nil {
		return err
	}
	if err := o.makeSubvolume(o.in("out")); err != nil {
		return err
	}
	if err := o.copyTree(o.in("data", "files"), o.in("out")); err != nil {
		return err
	}
	f.State = stateReleased
	return o.writeMark(o.home(o.id), f.mark)
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
