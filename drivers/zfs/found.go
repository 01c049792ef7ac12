package zfs

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// state is what is under way with a replica. Only with stateReady may it be served.
type state string

const (
	stateReady     state = "ready"
	stateAdopting  state = "adopting"  // the data is somebody else's still: never destroyed
	stateReleasing state = "releasing" // the data is somebody else's already
	stateReceiving state = "receiving" // disposable
)

// found is a replica as it is on disk.
type found struct {
	at                          string // the dataset; not under its own name while it is adopted or released
	state                       state
	epoch                       uint64
	source, reverted, receiving cairn.SnapshotID
	adopted, released           string           // names
	row                         row              // the rest
	snapshots                   []row            // all that are there, ours or not
	bookmarks                   map[string]int64 // name -> transaction group
}

// at is where a replica is once it is placed.
func (p *Pool) at(id cairn.ReplicaID) string { return p.dataset + "/" + p.prefix + string(id) }

// look finds the replica of o. cairn.ErrNotFound only if it is certainly absent: neither under its own name nor, marked,
// under another one, in a listing in which the dataset of the pool has shown its mark.
func (o *op) look() (found, error) {
	if err := o.checkHealth(); err != nil {
		return found{}, err
	}
	f, err := o.lookAt(o.at(o.id))
	if !errors.Is(err, errGone) {
		return f, err
	}
	return o.lookElsewhere()
}

func (o *op) lookAt(at string) (found, error) {
	rows, err := o.list("-d", "1", "-t", "filesystem,volume,snapshot,bookmark", at)
	if err != nil {
		return found{}, err
	}
	return o.read(rows)
}

// lookElsewhere looks through all datasets of the pool, once nothing has the replica's own name.
func (o *op) lookElsewhere() (found, error) {
	rows, err := o.list("-d", "1", "-t", "filesystem,volume", o.dataset)
	if err != nil {
		return found{}, fmt.Errorf("dataset %s of the pool: %w", o.dataset, unavailable(err))
	}
	if err := o.checkParent(rows[0]); err != nil {
		return found{}, err
	}
	for _, r := range rows[1:] {
		if r["cairn:id"] != string(o.id) {
			continue
		}
		f, err := o.lookAt(r["name"])
		if err != nil {
			return found{}, err
		}
		if f.state == stateReady || f.state == stateReceiving {
			return found{}, fmt.Errorf("dataset %s carries its mark: it was renamed behind our back; rename it to %s: %w", f.at, o.at(o.id), cairn.ErrPrecondition)
		}
		return f, nil
	}
	return found{}, cairn.ErrNotFound
}

// unavailable gives errGone of the pool's own dataset its meaning: the pool does not answer.
func unavailable(err error) error {
	if errors.Is(err, errGone) {
		return fmt.Errorf("%w: %w", cairn.ErrUnavailable, err)
	}
	return err
}

// read makes a replica of the rows of its dataset, which come first, and of its snapshots and bookmarks.
func (o *op) read(rows []row) (found, error) {
	first := rows[0]
	at := first["name"]
	switch {
	case first["cairn:id"] == "":
		return found{}, fmt.Errorf("dataset %s carries no mark: %w", at, errForeign)
	case first["cairn:id"] != string(o.id):
		return found{}, fmt.Errorf("dataset %s carries the mark of replica %s: %w", at, first["cairn:id"], errForeign)
	}
	epoch, err := strconv.ParseUint(cmp.Or(first["cairn:epoch"], "0"), 10, 64)
	if err != nil {
		return found{}, fmt.Errorf("dataset %s: epoch %q is no number: %w", at, first["cairn:epoch"], cairn.ErrCorrupt)
	}
	f := found{
		at: at, state: state(first["cairn:state"]), epoch: epoch, row: first,
		source: cairn.SnapshotID(first["cairn:source"]), reverted: cairn.SnapshotID(first["cairn:reverted"]),
		receiving: cairn.SnapshotID(first["cairn:receiving"]),
		adopted:   first["cairn:adopted"], released: first["cairn:released"],
		bookmarks: make(map[string]int64),
	}
	if f.state == "" { // a release that was cut off while it took the mark away
		f.state, f.released = stateReleasing, path.Base(at)
	}
	for _, r := range rows[1:] {
		switch r["type"] {
		case "snapshot":
			f.snapshots = append(f.snapshots, r)
		case "bookmark":
			_, name, _ := strings.Cut(r["name"], "#")
			f.bookmarks[name] = r.number("createtxg")
		}
	}
	return f, nil
}

func (f found) ready() bool { return f.state == stateReady }

// size is the refquota where that is all there is to a size. Else it is what the last complete change of size has recorded.
func (f found) size() int64 {
	if f.row["cairn:thick"] == "" && f.row["cairn:reserve"] == "" {
		return f.row.number("refquota")
	}
	return f.row.number("cairn:size")
}

func (f found) sealed() bool { return f.row["readonly"] == "on" }

// snapshot returns the row of a snapshot of ours, or nil.
func (f found) snapshot(snap cairn.SnapshotID) row {
	if r := f.named(snap); r["cairn:snapshot"] != "" {
		return r
	}
	return nil
}

// named returns the row of a snapshot of that name, whoever's it is, or nil.
func (f found) named(snap cairn.SnapshotID) row {
	at := slices.IndexFunc(f.snapshots, func(r row) bool { return r["name"] == f.at+"@"+string(snap) })
	if at < 0 {
		return nil
	}
	return f.snapshots[at]
}

// checkSnapshot is cairn.ErrNotFound if the replica certainly has no snapshot of that ID, and errForeign if somebody else's
// has its name.
func (f found) checkSnapshot(snap cairn.SnapshotID) error {
	if err := cairn.CheckName("snapshot", string(snap)); err != nil {
		return err
	}
	switch r := f.named(snap); {
	case r == nil:
		return fmt.Errorf("snapshot %s: %w", snap, cairn.ErrNotFound)
	case r["cairn:snapshot"] == "":
		return fmt.Errorf("snapshot %s carries no mark: %w", r["name"], errForeign)
	}
	return nil
}

// checkNoSnapshots is cairn.ErrInUse while a snapshot is there, whoever's.
func (f found) checkNoSnapshots() error {
	if len(f.snapshots) == 0 {
		return nil
	}
	return fmt.Errorf("has %d snapshots, the first is %s: %w", len(f.snapshots), f.snapshots[0]["name"], cairn.ErrInUse)
}

func (f found) checkReady() error {
	if !f.ready() {
		return fmt.Errorf("dataset %s is half made or half removed (%s): %w", f.at, f.state, cairn.ErrPrecondition)
	}
	return nil
}

// admit refuses an epoch below that of the replica, and makes a higher one durable before anything is done in its name.
func (o *op) admit(f *found, epoch uint64) error {
	if epoch < f.epoch {
		return fmt.Errorf("epoch %d is below %d: %w", epoch, f.epoch, cairn.ErrStale)
	}
	if epoch == f.epoch {
		return nil
	}
	f.epoch = epoch
	return o.zfs("set", epochProperty(epoch), f.at)
}

func epochProperty(epoch uint64) string { return "cairn:epoch=" + strconv.FormatUint(epoch, 10) }

// lookReady finds a replica that must be complete, and admits the epoch to it.
func (o *op) lookReady(epoch uint64) (found, error) {
	f, err := o.look()
	if err != nil {
		return found{}, err
	}
	if err := f.checkReady(); err != nil {
		return found{}, err
	}
	return f, o.admit(&f, epoch)
}

// object renders what was found for the contract. What is ready and not mounted, as after a restart of the machine, is
// mounted: an empty mount point must never be served as the data.
func (o *op) object(f found) (drivers.Object, error) {
	if f.ready() {
		if err := o.mount(f); err != nil {
			return drivers.Object{}, err
		}
	}
	return o.render(f, f.ready()), nil
}

// render renders what was found; served: its data is to be had.
func (o *op) render(f found, served bool) drivers.Object {
	object := drivers.Object{ID: o.id, Epoch: f.epoch, Size: f.size(), Sealed: f.sealed(), Reverted: f.reverted, Source: f.source}
	if served {
		object.Ready, object.Root = true, f.row["mountpoint"]
	}
	for _, r := range f.snapshots {
		if r["cairn:snapshot"] == "" {
			continue
		}
		_, name, _ := strings.Cut(r["name"], "@")
		snap := drivers.SnapshotObject{ID: cairn.SnapshotID(name), Order: uint64(r.number("createtxg"))}
		if object.Ready {
			snap.Ready, snap.Root = true, o.snapshotRoot(f, snap.ID)
		}
		object.Snapshots = append(object.Snapshots, snap)
	}
	slices.SortFunc(object.Snapshots, func(a, b drivers.SnapshotObject) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return object
}

func (o *op) snapshotRoot(f found, snap cairn.SnapshotID) string {
	return path.Join(f.row["mountpoint"], ".zfs", "snapshot", string(snap))
}

// mount makes the data reachable under its mount point, with its key if it is encrypted.
func (o *op) mount(f found) error {
	if !path.IsAbs(f.row["mountpoint"]) {
		return fmt.Errorf("dataset %s: mountpoint is %q, not a path: %w", f.at, f.row["mountpoint"], cairn.ErrPrecondition)
	}
	if f.row["mounted"] == "yes" {
		return nil
	}
	if f.row["keystatus"] == "unavailable" {
		if err := o.loadKey(f); err != nil {
			return err
		}
	}
	if err := o.zfs("mount", f.at); err != nil && !errors.Is(err, errThere) {
		return err
	}
	return nil
}
