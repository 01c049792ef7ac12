// Package replica is the actor of a replica, on the node that hosts it: the only code that touches the replica's object
// on a pool and its exports. Every pass reads what the state machine wants, looks at what the pool and the exporters
// have, takes one idempotent step at a time towards the first, and reports what it found.
//
// It knows views and one command of package fsm, the driver contract and package actors. It knows no Raft, no gRPC and no
// particular driver.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// Viewer reads the replicated state.
type Viewer interface {
	// View is the newest state that this node has. It may be older than the cluster's.
	View() *fsm.View
	// ReadView is linearizable: it holds everything that was committed before the call.
	ReadView(ctx context.Context) (*fsm.View, error)
}

// Applier proposes commands. An error says that nothing is known to be decided; a refusal is in the result.
type Applier interface {
	Apply(ctx context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error)
}

// Config is what the actor works with. Pools and Exporters are those of this node; they must not change.
type Config struct {
	Node      cairn.NodeID
	Viewer    Viewer
	Applier   Applier
	Pools     map[cairn.PoolID]drivers.Pool
	Exporters map[cairn.Protocol]drivers.Exporter
	// Puller reaches the nodes of active replicas; nil on a node that can have no standbys.
	Puller Puller
	// Hint tells a node that one of its standbys may lack something. It must not block; nil tells nobody.
	Hint   func(node cairn.NodeID, standby cairn.ReplicaID)
	Logger *slog.Logger
	// Now is time.Now unless set.
	Now func() time.Time
	// StepTimeout bounds a driver call that moves no data, a look, and a report: 1 minute unless set. A call that may walk
	// or copy the replica gets the time that its size takes at 8 MiB/s on top.
	StepTimeout time.Duration
	// Recheck is how often a healthy replica is looked at without being woken, so that what was lost behind our back is
	// noticed: 1 minute unless set.
	Recheck time.Duration
}

// slowestCopy is the rate, in bytes per second, below which a copy counts as hung; longestCopy is what no copy may exceed.
const (
	slowestCopy = 8 << 20
	longestCopy = 24 * time.Hour
)

// Actor reconciles replicas. It is safe for concurrent use on different replicas, as package actors uses it.
type Actor struct {
	cfg    Config
	served map[cairn.Protocol]*served

	mu      sync.Mutex
	infos   map[cairn.PoolID]drivers.Info
	orphans map[cairn.ReplicaID]Orphan
	// Soft state of replication: what standbys here are doing, and what standbys elsewhere have of the active ones here.
	pulls map[cairn.ReplicaID]pulling
	syncs map[cairn.ReplicaID]SyncState
	feeds map[cairn.ReplicaID]feed
	cuts  map[cairn.ReplicaID]time.Time // when an active replica was last looked at for a sync point
	holds map[held]int                  // snapshots that drills read
	drill cairn.ReplicaID               // the clone of the drill that runs here; "" if none does
}

// New makes the actor.
func New(cfg Config) *Actor {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Hint == nil {
		cfg.Hint = func(cairn.NodeID, cairn.ReplicaID) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.StepTimeout <= 0 {
		cfg.StepTimeout = time.Minute
	}
	if cfg.Recheck <= 0 {
		cfg.Recheck = time.Minute
	}
	a := &Actor{
		cfg:     cfg,
		served:  make(map[cairn.Protocol]*served),
		infos:   make(map[cairn.PoolID]drivers.Info),
		orphans: make(map[cairn.ReplicaID]Orphan),
		pulls:   make(map[cairn.ReplicaID]pulling),
		syncs:   make(map[cairn.ReplicaID]SyncState),
		feeds:   make(map[cairn.ReplicaID]feed),
		cuts:    make(map[cairn.ReplicaID]time.Time),
		holds:   make(map[held]int),
	}
	for protocol, exporter := range cfg.Exporters {
		a.served[protocol] = &served{exporter: exporter, now: cfg.Now, every: cfg.Recheck}
	}
	return a
}

// maxSteps bounds a pass. Each step is taken once in it, so only a replica with hundreds of snapshots to cut or remove gets
// near; what is left is done by the next pass.
const maxSteps = 1000

// maxRereads bounds how often one pass starts again because what is wanted has changed under it.
const maxRereads = 4

// Reconcile takes the replica towards what is wanted and reports. The error is the fault that it reported, or why it could
// not report.
func (a *Actor) Reconcile(ctx context.Context, id string) (actors.Outcome, error) {
	p := &pass{Actor: a, id: cairn.ReplicaID(id), view: a.cfg.Viewer.View()}
	var outcome actors.Outcome
	var err error
	for range maxRereads {
		outcome, err = p.run(ctx)
		switch {
		case errors.Is(err, errUnconfirmed), errors.Is(err, cairn.ErrStale):
			if err := p.confirm(ctx); err != nil {
				return actors.Outcome{}, err
			}
		case err != nil:
			return actors.Outcome{}, fmt.Errorf("replica: %w", err)
		default:
			return outcome, nil
		}
	}
	return actors.Outcome{}, fmt.Errorf("replica: what is wanted keeps changing: %w", err)
}

// errUnconfirmed: the next step changes data, and this node's own view may be too old to decide that.
var errUnconfirmed = errors.New("decision not confirmed")

// pass is one run of the actor for one replica. Nothing of it outlives Reconcile.
type pass struct {
	*Actor
	id        cairn.ReplicaID
	view      *fsm.View
	confirmed bool // view is linearizable

	want *Want
	have *Have
	// done and failed hold the steps that were taken, so that each is taken once in a pass.
	done      map[stepKey]Step
	failed    map[stepKey]error
	locations map[cairn.SnapshotID][]cairn.ExportLocation // of the exports made in this pass
	inSync    bool                                        // a standby that has all there is, as of this pass
	due       bool                                        // an active replica's interval is over
	obstacles
}

// obstacles are what kept a pass from going on; nil did not.
type obstacles struct {
	looked  error // why the look failed
	planned error // why the plan could not go on
	refused error // why the exporter did not take the newest rules
	source  error // why the active replica's node sent nothing
}

// confirm replaces the view with a linearizable one. A node that has just started, or was cut off, has an old view: by it
// a revert that was done long ago looks wanted, and would destroy what was written since. So no step that touches data is
// taken on the word of the local view alone.
func (p *pass) confirm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StepTimeout)
	defer cancel()
	view, err := p.cfg.Viewer.ReadView(ctx)
	if err != nil {
		return fmt.Errorf("replica: confirm what is wanted: %w", err)
	}
	p.view, p.confirmed = view, true
	return nil
}

func (p *pass) run(ctx context.Context) (actors.Outcome, error) {
	row := p.view.Replica(p.id)
	if row == nil {
		return actors.Outcome{}, p.gone(ctx)
	}
	if row.Node != p.cfg.Node {
		return actors.Outcome{}, p.withdraw(ctx)
	}
	p.want, p.refused, p.source, p.inSync = gather(p.view, row), nil, nil, false
	p.due = p.due || p.intervalOver() // also when the pass starts again
	p.done, p.failed = make(map[stepKey]Step), make(map[stepKey]error)
	p.locations = make(map[cairn.SnapshotID][]cairn.ExportLocation)
	if err := p.work(ctx); err != nil {
		return actors.Outcome{}, err
	}
	if err := p.report(ctx); err != nil {
		return actors.Outcome{}, err
	}
	if err := p.trouble(); err != nil {
		return actors.Outcome{}, err
	}
	if p.want.Replica.Want.Presence != cairn.Present {
		return actors.Outcome{}, nil // the row goes; nothing is left to look at
	}
	return actors.Outcome{Again: p.again()}, nil
}

// again is when a healthy replica is looked at without being woken: a replicated one as often as it may have to be synced.
func (p *pass) again() time.Duration {
	if len(p.want.Standbys) > 0 || p.want.Replica.Role == cairn.RoleStandby {
		return min(p.cfg.Recheck, p.want.Interval)
	}
	return p.cfg.Recheck
}

// work looks, plans and takes the first step that it has not taken yet, until there is none. A step that failed does not
// keep the others from being taken. The error ends the pass without a report.
func (p *pass) work(ctx context.Context) error {
	for range maxSteps {
		p.have, p.looked = p.look(ctx)
		p.tell()
		if p.looked != nil {
			return cancelled(ctx)
		}
		var steps []Step
		steps, p.planned = Plan(p.want, p.have)
		if errors.Is(p.planned, cairn.ErrStale) {
			return p.planned
		}
		step, ok := p.next(steps)
		if !ok {
			p.doubt(steps)
			return nil
		}
		if step.Op.changesData() && !p.confirmed {
			return errUnconfirmed
		}
		actors.Doing(ctx, step.String())
		// failpoint: before(step.Op) create clone adopt resize revert snapshot delete_snapshot export unexport delete release cut_a_sync_point pull prune_sync_points
		err := p.perform(ctx, step)
		// failpoint: after(step.Op) create clone adopt resize revert snapshot delete_snapshot export unexport delete release cut_a_sync_point pull prune_sync_points
		switch {
		case errors.Is(err, errSource):
			p.source = err
		case errors.Is(err, cairn.ErrStale):
			return fmt.Errorf("%s: %w", step, err)
		case err != nil && cancelled(ctx) != nil:
			return cancelled(ctx)
		case err != nil:
			p.failed[step.key()] = fmt.Errorf("%s: %w", step, err)
		}
		p.done[step.key()] = step
	}
	return fmt.Errorf("not done after %d steps", maxSteps)
}

// next is the first step that this pass has not taken. An export is another step if it serves something else.
func (p *pass) next(steps []Step) (Step, bool) {
	for _, s := range steps {
		taken, ok := p.done[s.key()]
		if !ok || s.Op == OpExport && !sameExport(taken.Export, s.Export) {
			return s, true
		}
	}
	return Step{}, false
}

// doubt makes failures of the steps that were taken, reported success, and are still to be done: to report the replica as
// settled would be believing the call more than the look.
func (p *pass) doubt(steps []Step) {
	for _, s := range steps {
		if p.failed[s.key()] == nil && !s.Op.leavesNothing() {
			p.failed[s.key()] = fmt.Errorf("%s: reported success and had no effect", s)
		}
	}
}

// cancelled is the error of a pass whose runtime ends: not a fault of the replica.
func cancelled(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pass ended: %w", err)
	}
	return nil
}
