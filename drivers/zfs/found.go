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
	stateAside     state = "aside"     // keeps snapshots that a revert has left behind; see aside.go
)

// found is a replica as it is on disk.
type found struct {
	at                          string // the dataset; not under its own name while it is adopted or released
	state                       state
	epoch                       uint64
	source, reverted, receiving cairn.SnapshotID
	adopted, released           string           // names
	row                         row              // the rest
	snapshots                   []row            // all that are there, ours or not, those beside included
	bookmarks                   map[string]int64 // name -> transaction group
	beside                      []row            // datasets of its own beside it: see aside.go
	below                       []string         // datasets in it, which are somebody else's
	doomed                      []row            // snapshots that go when nothing depends on them any more
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

// lookAt reads a dataset with its snapshots and bookmarks, and those beside it that belong to it.
func (o *op) lookAt(at string) (found, error) {
	f, err := o.lookOnce(at)
	for range 3 { // a call that changes the replica may be renaming what is beside it
		if !errors.Is(err, errMoved) {
			break
		}
		f, err = o.lookOnce(at)
	}
	return f, err
}

func (o *op) lookOnce(at string) (found, error) {
	rows, err := o.rowsOf(at)
	if err != nil {
		return found{}, err
	}
	seen := map[string]bool{at: true}
	for beside := o.related(rows, seen); len(beside) > 0; beside = o.related(rows, seen) {
		more, err := o.rowsOf(beside...)
		if errors.Is(err, errGone) {
			return found{}, fmt.Errorf("%w: %w: %w", errMoved, cairn.ErrUnavailable, err)
		}
		if err != nil {
			return found{}, err
		}
		rows = append(rows, more...)
	}
	return o.read(rows)
}

func (o *op) rowsOf(at ...string) ([]row, error) {
	return o.list(append([]string{"-d", "1", "-t", "filesystem,volume,snapshot,bookmark"}, at...)...)
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
	names := o.placed(rows[1:])
	if len(names) == 0 {
		return found{}, cairn.ErrNotFound
	}
	return o.lookPlaced(names[0])
}

// placed lists the datasets that carry the mark of the replica, the one that counts first.
func (o *op) placed(rows []row) []string {
	var names []string
	for _, r := range rows {
		if r["cairn:id"] == string(o.id) {
			names = append(names, r["name"])
		}
	}
	home := o.at(o.id)
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(rank(home, a), rank(home, b))
	})
	return names
}

func rank(home, name string) int {
	if at := slices.Index([]string{home, home + turnSuffix, home + incomingSuffix}, name); at >= 0 {
		return at
	}
	if strings.HasPrefix(name, home+asideInfix) {
		return 9
	}
	return 8
}

func (o *op) lookPlaced(name string) (found, error) {
	home := o.at(o.id)
	if name == home+incomingSuffix {
		return o.lookIncoming()
	}
	f, err := o.lookAt(name)
	switch {
	case err != nil || name == home || name == home+turnSuffix:
		return f, err
	case f.state == stateAside:
		return found{}, fmt.Errorf("dataset %s keeps snapshots of it, and it is not there itself: %w", name, cairn.ErrPrecondition)
	case f.state == stateReady, f.state == stateReceiving:
		return found{}, fmt.Errorf("dataset %s carries its mark: it was renamed behind our back; rename it to %s: %w", f.at, home, cairn.ErrPrecondition)
	}
	return f, nil
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
	if f.state == stateAside && at == o.at(o.id) { // a revert was announced and has not happened
		f.state = stateReady
	}
	f.gather(o.id, rows[1:])
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
	at := slices.IndexFunc(f.snapshots, func(r row) bool { return r.snapshotName() == string(snap) })
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

// admit refuses an epoch below that of the replica, makes a higher one durable before anything is done in its name, and
// finishes or undoes a revert that was cut off.
func (o *op) admit(f *found, epoch uint64) error {
	if epoch < f.epoch {
		return fmt.Errorf("epoch %d is below %d: %w", epoch, f.epoch, cairn.ErrStale)
	}
	if epoch > f.epoch {
		f.epoch = epoch
		if err := o.zfs("set", epochProperty(epoch), f.at); err != nil {
			return err
		}
	}
	return o.settle(f)
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
	err = o.admit(&f, epoch)
	return f, err
}

// object renders what was found for the contract. What is ready and not mounted, as after a restart of the machine, is
// mounted: an empty mount point must never be served as the data.
func (o *op) object(f found) (drivers.Object, error) {
	if f.ready() {
		if err := o.mount(f); err != nil {
			return drivers.Object{}, err
		}
	}
	return o.render(f, func(row) bool { return f.ready() }), nil
}

// render renders what was found; served: the data of a dataset is to be had.
func (o *op) render(f found, served func(row) bool) drivers.Object {
	object := drivers.Object{ID: o.id, Epoch: f.epoch, Size: f.size(), Sealed: f.sealed(), Reverted: f.reverted, Source: f.source}
	if served(f.row) {
		object.Ready, object.Root = true, f.row["mountpoint"]
	}
	for _, r := range f.snapshots {
		id := cairn.SnapshotID(r.snapshotName())
		switch half := fosterOf(r); {
		case r["cairn:snapshot"] != "":
		case half.name != "":
			id = half.snap
		default:
			continue
		}
		snap := drivers.SnapshotObject{ID: id, Order: uint64(r.number("createtxg"))}
		if of := f.dataset(r); object.Ready && served(of) && r["cairn:snapshot"] != "" {
			snap.Ready, snap.Root = true, path.Join(of["mountpoint"], ".zfs", "snapshot", r.snapshotName())
		}
		object.Snapshots = append(object.Snapshots, snap)
	}
	slices.SortFunc(object.Snapshots, func(a, b drivers.SnapshotObject) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return object
}

// mount makes the data reachable under its mount point, with its key if it is encrypted, and the snapshots beside it, whose
// datasets have the same key.
func (o *op) mount(f found) error {
	all := append([]row{f.row}, f.beside...)
	if f.row["keystatus"] == "unavailable" && slices.ContainsFunc(all, func(r row) bool { return r["mounted"] != "yes" }) {
		if err := o.loadKey(f); err != nil {
			return err
		}
	}
	for _, r := range all {
		if !path.IsAbs(r["mountpoint"]) {
			return fmt.Errorf("dataset %s: mountpoint is %q, not a path: %w", r["name"], r["mountpoint"], cairn.ErrPrecondition)
		}
		if r["mounted"] == "yes" {
			continue
		}
		if err := o.zfs("mount", r["name"]); err != nil && !errors.Is(err, errThere) && !o.mountedMeanwhile(r, err) {
			return err
		}
	}
	return nil
}

// mountedMeanwhile reports whether a mount was refused because another one, by a call that only looks, came first.
func (o *op) mountedMeanwhile(r row, refused error) bool {
	if !errors.Is(refused, cairn.ErrInUse) {
		return false
	}
	now, err := o.list("-d", "0", "-t", "filesystem,volume", r["name"])
	return err == nil && now[0]["mounted"] == "yes"
}
