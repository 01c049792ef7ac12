package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// found is a replica as it is on disk.
type found struct {
	mark
	placed bool // in the pool directory itself; if not, half made or half removed in the work directory
	data   bool // the data directory is there
}

// ready: clients may be served.
func (f found) ready() bool { return f.placed && f.data }

// damaged: it was ready and has lost its data directory. That is never taken for half made, which may be made again.
func (f found) damaged() bool { return f.placed && !f.data && f.State == stateReady }

// look finds the replica of o. cairn.ErrNotFound only if it is certainly absent.
func (o *op) look() (found, error) {
	f, err := o.lookIn(o.home(o.id))
	switch {
	case errors.Is(err, errNoMark):
		return found{}, fmt.Errorf("%s carries no mark: %w", o.home(o.id), errForeign)
	case !errors.Is(err, fs.ErrNotExist):
		f.placed = true
		return f, err
	}
	f, err = o.lookIn(o.work(o.id))
	switch {
	case errors.Is(err, errNoMark): // cut off between the first two steps, or the last two
		return found{mark: mark{ID: o.id}}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return f, err
	}
	if err := o.checkPoolMark(); err != nil {
		return found{}, err
	}
	return found{}, cairn.ErrNotFound
}

func (o *op) lookIn(dir string) (found, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return found{}, err
	}
	if !info.IsDir() {
		return found{}, errNoMark
	}
	m, err := readMark(dir)
	if err != nil {
		return found{}, err
	}
	if m.ID != o.id {
		return found{}, fmt.Errorf("%s carries the mark of replica %s: %w", dir, m.ID, cairn.ErrCorrupt)
	}
	f := found{mark: m, data: true}
	if _, err := os.Lstat(filepath.Join(dir, "data")); errors.Is(err, fs.ErrNotExist) {
		f.data = false
		// List looks at replicas that other calls are working on. If the directory has been moved since its mark was read, then the
		// data has gone with it and nothing is damaged.
		if now, err := os.Lstat(dir); err != nil {
			return found{}, err
		} else if !os.SameFile(info, now) {
			return found{}, fmt.Errorf("%s was replaced: %w", dir, fs.ErrNotExist)
		}
	} else if err != nil {
		return found{}, err
	}
	if f.data {
		f.State = stateReady // an adoption whose data has arrived, or a release that did not happen
	}
	return f, nil
}

// lookReady finds a replica that must be complete, and admits the epoch to it.
func (o *op) lookReady(epoch uint64) (found, error) {
	f, err := o.look()
	if err != nil {
		return found{}, err
	}
	if err := f.checkReady(o.home(o.id)); err != nil {
		return found{}, err
	}
	return f, o.admit(&f, epoch)
}

func (f found) checkReady(home string) error {
	if err := f.checkWhole(home); err != nil {
		return err
	}
	if !f.ready() {
		return fmt.Errorf("half made or half removed: %w", cairn.ErrPrecondition)
	}
	return nil
}

func (f found) checkWhole(home string) error {
	if f.damaged() {
		return fmt.Errorf("data directory is missing from %s: %w", home, cairn.ErrCorrupt)
	}
	return nil
}

// admit refuses an epoch below that of the replica, and makes a higher one durable before anything is done in its name.
func (o *op) admit(f *found, epoch uint64) error {
	if epoch < f.Epoch {
		return fmt.Errorf("epoch %d is below %d: %w", epoch, f.Epoch, cairn.ErrStale)
	}
	if epoch == f.Epoch || !f.placed {
		return nil
	}
	f.Epoch = epoch
	return o.writeMark(o.home(o.id), f.mark)
}

// object renders what was found for the contract.
func (o *op) object(f found) (drivers.Object, error) {
	home := o.home(o.id)
	if err := f.checkWhole(home); err != nil {
		return drivers.Object{}, err
	}
	object := drivers.Object{ID: f.ID, Epoch: f.Epoch, Size: f.Size, Reverted: f.Reverted, Source: f.Source}
	if !f.placed {
		return object, nil
	}
	if f.ready() {
		object.Ready, object.Root, object.Staging = true, filepath.Join(home, "data"), filepath.Join(home, "staging")
	}
	var err error
	object.Snapshots, err = o.snapshots()
	for i := range object.Snapshots {
		object.Snapshots[i].Order = f.orderOf(object.Snapshots[i].ID)
	}
	return object, err
}

// snapshots lists those of a placed replica, in order of ID.
func (o *op) snapshots() ([]drivers.SnapshotObject, error) {
	var list []drivers.SnapshotObject
	for _, sub := range []string{"snapshots", "work"} {
		entries, err := os.ReadDir(filepath.Join(o.home(o.id), sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			snap := drivers.SnapshotObject{ID: cairn.SnapshotID(entry.Name())}
			if sub == "snapshots" {
				snap.Ready, snap.Root = true, filepath.Join(o.home(o.id), sub, entry.Name())
			}
			list = append(list, snap)
		}
	}
	slices.SortFunc(list, func(a, b drivers.SnapshotObject) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list, nil
}

// checkNoSnapshots is cairn.ErrInUse while a ready snapshot is there. One that is half made or half removed holds nothing.
func (o *op) checkNoSnapshots() error {
	list, err := o.snapshots()
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s drivers.SnapshotObject) bool { return !s.Ready })
	if len(list) > 0 {
		return fmt.Errorf("has %d snapshots, the first is %s: %w", len(list), list[0].ID, cairn.ErrInUse)
	}
	return nil
}

// Stat looks at one replica and walks no data.
func (p *Pool) Stat(ctx context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	return call(ctx, p, id, "stat", func(o *op) (drivers.Object, error) {
		f, err := o.look()
		if err != nil {
			return drivers.Object{}, err
		}
		return o.object(f)
	})
}

// List reads every mark and walks no data. It takes no lock: a replica that is being changed meanwhile is reported as it is
// at that instant. A mark that cannot be read is an error, for nobody can say what it would have told.
func (p *Pool) List(ctx context.Context) ([]drivers.Object, error) {
	return callPool(ctx, p, "list", func(o *op) ([]drivers.Object, error) {
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
		return o.make(spec, &want, func(data string) error {
			return o.do("make data", func() error { return makeDir(data, 0o755, want.Project) })
		})
	})
}

// make finds the replica that want describes, or builds it in the work directory and places it with one rename. fill makes
// its data. want gets the project that the replica has.
func (o *op) make(spec drivers.CreateSpec, want *mark, fill func(data string) error) (drivers.Object, error) {
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
			return o.same(f, *want)
		}
		if err := o.unplace(f); err != nil {
			return drivers.Object{}, err
		}
		if err := o.letGo(f.mark); err != nil {
			return drivers.Object{}, err
		}
	}
	want.Project = f.Project
	if err := o.assign(want); err != nil {
		return drivers.Object{}, err
	}
	if err := o.build(*want, fill); err != nil {
		return drivers.Object{}, o.undo(err, o.discard)
	}
	return o.object(found{mark: *want, placed: true, data: want.State == stateReady})
}

// same reports the replica that is there if it is the one that is wanted.
func (o *op) same(f found, want mark) (drivers.Object, error) {
	object, err := o.object(f)
	if err != nil {
		return drivers.Object{}, err
	}
	if f.Size != want.Size || f.Source != want.Source || f.Adopted != want.Adopted {
		return drivers.Object{}, fmt.Errorf("with size %s, source %q and origin %q, not %s, %q and %q: %w",
			cairn.FormatSize(f.Size), f.Source, f.Adopted, cairn.FormatSize(want.Size), want.Source, want.Adopted, cairn.ErrExists)
	}
	return object, nil
}

// build makes the whole replica aside and places it last. Remains of an earlier attempt keep their mark, and so their
// epoch, until the new one replaces it.
func (o *op) build(want mark, fill func(data string) error) error {
	work := o.work(o.id)
	if err := o.mkdir("make replica", work); err != nil {
		return err
	}
	if err := o.writeMark(work, want); err != nil {
		return err
	}
	if err := o.clear(work); err != nil {
		return err
	}
	if err := o.do("make staging", func() error { return makeDir(filepath.Join(work, "staging"), 0o700, want.Project) }); err != nil {
		return err
	}
	for _, sub := range []string{"snapshots", "work"} {
		if err := o.mkdir("make "+sub, filepath.Join(work, sub)); err != nil {
			return err
		}
	}
	if err := fill(filepath.Join(work, "data")); err != nil {
		return err
	}
	if want.State == stateReady {
		if err := o.limit(want.Project, want.Size); err != nil {
			return err
		}
	}
	if err := o.do("sync replica", func() error { return syncDirs(work) }); err != nil {
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
		if err := o.checkNoSnapshots(); err != nil {
			return err
		}
		return o.remove(f)
	})
}

// remove takes a replica away whatever its state: out of the pool in one step, then piece by piece.
func (o *op) remove(f found) error {
	if err := o.unplace(f); err != nil {
		return err
	}
	return o.discard()
}

// unplace moves a placed replica to the work directory, from where it is no longer served, cloned or counted.
func (o *op) unplace(f found) error {
	if !f.placed {
		return nil
	}
	if err := o.discard(); err != nil {
		return err
	}
	return o.rename("COMMIT take replica away", o.home(o.id), o.work(o.id))
}

// discard removes what is in the work directory of the replica, its mark last.
func (o *op) discard() error {
	work := o.work(o.id)
	if _, err := os.Lstat(work); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	m, err := readMark(work)
	if err != nil && !errors.Is(err, errNoMark) {
		return err
	}
	if err := o.letGo(m); err != nil {
		return err
	}
	if err := o.clear(work); err != nil {
		return err
	}
	if err := o.limit(m.Project, unlimited); err != nil {
		return err
	}
	if err := o.removeTree(work); err != nil {
		return err
	}
	if err := o.do("sync removal", func() error { return syncDirs(o.workRoot()) }); err != nil {
		return err
	}
	o.quota.release(m.Project)
	return nil
}

// clear removes everything in a half-made replica but its mark.
func (o *op) clear(work string) error {
	entries, err := os.ReadDir(work)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == markFile {
			continue
		}
		if err := o.removeTree(filepath.Join(work, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func checkSpec(spec drivers.CreateSpec) error {
	for key := range spec.Specs {
		if strings.HasPrefix(key, "dir:") {
			return fmt.Errorf("extra spec %s: unknown to this driver, which has none: %w", key, cairn.ErrInvalid)
		}
	}
	return cairn.CheckSize(spec.Size)
}
