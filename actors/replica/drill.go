package replica

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
)

// Driller tries out on this node what a failover to one of its standbys would give, with a clone and without any effect on
// the standby or the active replica.
//
// The process that runs a drill owns its clone, and nobody else has to know of it: the clone's identifier says what it is and
// of which standby. What such an object is found after a restart, or after a drill that could not remove it, no drill runs
// for, and the actor removes it like everything half made.
type Driller struct {
	Actor *Actor
	// Clients ask this node's exporters. A protocol that is missing cannot be drilled.
	Clients map[cairn.Protocol]DrillClient
	// Source is what a snapshot of an active replica holds, as the node reads it that has it.
	Source func(ctx context.Context, node cairn.NodeID, id cairn.ReplicaID, snap cairn.SnapshotID) (Content, error)
	Wake   func(actors.Key)
}

// DrillClient is the client of a drill.
type DrillClient struct {
	// From are the addresses that it comes from, where clients are known by theirs; without any, it has a user's password.
	From []string
	// Reach asks for the directory that is served at url.
	Reach func(ctx context.Context, url, user, password string) error
}

// rules let the client in, to read.
func (c DrillClient) rules(password string) []cairn.AccessRule {
	if len(c.From) == 0 {
		return []cairn.AccessRule{{
			ID: drillUser, Kind: cairn.AccessUser, Who: drillUser, Level: cairn.AccessRO, State: cairn.RuleActive, Secret: cairn.HashSecret([]byte(rand.Text()), password),
		}}
	}
	var rules []cairn.AccessRule
	for _, address := range c.From {
		rules = append(rules, cairn.AccessRule{ID: cairn.RuleID(address), Kind: cairn.AccessIP, Who: address, Level: cairn.AccessRO, State: cairn.RuleActive})
	}
	return rules
}

// Drill is what one has shown.
type Drill struct {
	Standby  cairn.ReplicaID
	Snapshot cairn.SnapshotID // what was cloned
	// Cloned, Exported and Answered are how long after the beginning the clone was there, was exported, and had answered a
	// client.
	Cloned, Exported, Answered time.Duration
	// Lag is how long before that answer the standby certainly was as the active replica, negative if that is not known;
	// Behind estimates what it lacked, bytes.
	Lag    time.Duration
	Behind int64
	// Content is what the clone holds, Source what the snapshot holds at the active replica.
	Content, Source Content
}

const (
	drillPrefix = "drill-"
	drillUser   = "drill"
	// drillCleanup is how long the end of a drill may take before it is left to the actor.
	drillCleanup = 30 * time.Second
)

// newDrill makes the identifier of a clone.
func newDrill(standby cairn.ReplicaID) cairn.ReplicaID {
	return cairn.ReplicaID(drillPrefix + strings.ToLower(rand.Text()[:10]) + "-" + string(standby))
}

// drilled returns the standby that a clone is of; ok is false for every other object.
func drilled(id cairn.ReplicaID) (standby cairn.ReplicaID, ok bool) {
	rest, ok := strings.CutPrefix(string(id), drillPrefix)
	if !ok {
		return "", false
	}
	_, of, ok := strings.Cut(rest, "-")
	return cairn.ReplicaID(of), ok
}

// held names a snapshot that a drill reads, so that it is not pruned meanwhile.
type held struct {
	replica  cairn.ReplicaID
	snapshot cairn.SnapshotID
}

// hold keeps a sync point from being pruned until release is called.
func (a *Actor) hold(id cairn.ReplicaID, snap cairn.SnapshotID) (release func()) {
	key := held{id, snap}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds[key]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.holds[key]--; a.holds[key] == 0 {
			delete(a.holds, key)
		}
	}
}

func (a *Actor) isHeld(id cairn.ReplicaID, snap cairn.SnapshotID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holds[held{id, snap}] > 0
}

// drilling reports whether a drill of this process owns the object.
func (a *Actor) drilling(id cairn.ReplicaID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drill == id && id != ""
}

// beginDrill takes the node's place for a drill: each reads the whole replica.
func (a *Actor) beginDrill(id cairn.ReplicaID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.drill != "" {
		return fmt.Errorf("node %s: runs another drill; wait for its end: %w", a.cfg.Node, cairn.ErrBusy)
	}
	a.drill = id
	return nil
}

func (a *Actor) endDrill() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drill = ""
}

// drill is a drill under way.
type drill struct {
	*Driller
	id       cairn.ReplicaID // of the clone
	standby  *cairn.Replica
	active   *cairn.Replica
	protocol cairn.Protocol
	pool     drivers.Cloner
	object   drivers.Object // of the standby
	specs    map[string]string
}

// Drill clones the newest sync point of a standby of this node, serves the clone read-only, asks it as a client, compares what
// it holds with the snapshot at the active replica, and removes it. Errors: cairn.ErrPrecondition if the standby is not in
// sync, ErrBusy while another drill runs here, ErrNoSpace if the pool has no room for a clone that is a copy.
func (d *Driller) Drill(ctx context.Context, id cairn.ReplicaID) (Drill, error) {
	began := time.Now()
	run, err := d.prepare(ctx, id)
	if err != nil {
		return Drill{}, err
	}
	size := time.Duration(run.object.Size/slowestCopy) * time.Second
	ctx, cancel := context.WithTimeout(ctx, min(d.Actor.cfg.StepTimeout+3*size, longestCopy))
	defer cancel()
	if err := d.Actor.beginDrill(run.id); err != nil {
		return Drill{}, err
	}
	result, err := run.try(ctx, began)
	if left := run.clear(ctx); err == nil {
		err = left
	}
	return result, err
}

// prepare finds what a drill needs, or says why there can be none.
func (d *Driller) prepare(ctx context.Context, id cairn.ReplicaID) (*drill, error) {
	a := d.Actor
	ctx, cancel := context.WithTimeout(ctx, a.cfg.StepTimeout)
	defer cancel()
	view, err := a.cfg.Viewer.ReadView(ctx)
	if err != nil {
		return nil, fmt.Errorf("drill: %w", err)
	}
	row := view.Replica(id)
	if row == nil || row.Node != a.cfg.Node {
		return nil, fmt.Errorf("replica %s: is not on node %s: %w", id, a.cfg.Node, cairn.ErrStale)
	}
	want := gather(view, row)
	run := &drill{Driller: d, id: newDrill(id), standby: row, active: view.Replica(want.Share.Active), protocol: want.Share.Protocol, specs: want.Specs}
	pool := a.cfg.Pools[row.Pool]
	cloner, clones := pool.(drivers.Cloner)
	run.pool = cloner
	switch {
	case row.State != cairn.ReplicaInSync:
		return nil, fmt.Errorf("replica %s: is %s; a drill needs a standby that is in sync: %w", id, row.State, cairn.ErrPrecondition)
	case run.active == nil || want.ActiveDown:
		return nil, fmt.Errorf("replica %s: the node of the active replica is down, so there is nothing to compare it with: %w", id, cairn.ErrPrecondition)
	case !clones:
		return nil, fmt.Errorf("pool %s: cannot clone: %w", row.Pool, cairn.ErrNotSupported)
	case a.served[run.protocol] == nil || d.Clients[run.protocol].Reach == nil:
		return nil, fmt.Errorf("node %s: cannot drill a share over %s: %w", a.cfg.Node, run.protocol, cairn.ErrNotSupported)
	}
	if run.object, err = pool.Stat(ctx, id); err != nil {
		return nil, poolError("stat", err)
	}
	return run, d.room(ctx, pool, run.object)
}

// room refuses a clone that is a full copy and would leave the pool less than a tenth of its size.
func (d *Driller) room(ctx context.Context, pool drivers.Pool, object drivers.Object) error {
	info, err := pool.Info(ctx)
	if err != nil || info.AtomicSnapshots { // which share their blocks
		return err
	}
	needs := object.Size
	if reporter, ok := pool.(drivers.UsageReporter); ok {
		if needs, err = reporter.Usage(ctx, object.ID); err != nil {
			return poolError("usage", err)
		}
	}
	if info.Free-needs < info.Total/10 {
		return fmt.Errorf("pool: has %s free, and a copy of %s would leave too little: %w", cairn.FormatSize(info.Free), cairn.FormatSize(needs), cairn.ErrNoSpace)
	}
	return nil
}

func (d *drill) try(ctx context.Context, began time.Time) (result Drill, err error) {
	result = Drill{Standby: d.standby.ID, Snapshot: newestSyncPoint(inOrder(d.object.Snapshots))}
	if result.Snapshot == "" {
		return result, fmt.Errorf("replica %s: has no sync point: %w", d.standby.ID, cairn.ErrPrecondition)
	}
	defer d.Actor.hold(d.standby.ID, result.Snapshot)()
	reading, ctx := errgroup.WithContext(ctx)
	reading.Go(func() (err error) { // first: what the standby has got past, the active one prunes
		result.Source, err = d.Source(ctx, d.active.Node, d.active.ID, result.Snapshot)
		return errIn("what the active replica holds", err)
	})
	reading.Go(func() error {
		root, err := d.serve(ctx, began, &result)
		if err == nil {
			result.Content, err = readContent(ctx, root)
		}
		return errIn("clone", err)
	})
	err = reading.Wait()
	return result, err
}

func errIn(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// serve makes the clone, exports it and asks it, and returns where it lies.
func (d *drill) serve(ctx context.Context, began time.Time, result *Drill) (root string, err error) {
	spec := drivers.CreateSpec{ID: d.id, Epoch: d.standby.Epoch, Size: d.object.Size, Specs: d.specs}
	clone, err := d.pool.Clone(ctx, spec, d.standby.ID, result.Snapshot)
	if err != nil {
		return "", err
	}
	result.Cloned = time.Since(began)
	client, password := d.Clients[d.protocol], rand.Text()
	locations, err := d.Actor.served[d.protocol].export(ctx, drivers.ExportSpec{
		ID: drivers.ExportID{Replica: d.id}, Share: cairn.ShareID(uuid.NewString()), Root: clone.Root, Epoch: d.standby.Epoch, ReadOnly: true, Size: clone.Size,
		Rules: client.rules(password),
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errExport, err)
	}
	result.Exported = time.Since(began)
	if len(locations) == 0 {
		return "", fmt.Errorf("%w: is served nowhere", errExport)
	}
	if err := client.Reach(ctx, locations[0].URL, drillUser, password); err != nil {
		return "", fmt.Errorf("ask it as a client: %w", err)
	}
	result.Answered = time.Since(began)
	result.Lag = -1
	for _, state := range d.Actor.SyncStates([]cairn.ReplicaID{d.standby.ID}) {
		result.Behind = state.Behind
		if !state.AsOf.IsZero() {
			result.Lag = max(0, d.Actor.cfg.Now().Sub(state.AsOf))
		}
	}
	return clone.Root, nil
}

// clear removes the clone, also when the call has been given up. What cannot be removed now the actor goes on with.
func (d *drill) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drillCleanup)
	defer cancel()
	defer d.Wake(actors.Key{Kind: cairn.KindReplica, ID: string(d.id)})
	defer d.Actor.endDrill()
	err := d.Actor.served[d.protocol].unexport(ctx, drivers.ExportID{Replica: d.id})
	if err == nil {
		err = d.Actor.cfg.Pools[d.standby.Pool].Delete(ctx, d.id, d.standby.Epoch)
	}
	if err != nil {
		d.Actor.cfg.Logger.Warn("clone of a drill is not removed yet", "replica", d.standby.ID, "clone", d.id, "error", err)
	}
	return errIn("clone is not removed yet, and will be", err)
}

// Content reads a snapshot of an active replica of this node, for the node of a standby.
func (a *Actor) Content(ctx context.Context, id cairn.ReplicaID, snap cairn.SnapshotID) (Content, error) {
	defer a.hold(id, snap)()
	row := a.cfg.Viewer.View().Replica(id)
	if row == nil || row.Node != a.cfg.Node {
		return Content{}, fmt.Errorf("replica %s: is not on node %s: %w", id, a.cfg.Node, cairn.ErrStale)
	}
	pool := a.cfg.Pools[row.Pool]
	if pool == nil {
		return Content{}, fmt.Errorf("replica %s: %w", id, errPool)
	}
	object, err := pool.Stat(ctx, id)
	if err != nil {
		return Content{}, poolError("stat", err)
	}
	for _, s := range object.Snapshots {
		if s.ID == snap && s.Ready {
			return readContent(ctx, s.Root)
		}
	}
	return Content{}, fmt.Errorf("snapshot %s: has been replaced by a newer one meanwhile; try again: %w", snap, cairn.ErrUnavailable)
}
