package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Stat looks at one replica and walks no data.
func (p *Pool) Stat(ctx context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	return look(ctx, p, id, "stat", func(o *op) (drivers.Object, error) {
		f, err := o.look()
		if err != nil {
			return drivers.Object{}, err
		}
		return o.object(f)
	})
}

// List reads every mark and walks no data. A mark that cannot be read is an error, for nobody can say what it would have
// told.
func (p *Pool) List(ctx context.Context) ([]drivers.Object, error) {
	return look(ctx, p, "", "list", func(o *op) ([]drivers.Object, error) {
		ids, err := o.candidates()
		if err != nil {
			return nil, err
		}
		var list []drivers.Object
		for _, id := range ids {
			object, err := (&op{Pool: p, ctx: ctx, id: id}).listed()
			switch {
			case errors.Is(err, cairn.ErrNotFound), errors.Is(err, errForeign):
				continue // gone since, or never ours
			case err != nil:
				return nil, fmt.Errorf("replica %s: %w", id, err)
			}
			list = append(list, object)
		}
		return list, nil
	})
}

// listed is one entry of List. A directory that carries another replica's mark is a copy that somebody made by hand: it is
// not where the identity says, so it is not ours.
func (o *op) listed() (drivers.Object, error) {
	if m, err := readMark(o.home(o.id)); err == nil && m.ID != o.id {
		return drivers.Object{}, errForeign
	}
	f, err := o.look()
	if err != nil {
		return drivers.Object{}, err
	}
	return o.object(f)
}

// candidates are the names that could be replicas, sorted, once each.
func (o *op) candidates() ([]cairn.ReplicaID, error) {
	if err := o.checkPoolMark(); err != nil {
		return nil, err
	}
	var ids []cairn.ReplicaID
	for _, dir := range []string{o.workRoot(), o.path} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if cairn.CheckName("replica", entry.Name()) == nil {
				ids = append(ids, cairn.ReplicaID(entry.Name()))
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Create makes an empty replica.
func (p *Pool) Create(ctx context.Context, spec drivers.CreateSpec) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "create", func(o *op) (drivers.Object, error) {
		want := mark{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, State: stateReady}
		return o.make(spec, want, func(work string) error { return o.makeData(filepath.Join(work, "data"), spec.Size) })
	})
}

// makeData makes an empty subvolume with the layout of data.
func (o *op) makeData(path string, size int64) error {
	if err := o.makeSubvolume(path); err != nil {
		return err
	}
	err := o.do("make files and staging", func() error {
		return errors.Join(os.Mkdir(filepath.Join(path, "files"), 0o755), os.Mkdir(filepath.Join(path, "staging"), 0o700))
	})
	if err != nil {
		return err
	}
	return o.limit(path, size)
}

// make finds the replica that want describes, or builds it in the work directory and places it with one rename. fill makes
// its data there.
func (o *op) make(spec drivers.CreateSpec, want mark, fill func(work string) error) (drivers.Object, error) {
	if err := checkSpec(spec); err != nil {
		return drivers.Object{}, err
	}
	f, err := o.look()
	switch {
	case errors.Is(err, cairn.ErrNotFound):
	case err != nil:
		return drivers.Object{}, err
	default:
		if err := o.admit(&f, spec.Epoch); err != nil {
			return drivers.Object{}, err
		}
		if f.ready() || f.damaged() {
			return o.same(f, want)
		}
		if err := o.unplace(f); err != nil {
			return drivers.Object{}, err
		}
	}
	if err := o.build(want, fill); err != nil {
		return drivers.Object{}, o.undo(err, o.discard)
	}
	return o.again()
}

// again looks at what a call has just made.
func (o *op) again() (drivers.Object, error) {
	f, err := o.look()
	if err != nil {
		return drivers.Object{}, err
	}
	return o.object(f)
}

// same reports the replica that is there if it is the one that is wanted.
func (o *op) same(f found, want mark) (drivers.Object, error) {
	if f.Size != want.Size || f.Source != want.Source || f.Adopted != want.Adopted {
		return drivers.Object{}, fmt.Errorf("with size %s, source %q and origin %q, not %s, %q and %q: %w",
			cairn.FormatSize(f.Size), f.Source, f.Adopted, cairn.FormatSize(want.Size), want.Source, want.Adopted, cairn.ErrExists)
	}
	return o.object(f)
}

// build makes the whole replica aside and places it last. Remains of an earlier attempt keep their mark, and so their
// epoch, until the new one replaces it.
func (o *op) build(want mark, fill func(work string) error) error {
	work := o.work(o.id)
	if err := o.mkdir("make replica", work, 0o700); err != nil {
		return err
	}
	if err := o.writeMark(work, want); err != nil {
		return err
	}
	if err := o.clear(work); err != nil {
		return err
	}
	err := o.do("make directories", func() error {
		return errors.Join(os.Mkdir(filepath.Join(work, "snapshots"), 0o700), os.Mkdir(filepath.Join(work, "receive"), 0o700))
	})
	if err != nil {
		return err
	}
	if err := fill(work); err != nil {
		return err
	}
	if err := o.flush(); err != nil {
		return err
	}
	return o.rename("COMMIT place replica", work, o.home(o.id))
}

// Delete removes a replica that has no snapshots.
func (p *Pool) Delete(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return change(ctx, p, id, "delete", func(o *op) error {
		f, err := o.look()
		if errors.Is(err, cairn.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := o.admit(&f, epoch); err != nil {
			return err
		}
		if err := f.checkNoSnapshots(); err != nil {
			return err
		}
		return o.takeAway(f)
	})
}

// takeAway removes a replica whatever its state: out of the pool in one step, then piece by piece.
func (o *op) takeAway(f found) error {
	if err := o.unplace(f); err != nil {
		return err
	}
	return o.discard()
}

// unplace moves a placed replica to the work directory, from where it is no longer served, cloned or counted. What is being
// adopted or released is somebody else's, and gets its name first.
func (o *op) unplace(f found) error {
	if !f.placed {
		return nil
	}
	if err := o.giveBack(&f); err != nil {
		return err
	}
	if err := o.discard(); err != nil {
		return err
	}
	return o.rename("COMMIT take replica away", o.home(o.id), o.work(o.id))
}

// discard removes what is in the work directory of the replica, its mark last.
func (o *op) discard() error {
	work := o.work(o.id)
	if found, err := there(work); err != nil || !found {
		return err
	}
	if err := o.clear(work); err != nil {
		return err
	}
	return o.remove(work)
}

// clear removes everything in a half-made replica but its mark.
func (o *op) clear(work string) error {
	for _, sub := range []string{"receive", "snapshots", "."} {
		entries, err := os.ReadDir(filepath.Join(work, sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			if entry.Name() == markFile {
				continue
			}
			if err := o.remove(filepath.Join(work, sub, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Resize changes the limit, and then the size in the mark. A sealed replica gets its limit when it is unsealed.
func (p *Pool) Resize(ctx context.Context, id cairn.ReplicaID, epoch uint64, size int64) error {
	return change(ctx, p, id, "resize", func(o *op) error {
		if err := cairn.CheckSize(size); err != nil {
			return err
		}
		f, err := o.lookReady(epoch)
		if err != nil || f.Size == size {
			return err
		}
		if size < f.Size {
			used, err := o.used(o.in("data"))
			if err == nil {
				err = checkFits(used, size)
			}
			if err != nil {
				return err
			}
		}
		if !f.data.readOnly() {
			if err := o.limit(o.in("data"), size); err != nil {
				return err
			}
		}
		f.Size = size
		return o.writeMark(o.home(id), f.mark)
	})
}

// Usage is what the size limits: the bytes that the data refers to, shared with snapshots or not. It waits until what has
// been written counts, so it costs a flush of the file system.
func (p *Pool) Usage(ctx context.Context, id cairn.ReplicaID) (int64, error) {
	return look(ctx, p, id, "usage", func(o *op) (int64, error) {
		f, err := o.look()
		if err != nil {
			return 0, err
		}
		if err := f.checkReady(); err != nil {
			return 0, err
		}
		return o.used(o.in("data"))
	})
}

// Seal sets data read-only, after which nobody opens a file of it for writing, and then a limit that refuses the writes of
// those who have one open.
func (p *Pool) Seal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return change(ctx, p, id, "seal", func(o *op) error {
		_, err := o.lookReady(epoch)
		if errors.Is(err, cairn.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return o.seal(o.in("data"))
	})
}

// seal makes sure that nothing can be written to a subvolume, and that what was written before is in it. The kernel refuses
// to change a subvolume that is at its limit, so that is lifted first.
func (o *op) seal(path string) error {
	s, err := subvolumeAt(path)
	if err != nil {
		return err
	}
	if !s.readOnly() {
		if err := o.limit(path, unlimited); err != nil {
			return err
		}
		if err := o.setReadOnly(path, true); err != nil {
			return err
		}
	}
	if err := o.limit(path, sealedLimit); err != nil {
		return err
	}
	return o.flush()
}

// Unseal is Seal backwards.
func (p *Pool) Unseal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return change(ctx, p, id, "unseal", func(o *op) error {
		f, err := o.lookReady(epoch)
		if err != nil || !f.data.readOnly() {
			return err
		}
		if err := o.limit(o.in("data"), unlimited); err != nil {
			return err
		}
		if err := o.setReadOnly(o.in("data"), false); err != nil {
			return err
		}
		return o.limit(o.in("data"), f.Size)
	})
}

func checkSpec(spec drivers.CreateSpec) error {
	for key := range spec.Specs {
		if strings.HasPrefix(key, "btrfs:") {
			return fmt.Errorf("extra spec %s: unknown to this driver, which has none: %w", key, cairn.ErrInvalid)
		}
	}
	return cairn.CheckSize(spec.Size)
}
