package btrfs

import (
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
	placed    bool // in the pool directory itself; if not, half made or half removed in the work directory
	hasData   bool
	data      subvolume
	snapshots []snapshot // of a placed replica, in order of ID
}

// snapshot is a subvolume in the directory of snapshots.
type snapshot struct {
	id cairn.SnapshotID
	subvolume
}

// ready: clients may be served.
func (f found) ready() bool { return f.placed && f.hasData && f.State == stateReady }

// damaged: it was ready and has lost its data. That is never taken for half made, which may be made again.
func (f found) damaged() bool { return f.placed && !f.hasData && f.State == stateReady }

// errMoved: what was looked at was moved meanwhile by a call that changes the replica.
var errMoved = errors.New("was moved meanwhile")

// look finds the replica of o. cairn.ErrNotFound only if it is certainly absent.
func (o *op) look() (found, error) {
	const tries = 10 // a call moves a replica twice at most
	for range tries {
		f, err := o.lookOnce()
		if !errors.Is(err, errMoved) {
			return f, err
		}
	}
	return found{}, fmt.Errorf("%s: %w", o.home(o.id), errMoved)
}

func (o *op) lookOnce() (found, error) {
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
	if placed, err := there(o.home(o.id)); err != nil || placed {
		return found{}, errors.Join(err, errMoved)
	}
	return found{}, cairn.ErrNotFound
}

// lookIn reads a replica's directory. What is missing there is missing only if the directory has not been moved since.
func (o *op) lookIn(dir string) (found, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return found{}, err
	}
	f, err := o.read(dir, info.IsDir())
	if err == nil && !f.damaged() || err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoMark) {
		return f, err
	}
	now, statErr := os.Lstat(dir)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return found{}, errMoved
	case statErr != nil:
		return found{}, statErr
	case !os.SameFile(info, now):
		return found{}, errMoved
	case errors.Is(err, fs.ErrNotExist):
		return found{}, fmt.Errorf("%w: %v", cairn.ErrCorrupt, err) // which is not what absence of the replica looks like
	}
	return f, err
}

func (o *op) read(dir string, isDir bool) (found, error) {
	if !isDir {
		return found{}, errNoMark
	}
	m, err := readMark(dir)
	if err != nil {
		return found{}, err
	}
	if m.ID != o.id {
		return found{}, fmt.Errorf("%s carries the mark of replica %s: %w", dir, m.ID, cairn.ErrCorrupt)
	}
	f := found{mark: m, placed: dir == o.home(o.id)}
	switch f.data, err = subvolumeAt(filepath.Join(dir, "data")); {
	case err == nil:
		f.hasData = true
	case errors.Is(err, errForeign):
		return found{}, fmt.Errorf("%w: %v", cairn.ErrCorrupt, err)
	case !errors.Is(err, fs.ErrNotExist):
		return found{}, err
	}
	if !f.placed {
		return f, nil
	}
	f.snapshots, err = readSnapshots(filepath.Join(dir, "snapshots"))
	return f, err
}

// readSnapshots lists the subvolumes of a directory in order of ID. Whatever else somebody put there is not ours.
func readSnapshots(dir string) ([]snapshot, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []snapshot
	for _, entry := range entries {
		s, err := subvolumeAt(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errForeign) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, snapshot{cairn.SnapshotID(entry.Name()), s})
	}
	slices.SortFunc(list, func(a, b snapshot) int { return strings.Compare(string(a.id), string(b.id)) })
	return list, nil
}

// lookReady finds a replica that must be complete, admits the epoch to it, and removes what a crash has left there.
func (o *op) lookReady(epoch uint64) (found, error) {
	f, err := o.look()
	if err != nil {
		return found{}, err
	}
	if err := f.checkReady(); err != nil {
		return found{}, err
	}
	if err := o.admit(&f, epoch); err != nil {
		return found{}, err
	}
	return f, o.tidy(&f)
}

// tidy removes what a receive has left, and finishes a revert.
func (o *op) tidy(f *found) error {
	arrived, err := os.ReadDir(o.in("receive"))
	if err != nil {
		return err
	}
	for _, entry := range arrived {
		if err := o.remove(o.in("receive", entry.Name())); err != nil {
			return err
		}
	}
	aside, err := subvolumeAt(o.in("aside"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, s := range f.snapshots {
		// The younger one is where the data is, so they were exchanged.
		if f.data.ParentUUID == s.UUID && f.data.Created > aside.Created && f.Reverted != s.id {
			f.Reverted = s.id
			if err := o.writeMark(o.home(o.id), f.mark); err != nil {
				return err
			}
		}
	}
	return o.remove(o.in("aside"))
}

func (f found) checkReady() error {
	switch {
	case f.damaged():
		return fmt.Errorf("its data is missing: %w", cairn.ErrCorrupt)
	case !f.ready():
		return fmt.Errorf("half made or half removed: %w", cairn.ErrPrecondition)
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

// snapshot finds a ready snapshot: cairn.ErrNotFound if the replica, which is there, certainly has none of that ID.
func (f found) snapshot(id cairn.SnapshotID) (snapshot, error) {
	if err := cairn.CheckName("snapshot", string(id)); err != nil {
		return snapshot{}, err
	}
	for _, s := range f.snapshots {
		switch {
		case s.id != id:
		case !s.readOnly():
			return snapshot{}, fmt.Errorf("snapshot %s: is not read-only any more, so nobody knows what it holds: %w", id, cairn.ErrCorrupt)
		default:
			return s, nil
		}
	}
	return snapshot{}, fmt.Errorf("snapshot %s: %w", id, cairn.ErrNotFound)
}

// checkNoSnapshots is cairn.ErrInUse while a snapshot is there.
func (f found) checkNoSnapshots() error {
	if len(f.snapshots) > 0 {
		return fmt.Errorf("has %d snapshots, the first is %s: %w", len(f.snapshots), f.snapshots[0].id, cairn.ErrInUse)
	}
	return nil
}

// object renders what was found for the contract.
func (o *op) object(f found) (drivers.Object, error) {
	if f.damaged() {
		return drivers.Object{}, f.checkReady()
	}
	object := drivers.Object{ID: f.ID, Epoch: f.Epoch, Size: f.Size, Reverted: f.Reverted, Source: f.Source}
	if f.ready() {
		object.Ready, object.Sealed = true, f.data.readOnly()
		object.Root, object.Staging = o.in("data", "files"), o.in("data", "staging")
	}
	for _, s := range f.snapshots {
		object.Snapshots = append(object.Snapshots, o.snapshotObject(s))
	}
	return object, nil
}

func (o *op) snapshotObject(s snapshot) drivers.SnapshotObject {
	object := drivers.SnapshotObject{ID: s.id, Order: s.ID}
	if s.readOnly() {
		object.Ready, object.Root = true, o.in("snapshots", string(s.id), "files")
	}
	return object
}
