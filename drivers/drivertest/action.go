package drivertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Action makes one wish come true as an actor does: it looks first, does what is missing, and can be repeated after any
// kind of interruption until it succeeds.
type Action struct {
	Name string
	// Needs is the capability without which the action makes no sense; "" for none.
	Needs cairn.Capability
	// Offered says whether the pool has what no Capability names; nil if it needs no more than Needs.
	Offered func(drivers.Pool) bool
	// RevertsIfNeeded: it looks whether the data differs before it reverts. A revert that a crash cut off after its last change
	// of the data is not done again then, and nothing has said in Object.Reverted that it was.
	RevertsIfNeeded bool
	Do              func(ctx context.Context, p drivers.Pool, s Storage, d Data) error
}

const gib = 1 << 30

// possible reports whether a pool can do the action.
func (a Action) possible(p drivers.Pool) bool {
	return (a.Needs == "" || slices.Contains(drivers.CapabilitiesOf(p), a.Needs)) && (a.Offered == nil || a.Offered(p))
}

// stat says what is there; not ready is as good as absent to most wishes.
func stat(ctx context.Context, p drivers.Pool, id cairn.ReplicaID) (drivers.Object, bool, error) {
	object, err := p.Stat(ctx, id)
	if errors.Is(err, cairn.ErrNotFound) {
		return drivers.Object{}, false, nil
	}
	return object, err == nil, err
}

func spec(id cairn.ReplicaID, epoch uint64, size int64) drivers.CreateSpec {
	return drivers.CreateSpec{ID: id, Epoch: epoch, Size: size}
}

func create(id cairn.ReplicaID, epoch uint64, size int64) Action {
	return Action{Name: "create " + string(id), Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		object, _, err := stat(ctx, p, id)
		if err != nil || object.Ready {
			return err
		}
		_, err = p.Create(ctx, spec(id, epoch, size))
		return err
	}}
}

func clone(id cairn.ReplicaID, epoch uint64, source cairn.ReplicaID, snap cairn.SnapshotID) Action {
	name := fmt.Sprintf("clone %s from %s@%s", id, source, snap)
	return Action{Name: name, Needs: cairn.CapClone, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		object, _, err := stat(ctx, p, id)
		if err != nil || object.Ready {
			return err
		}
		_, err = p.(drivers.Cloner).Clone(ctx, spec(id, epoch, gib), source, snap)
		return err
	}}
}

func remove(id cairn.ReplicaID, epoch uint64) Action {
	return Action{Name: "delete " + string(id), Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		_, there, err := stat(ctx, p, id)
		if err != nil || !there {
			return err
		}
		return p.Delete(ctx, id, epoch)
	}}
}

func fill(id cairn.ReplicaID, seed string) Action {
	return Action{Name: fmt.Sprintf("fill %s with %s", id, seed), Do: func(ctx context.Context, p drivers.Pool, _ Storage, d Data) error {
		object, err := p.Stat(ctx, id)
		if err != nil {
			return err
		}
		return d.Fill(object.Root, seed)
	}}
}

func plant(name, seed string) Action {
	return Action{Name: "plant " + name, Do: func(_ context.Context, _ drivers.Pool, s Storage, d Data) error {
		root, err := s.Plant(name)
		if err != nil {
			return err
		}
		return d.Fill(root, seed)
	}}
}

func resize(id cairn.ReplicaID, epoch uint64, size int64) Action {
	name := fmt.Sprintf("resize %s to %s", id, cairn.FormatSize(size))
	return Action{Name: name, Needs: cairn.CapResize, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		object, err := p.Stat(ctx, id)
		if err != nil || object.Size == size && object.Epoch == epoch {
			return err
		}
		return p.(drivers.Resizer).Resize(ctx, id, epoch, size)
	}}
}

func snapshot(id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) Action {
	name := fmt.Sprintf("snapshot %s@%s", id, snap)
	return Action{Name: name, Needs: cairn.CapSnapshot, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		object, err := p.Stat(ctx, id)
		if err != nil || hasSnapshot(object, snap, true) {
			return err
		}
		_, err = p.(drivers.Snapshotter).CreateSnapshot(ctx, id, epoch, snap)
		return err
	}}
}

func removeSnapshot(id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) Action {
	name := fmt.Sprintf("delete snapshot %s@%s", id, snap)
	return Action{Name: name, Needs: cairn.CapSnapshot, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		object, err := p.Stat(ctx, id)
		if err != nil || !hasSnapshot(object, snap, false) {
			return err
		}
		return p.(drivers.Snapshotter).DeleteSnapshot(ctx, id, epoch, snap)
	}}
}

// hasSnapshot reports whether a snapshot is there, half made or not unless it must be ready.
func hasSnapshot(object drivers.Object, snap cairn.SnapshotID, ready bool) bool {
	for _, s := range object.Snapshots {
		if s.ID == snap && (s.Ready || !ready) {
			return true
		}
	}
	return false
}

// revert does not look whether it is necessary: the contract lets it be repeated as long as nobody is served.
func revert(id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) Action {
	name := fmt.Sprintf("revert %s to %s", id, snap)
	return Action{Name: name, Needs: cairn.CapRevert, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		return p.(drivers.Reverter).Revert(ctx, id, epoch, snap)
	}}
}

func adopt(id cairn.ReplicaID, epoch uint64, name string) Action {
	return Action{Name: fmt.Sprintf("adopt %s as %s", name, id), Needs: cairn.CapAdopt, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		object, _, err := stat(ctx, p, id)
		if err != nil || object.Ready {
			return err
		}
		_, err = p.(drivers.Adopter).Adopt(ctx, spec(id, epoch, gib), name)
		return err
	}}
}

func release(id cairn.ReplicaID, epoch uint64, name string) Action {
	return Action{Name: fmt.Sprintf("release %s as %s", id, name), Needs: cairn.CapAdopt, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		_, there, err := stat(ctx, p, id)
		if err != nil || !there {
			return err
		}
		return p.(drivers.Adopter).Release(ctx, id, epoch, name)
	}}
}

// RandomActions is a life of a few replicas that a pool with every capability can live through, the same for the same seed.
// Each action assumes that those before it have succeeded.
func RandomActions(seed uint64, n int) []Action {
	r := rand.New(rand.NewPCG(seed, 0))
	l := life{r: r}
	for len(l.actions) < n {
		l.next(len(l.actions))
	}
	return l.actions
}

// life is the model behind RandomActions: which replicas are there, with which snapshots.
type life struct {
	r        *rand.Rand
	actions  []Action
	replicas []lived
	released []string
}

type lived struct {
	id        cairn.ReplicaID
	snapshots []cairn.SnapshotID
}

func (l *life) next(n int) {
	epoch := uint64(n + 1)
	id, snap := cairn.ReplicaID(fmt.Sprintf("r%d", n)), cairn.SnapshotID(fmt.Sprintf("s%d", n))
	if len(l.replicas) == 0 {
		l.replicas = append(l.replicas, lived{id: id})
		l.actions = append(l.actions, create(id, epoch, gib), fill(id, fmt.Sprint("seed ", n)))
		return
	}
	at := l.r.IntN(len(l.replicas))
	one := &l.replicas[at]
	switch choice := l.r.IntN(10); {
	case choice == 0 && len(l.replicas) < 4:
		l.actions = append(l.actions, create(id, epoch, gib))
		l.replicas = append(l.replicas, lived{id: id})
	case choice == 1 && len(l.released) > 0:
		l.actions = append(l.actions, adopt(id, epoch, l.released[0]))
		l.released = l.released[1:]
		l.replicas = append(l.replicas, lived{id: id})
	case choice == 2 && len(one.snapshots) == 0:
		l.actions = append(l.actions, release(one.id, epoch, "released-"+string(one.id)))
		l.released = append(l.released, "released-"+string(one.id))
		l.replicas = append(l.replicas[:at], l.replicas[at+1:]...)
	case choice == 3 && len(one.snapshots) == 0:
		l.actions = append(l.actions, remove(one.id, epoch))
		l.replicas = append(l.replicas[:at], l.replicas[at+1:]...)
	case choice == 4 && len(one.snapshots) > 0 && len(l.replicas) < 4:
		l.actions = append(l.actions, clone(id, epoch, one.id, one.snapshots[0]))
		l.replicas = append(l.replicas, lived{id: id})
	case choice == 5 && len(one.snapshots) > 0:
		l.actions = append(l.actions, revert(one.id, epoch, one.snapshots[l.r.IntN(len(one.snapshots))]))
	case choice == 6 && len(one.snapshots) > 0:
		l.actions = append(l.actions, removeSnapshot(one.id, epoch, one.snapshots[0]))
		one.snapshots = one.snapshots[1:]
	case choice == 7:
		l.actions = append(l.actions, resize(one.id, epoch, gib+int64(n)))
	case len(one.snapshots) < 3:
		l.actions = append(l.actions, snapshot(one.id, epoch, snap))
		one.snapshots = append(one.snapshots, snap)
	default:
		l.actions = append(l.actions, fill(one.id, fmt.Sprint("seed ", n)))
	}
}
