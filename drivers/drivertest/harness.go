package drivertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Harness brings a pool driver to Conformance and Sweep.
type Harness struct {
	// New makes storage that no pool has used yet; remove lets go of it. Called concurrently.
	New func(t *testing.T) (s Storage, remove func())
	// Data fills roots and tells contents apart. Tree is that of directories.
	Data Data
	// Pretends: nothing on this storage really refuses a write, as on a simulator. Then whether a seal holds is not tried.
	Pretends bool
	// Patience bounds each clause and each crash point; 0 is a time that a machine of its own never takes.
	Patience time.Duration
	// Every has a sweep try one in so many crash points, chosen by its seed; 0 leaves it to CrashSweep, and is all to Sweep.
	Every int
}

// Storage is what a pool keeps its replicas on. It outlives the pool, as a disk outlives a process.
type Storage interface {
	// Open opens a pool over the storage. Everything by which the pool changes the storage goes through step.
	Open(ctx context.Context, step Step) (drivers.Pool, error)
	// Close drops a pool as the end of its process would: it tidies up nothing.
	Close(p drivers.Pool) error
	// Plant makes an object of that name without Cairn's mark, and returns its root.
	Plant(name string) (root string, err error)
	// Survey looks behind the pool's back. foreign are the roots of unmarked objects by name; debris is everything that
	// neither they nor the given objects account for.
	Survey(objects []drivers.Object) (foreign map[string]string, debris []string, err error)
	// Break makes the storage stop answering for its pool, as an unmounted disk or a suspended pool does, until repair.
	Break() (repair func() error, err error)
}

// SnapshotPlanter is the Storage of a pool that adopts snapshots.
type SnapshotPlanter interface {
	// PlantSnapshot cuts a snapshot without Cairn's mark. Survey lists it as foreign, named "replica@name".
	PlantSnapshot(id cairn.ReplicaID, name string) error
}

// Step runs do, which changes the storage, or refuses to. It may be called concurrently.
type Step func(name string, do func() error) error

// Data is what the suite knows of the contents of a replica.
type Data interface {
	// Fill replaces the contents of root by ones that are a function of seed.
	Fill(root, seed string) error
	// Fingerprint tells contents apart: equal for equal contents, different in every detail that a copy must keep.
	Fingerprint(root string) (string, error)
}

// Observation is what a pool and its storage look like from outside.
type Observation struct {
	Objects []drivers.Object
	// Prints are the fingerprints of everything that can be served: "replica", "replica@snapshot", "foreign/name".
	Prints map[string]string
	Debris []string
}

// Observe lists, surveys and reads everything.
func Observe(ctx context.Context, p drivers.Pool, s Storage, d Data) (Observation, error) {
	o := Observation{Prints: make(map[string]string)}
	var err error
	if o.Objects, err = p.List(ctx); err != nil {
		return o, fmt.Errorf("list: %w", err)
	}
	roots := make(map[string]string)
	for _, object := range o.Objects {
		if object.Ready {
			roots[string(object.ID)] = object.Root
		}
		for _, snap := range object.Snapshots {
			if snap.Ready {
				roots[string(object.ID)+"@"+string(snap.ID)] = snap.Root
			}
		}
	}
	foreign, debris, err := s.Survey(o.Objects)
	if err != nil {
		return o, fmt.Errorf("survey: %w", err)
	}
	o.Debris = debris
	for name, root := range foreign {
		roots["foreign/"+name] = root
	}
	for name, root := range roots {
		if o.Prints[name], err = d.Fingerprint(root); err != nil {
			return o, fmt.Errorf("%s is there and cannot be read: %w", name, err)
		}
	}
	return o, nil
}

// String renders everything but paths, one line for each object, snapshot, foreign object and piece of debris.
func (o Observation) String() string {
	var b strings.Builder
	for _, object := range o.Objects {
		fmt.Fprintf(&b, "%s epoch=%d size=%d ready=%t sealed=%t source=%q reverted=%q", object.ID, object.Epoch, object.Size, object.Ready, object.Sealed, object.Source, object.Reverted)
		for _, snap := range object.Snapshots {
			fmt.Fprintf(&b, " snapshot=%s,%t", snap.ID, snap.Ready)
		}
		b.WriteByte('\n')
	}
	for _, name := range slices.Sorted(maps.Keys(o.Prints)) {
		fmt.Fprintf(&b, "%s holds %s\n", name, short(o.Prints[name]))
	}
	for _, piece := range o.Debris {
		fmt.Fprintf(&b, "debris: %s\n", piece)
	}
	return b.String()
}

// withoutReverted is the same without what objects say of reverts.
func (o Observation) withoutReverted() Observation {
	o.Objects = slices.Clone(o.Objects)
	for i := range o.Objects {
		o.Objects[i].Reverted = ""
	}
	return o
}

// object returns what was observed of a replica, or the zero Object.
func (o Observation) object(id cairn.ReplicaID) drivers.Object {
	for _, object := range o.Objects {
		if object.ID == id {
			return object
		}
	}
	return drivers.Object{}
}

// errCrashed is what every step says from the crash on.
var errCrashed = errors.New("the process is dead")

// crasher is a Step that ends the process, so to speak, before or after one of the steps: from then on nothing changes the
// storage any more, clean-up code included.
type crasher struct {
	at    int  // the step that is the last; 0: none
	after bool // whether that step still happens

	mu    sync.Mutex
	names []string
	dead  bool
}

func (c *crasher) step(name string, do func() error) error {
	last, err := c.enter(name)
	if err != nil {
		return err
	}
	err = do()
	if last {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.dead = true
		return errCrashed
	}
	return err
}

func (c *crasher) enter(name string) (last bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false, errCrashed
	}
	c.names = append(c.names, name)
	last = len(c.names) == c.at
	if last && !c.after {
		c.dead = true
		return false, errCrashed
	}
	return last, nil
}

// through is the Step that lets everything pass.
func through(_ string, do func() error) error { return do() }
