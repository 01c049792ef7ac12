package zfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Stat looks at one replica, and mounts it if it is ready and was unmounted.
func (p *Pool) Stat(ctx context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	return look(ctx, p, id, "stat", func(o *op) (drivers.Object, error) {
		f, err := o.look()
		if err != nil {
			return drivers.Object{}, err
		}
		return o.object(f)
	})
}

// List reads every mark with one command, so that all are of one moment. A mark that cannot be read is an error, for nobody
// can say what it would have told. It mounts nothing: what is not mounted is not ready until Stat has mounted it.
func (p *Pool) List(ctx context.Context) ([]drivers.Object, error) {
	return look(ctx, p, "", "list", func(o *op) ([]drivers.Object, error) {
		if err := o.checkHealth(); err != nil {
			return nil, err
		}
		rows, err := o.list("-d", "2", "-t", "filesystem,volume,snapshot", o.dataset)
		if err != nil {
			return nil, unavailable(err)
		}
		if err := o.checkParent(rows[0]); err != nil {
			return nil, err
		}
		var objects []drivers.Object
		for id, rows := range o.marked(rows[1:]) {
			one := &op{Pool: p, ctx: ctx, id: id}
			f, err := one.read(rows)
			if err != nil {
				return nil, err
			}
			objects = append(objects, one.render(f, func(r row) bool { return f.ready() && r["mounted"] == "yes" }))
		}
		slices.SortFunc(objects, func(a, b drivers.Object) int { return strings.Compare(string(a.ID), string(b.ID)) })
		return objects, nil
	})
}

// marked groups the rows of each replica, those of the dataset that counts first. A ready one under another name than its own
// was renamed or copied by hand: it is not where the identity says, so it is not ours.
func (o *op) marked(rows []row) map[cairn.ReplicaID][]row {
	datasets := make(map[cairn.ReplicaID][]row)
	below := make(map[string][]row) // rows of snapshots by their dataset
	for _, r := range rows {
		at, _, isSnapshot := strings.Cut(r["name"], "@")
		id := cairn.ReplicaID(r["cairn:id"])
		switch {
		case isSnapshot:
			below[at] = append(below[at], r)
		case path.Dir(at) == o.dataset && cairn.CheckName("replica", string(id)) == nil:
			datasets[id] = append(datasets[id], r)
		}
	}
	groups := make(map[cairn.ReplicaID][]row)
	for id, all := range datasets {
		home := o.at(id)
		slices.SortStableFunc(all, func(a, b row) int { return cmp.Compare(rank(home, a["name"]), rank(home, b["name"])) })
		s := state(all[0]["cairn:state"])
		switch at := rank(home, all[0]["name"]); {
		case at < 8, at == 8 && (s == stateAdopting || s == stateReleasing || s == ""):
		default:
			continue
		}
		groups[id] = slices.Clone(all)
		for _, r := range all {
			groups[id] = append(groups[id], below[r["name"]]...)
		}
	}
	return groups
}

// Create makes an empty replica with one command, which makes it whole or not at all.
func (p *Pool) Create(ctx context.Context, spec drivers.CreateSpec) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "create", func(o *op) (drivers.Object, error) {
		w, err := o.wishes(spec)
		if err != nil {
			return drivers.Object{}, err
		}
		return o.make(spec, wanted{}, func() error {
			return o.create(w, append([]string{"create"}, append(w.creation, mark(spec, stateReady)...)...), o.at(spec.ID))
		})
	})
}

// wanted is what tells one replica from another of the same ID, beside its size.
type wanted struct {
	source  cairn.SnapshotID
	adopted string
}

// mark renders the identity of a new replica as options.
func mark(spec drivers.CreateSpec, s state) []string {
	return options("cairn:id="+string(spec.ID), epochProperty(spec.Epoch), "cairn:state="+string(s))
}

func options(properties ...string) []string {
	var args []string
	for _, property := range properties {
		args = append(args, "-o", property)
	}
	return args
}

// make finds the replica that is wanted, or has it made by build, after what was half made has been removed.
func (o *op) make(spec drivers.CreateSpec, want wanted, build func() error) (drivers.Object, error) {
	f, err := o.look()
	switch {
	case errors.Is(err, cairn.ErrNotFound):
	case err != nil:
		return drivers.Object{}, err
	default:
		if err := o.admit(&f, spec.Epoch); err != nil {
			return drivers.Object{}, err
		}
		if f.ready() {
			return o.same(f, spec.Size, want)
		}
		if err := o.remove(f); err != nil {
			return drivers.Object{}, err
		}
	}
	err = build()
	if err == nil {
		return o.again()
	}
	if errors.Is(err, cairn.ErrInUse) { // made, but somebody who looked at it has mounted it before the tool could
		if object, lookErr := o.again(); lookErr == nil && object.Ready {
			return object, nil
		}
	}
	return drivers.Object{}, err
}

// same reports the replica that is there if it is the one that is wanted.
func (o *op) same(f found, size int64, want wanted) (drivers.Object, error) {
	if f.size() != size || f.source != want.source || f.adopted != want.adopted {
		return drivers.Object{}, fmt.Errorf("with size %s, source %q and origin %q, not %s, %q and %q: %w",
			cairn.FormatSize(f.size()), f.source, f.adopted, cairn.FormatSize(size), want.source, want.adopted, cairn.ErrExists)
	}
	return o.object(f)
}

// again looks at what a call has just made.
func (o *op) again() (drivers.Object, error) {
	f, err := o.lookAt(o.at(o.id))
	if err != nil {
		return drivers.Object{}, err
	}
	return o.object(f)
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
		return o.remove(f)
	})
}

// remove takes a replica away whatever its state. What is being adopted or released is somebody else's and only loses its
// mark. Bookmarks go with their dataset.
func (o *op) remove(f found) error {
	switch f.state {
	case stateAdopting:
		return o.letGo(f, f.adopted)
	case stateReleasing:
		return o.letGo(f, f.released)
	case stateReceiving:
		return o.discard(f)
	}
	if err := f.checkNoSnapshots(); err != nil {
		return err
	}
	return o.zfs("destroy", f.at)
}

// Seal makes the dataset read-only in the same step in which it takes the epoch. Files that clients have open are refused
// from then on as well.
func (p *Pool) Seal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return change(ctx, p, id, "seal", func(o *op) error {
		f, err := o.look()
		if errors.Is(err, cairn.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.sealed() && epoch == f.epoch {
			return nil
		}
		return o.setReadonly(f, epoch, "readonly=on", epochProperty(epoch))
	})
}

// Unseal makes the dataset writable in the same step in which it takes the epoch.
func (p *Pool) Unseal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return change(ctx, p, id, "unseal", func(o *op) error {
		f, err := o.look()
		if err != nil {
			return err
		}
		if err := f.checkReady(); err != nil {
			return err
		}
		return o.setReadonly(f, epoch, epochProperty(epoch), "readonly=off")
	})
}

// setReadonly sets the properties, whose order matters: zfs remounts a dataset if the last of them is one that mounts have.
// A seal does without, since a remount fails while clients write, and the property alone stops them. What was mounted
// read-only needs the remount to be written to again, also when the property alone was set before a crash.
func (o *op) setReadonly(f found, epoch uint64, properties ...string) error {
	if epoch < f.epoch {
		return fmt.Errorf("epoch %d is below %d: %w", epoch, f.epoch, cairn.ErrStale)
	}
	return o.zfs(slices.Concat([]string{"set"}, properties, []string{f.at})...)
}
