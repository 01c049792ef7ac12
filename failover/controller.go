package failover

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/fsm"
)

const (
	interval         = time.Second
	askTimeout       = 500 * time.Millisecond
	callTimeout      = 5 * time.Second
	promotionTimeout = 60 * time.Second
	promotionRest    = 5 * time.Minute
	// batch is how many shares one command fails over: an entry of some 50 KiB.
	batch = 256
	// promotionsAtOnce is how many shares move at a time while nodes are drained; operators' promotions count, too.
	promotionsAtOnce = 8
)

// Viewer reads the replicated state.
type Viewer interface {
	// View is the state as this node knows it.
	View() *fsm.View
	// ReadView is a state that contains everything that was decided before the call.
	ReadView(ctx context.Context) (*fsm.View, error)
}

// Applier proposes commands. An error means that nothing is known to have been decided.
type Applier interface {
	Apply(ctx context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error)
}

// Asker asks a node how far standbys on it are.
type Asker interface {
	// SyncStates returns no later than its context ends. Nodes tell ages, because their clocks differ: AsOf is by the clock
	// of this node, the age counted back from the moment before the question was sent.
	SyncStates(ctx context.Context, node cairn.NodeID, standbys []cairn.ReplicaID) ([]replica.SyncState, error)
}

// Leases keeps a node that is up from writing.
type Leases interface {
	// Withhold returns when the node certainly holds no lease. It gets none before release, and then only when its state contains
	// the log entry of index; or when holds says no more, for the next leader grants leases.
	Withhold(ctx context.Context, node cairn.NodeID) (holds func() bool, release func(index uint64), err error)
}

// Changes tells of every log entry that changed rows, in order and before the next one is applied; nil is a restore.
type Changes interface {
	Subscribe(notify func(changes []fsm.Change)) (cancel func())
}

// Config is what a Controller works with. What is not said to have a default is required.
type Config struct {
	Viewer  Viewer
	Applier Applier
	Asker   Asker
	Leases  Leases
	Changes Changes
	Logger  *slog.Logger
	Timing  Timing // DefaultTiming if it is the zero value
}

// Timing is every duration of a controller.
type Timing struct {
	Interval  time.Duration // after which it looks again at what could not be done when it changed
	Ask       time.Duration // that standbys' nodes may take to say how far they are; shares are unserved meanwhile
	Call      time.Duration // bounds a read and a proposal
	Promotion time.Duration // that a planned one may keep its share from being written to before it is called off
	Rest      time.Duration // that a drain leaves a share alone after a promotion of it was called off
}

// DefaultTiming is for machines in one network.
func DefaultTiming() Timing {
	return Timing{Interval: interval, Ask: askTimeout, Call: callTimeout, Promotion: promotionTimeout, Rest: promotionRest}
}

// Controller is one node's. It works only while the node leads.
type Controller struct {
	config Config
	term   atomic.Pointer[term] // while Run runs
}

// New returns a controller that waits for its node to lead.
func New(config Config) *Controller {
	if config.Timing == (Timing{}) {
		config.Timing = DefaultTiming()
	}
	return &Controller{config: config}
}

// Run decides about shares until the context ends, which is when the leader's term does. One Run at a time. Nothing of it
// survives: the next leader finds everything in the state.
func (c *Controller) Run(ctx context.Context) {
	t := &term{Config: c.config, watch: newWatch(c.config.Viewer, c.config.Timing)}
	cancel := c.config.Changes.Subscribe(t.watch.changed)
	defer cancel()
	t.watch.changed(nil)
	c.term.Store(t)
	defer c.term.Store(nil)
	tick := time.NewTicker(c.config.Timing.Interval)
	defer tick.Stop()
	for {
		select {
		case <-t.watch.wake: // the first time at once
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		t.pass(ctx)
	}
}

// Reason says why a share that should fail over, or leave a node that is drained, does not; "" if there is no reason, and on
// a node that does not lead.
func (c *Controller) Reason(share cairn.ShareID) string {
	if t := c.term.Load(); t != nil {
		return t.reasons.of(share).text
	}
	return ""
}

// term is one term of a leader: what it has seen since it began, and for how long.
type term struct {
	Config
	watch   *watch
	reasons reasons
}

// pass looks at everything that waits for a decision. What it decides rests on a state that contains every earlier
// decision, also one whose outcome this leader never learned.
func (t *term) pass(ctx context.Context) {
	if !t.watch.busy() {
		t.reasons.replace(t.Logger, nil)
		return
	}
	read, cancel := context.WithTimeout(ctx, t.Timing.Call)
	defer cancel()
	view, err := t.Viewer.ReadView(read)
	if err != nil {
		if ctx.Err() == nil {
			t.Logger.Warn("failover: cannot read the state, and looks again in "+t.Timing.Interval.String(), "error", err)
		}
		return
	}
	found := make(map[cairn.ShareID]reason)
	t.failOver(ctx, view, found)
	t.callOff(ctx, view)
	t.drain(ctx, view, found)
	if ctx.Err() == nil {
		t.reasons.replace(t.Logger, found)
	}
}

// propose stamps a command of the leader's own and returns what became of it. Commands carry no token: what is not known to
// have happened is looked up in the next pass, and the state machine refuses what has happened already.
func (t *term) propose(ctx context.Context, c fsm.Command) (fsm.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, t.Timing.Call)
	defer cancel()
	return t.Applier.Apply(ctx, fsm.Meta{At: time.Now().UnixNano(), Actor: "cluster"}, c)
}
