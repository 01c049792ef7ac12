package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/guard"
)

// Engine owns the stores, the state machine and the Raft instance of a node. Its goroutines are one supervisor, one
// forwarder of leadership changes per instance, and one per entry and barrier that Raft has not answered yet; Close awaits
// all but those that wait for a disk that hangs.
type Engine struct {
	config   Config
	stores   *stores
	machine  *machine
	instance atomic.Pointer[instance]
	changed  signal // another leader, or none
	terms    chan bool
	ready    atomic.Uint64 // the term in which this node has committed an entry as leader; 0 = none
	reads    *Rounds
	queue    *queue // of commands that become entries
	transfer *guard.Transfer
	failed   chan error
	restarts chan string
	lifetime
}

// lifetime ends with cancel, and is over when the rest of it has ended.
type lifetime struct {
	ctx     context.Context
	cancel  context.CancelFunc
	watched chan struct{}  // closed when the supervisor has ended
	running sync.WaitGroup // the forwarders of all instances
}

// instance is one life of the Raft library.
type instance struct {
	*raft.Raft
	transport *guard.Transport
	ledger    *guard.Ledger
	notify    chan bool
	leader    chan raft.Observation
	transfer  atomic.Pointer[chan struct{}] // closed when Raft has answered the newest transfer of leadership, and all before it
	done      chan struct{}                 // closed when it has stopped, or should have
	once      sync.Once
	err       error // of stopping
}

// Open opens or creates the stores and starts Raft. found, if set, is the configuration of a new cluster, used if the
// stores are empty.
func Open(config Config, found *raft.Configuration) (*Engine, error) {
	if config.Timing == (Timing{}) {
		config.Timing = DefaultTiming()
	}
	// failpoint: set config.Timing.SnapshotEvery, config.Timing.SnapshotCheck, config.Timing.TrailingLogs = 64, time.Second, 32
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		config: config, machine: &machine{Machine: config.Machine},
		terms: make(chan bool), failed: make(chan error, 1), restarts: make(chan string, 1),
		lifetime: lifetime{ctx: ctx, cancel: cancel, watched: make(chan struct{})},
	}
	e.reads = NewRounds(ctx, e.readRound)
	e.queue = newQueue(e.proposeEntry, e.room)
	e.transfer = &guard.Transfer{Probe: e.probe, Limit: 2 * config.Timing.Heartbeat, Interval: config.Timing.Heartbeat / 4}
	var err error
	if e.stores, err = openStores(&config, ctx.Done()); err != nil {
		cancel()
		return nil, err
	}
	if err := e.start(found); err != nil {
		cancel()
		return nil, errors.Join(err, e.stores.close())
	}
	go e.supervise()
	return e, nil
}

// start runs a new instance. One that is restarted in place finds the machine further than the newest snapshot, unless it was
// stopped while it installed that.
func (e *Engine) start(found *raft.Configuration) error {
	i := &instance{ledger: guard.NewLedger(e.config.Clock), notify: make(chan bool, 8), leader: make(chan raft.Observation, 8), done: make(chan struct{})}
	config := e.config.raft(i.notify)
	config.NoSnapshotRestoreOnStart = e.stores.snapshots.Newest().Index <= e.Applied()
	wire := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: e.config.Streams(), Logger: config.Logger, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: e.config.Timing.RPC,
		MsgpackUseNewTimeFormat: true,
	})
	i.transport = guard.NewTransport(wire, e.stores.disk, e.config.Timing.DiskLimit, i.ledger)
	cached, err := raft.NewLogCache(logCache, e.stores.logs)
	if err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	logs := &guard.Contiguous{LogStore: cached, Snapshots: e.stores.snapshots}
	if found != nil {
		empty, err := e.stores.empty()
		if err == nil && empty {
			err = raft.BootstrapCluster(config, logs, e.stores.vote, e.stores.snapshots, i.transport, *found)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("raft: %w", err), i.transport.Close())
		}
	}
	if i.Raft, err = raft.NewRaft(config, e.machine, logs, e.stores.vote, e.stores.snapshots, i.transport); err != nil {
		return errors.Join(fmt.Errorf("raft: %w", err), i.transport.Close())
	}
	i.transport.Serve(i.Raft)
	i.RegisterObserver(raft.NewObserver(i.leader, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	e.instance.Store(i)
	e.changed.fire()
	e.running.Go(func() { e.forward(i) })
	return nil
}

// stop ends an instance. After an error it may still be running, and needs its stores.
func (i *instance) stop(limit time.Duration) error {
	i.once.Do(func() {
		stopped := make(chan error, 1)
		go func() {
			i.settle(limit / 10) // no longer: it may be stopped because a transfer has stuck
			stopped <- i.Shutdown().Error()
		}()
		select {
		case i.err = <-stopped:
		case <-time.After(limit):
			i.err = fmt.Errorf("raft: has not stopped within %s; the local disk may hang: %w", limit, cairn.ErrTimeout)
		}
		close(i.done)
	})
	return i.err
}

// forward passes on changes of leadership. An instance that ends has lost it.
func (e *Engine) forward(i *instance) {
	leads := false
	emit := func(now bool) {
		leads = now
		if !now {
			e.ready.Store(0)
		}
		select {
		case e.terms <- now:
		case <-e.ctx.Done():
		}
	}
	for {
		select {
		case now := <-i.notify:
			emit(now)
		case <-i.leader:
			e.changed.fire()
		case <-i.transport.Succeeded():
			e.changed.fire()
		case <-i.done:
			if leads {
				emit(false)
			}
			return
		}
	}
}

// supervise restarts the instance when a guard has found a fault that does not heal otherwise, and has snapshots taken: Raft
// counts entries, and a restart replays commands, of which an entry can hold many.
func (e *Engine) supervise() {
	defer close(e.watched)
	check := time.NewTicker(e.config.Timing.SnapshotCheck)
	defer check.Stop()
	for {
		var err error
		select {
		case <-check.C:
			if e.machine.sinceSnapshot() >= e.config.Timing.SnapshotEvery {
				go e.snapshot(e.Raft())
			}
		case loop := <-e.stores.snapshots.Loops():
			err = e.healLog(loop)
		case why := <-e.restarts:
			e.config.Logger.Error("raft: restarted in place", "why", why)
			err = e.restart(func() error { return nil })
		case <-e.ctx.Done():
			return
		}
		if err != nil {
			e.failed <- err
			return
		}
	}
}

// snapshot ends when the instance does, or before.
func (e *Engine) snapshot(r *raft.Raft) {
	if err := r.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
		e.config.Logger.Warn("raft: a snapshot could not be taken; the log grows until one can", "error", err)
	}
}

func (e *Engine) restart(between func() error) error {
	if err := e.instance.Load().stop(e.config.Timing.Stop); err != nil {
		return err
	}
	if err := between(); err != nil {
		return err
	}
	return e.start(nil)
}

// healLog drops a log that contradicts a snapshot which the leader sends again and again. What it looks at may change until Raft has
// stopped, so it looks again then.
func (e *Engine) healLog(loop guard.Point) error {
	conflict, err := e.stores.snapshots.Contradicts(loop, e.stores.logs)
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	if !conflict {
		e.config.Logger.Error("raft: the leader sends the same snapshot again and again, and the log does not say why; see the leader's log", "index", loop.Index)
		return nil
	}
	return e.restart(func() error {
		if conflict, err := e.stores.snapshots.Contradicts(loop, e.stores.logs); err != nil || !conflict {
			return err
		}
		e.config.Logger.Error("raft: log contradicts the leader's snapshot and was dropped; the snapshot has everything", "index", loop.Index)
		return e.stores.wipeLog()
	})
}

// Terms receives true when this node becomes leader and false when it no longer is. Two true in a row cannot happen.
// The receiver must go on receiving until Close.
func (e *Engine) Terms() <-chan bool { return e.terms }

// Failed receives why the engine cannot go on by itself. The node must stop.
func (e *Engine) Failed() <-chan error { return e.failed }

// Raft returns the present instance. It is for membership changes of one term; a restart in place replaces it.
func (e *Engine) Raft() *raft.Raft { return e.instance.Load().Raft }

// Leading reports whether this node is the leader and its state is complete, as far as it knows. Only Read proves it.
func (e *Engine) Leading() bool {
	ready := e.ready.Load()
	i := e.instance.Load()
	return ready != 0 && i.leads(ready)
}

// leads reports whether this instance leads in the term. One whose disk hangs may not have heard that it no longer does.
func (i *instance) leads(term uint64) bool {
	_, _, succeeded := i.transport.Successor()
	return !succeeded && i.State() == raft.Leader && i.CurrentTerm() == term
}

// Leader returns the leader that this node knows of, or "".
func (e *Engine) Leader() (raft.ServerID, raft.ServerAddress) {
	i := e.instance.Load()
	if id, address, ok := i.transport.Successor(); ok {
		return id, address
	}
	address, id := i.LeaderWithID()
	return id, address
}

// LeaderChanged returns a channel that is closed when another leader is known, or none any more.
func (e *Engine) LeaderChanged() <-chan struct{} { return e.changed.wait() }

// Servers returns the newest configuration in the log, committed or not.
func (e *Engine) Servers() []raft.Server {
	future := e.Raft().GetConfiguration() // from memory, never fails
	return future.Configuration().Servers
}

// Voters returns the voters among the servers.
func (e *Engine) Voters() []raft.ServerID {
	var voters []raft.ServerID
	for _, s := range e.Servers() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, s.ID)
		}
	}
	return voters
}

// Applied is the newest log entry that this node's state contains.
func (e *Engine) Applied() uint64 {
	applied, _ := e.machine.position()
	return applied
}

// LastLog returns index and term of the newest entry in the log.
func (e *Engine) LastLog() (index, term uint64) { return lastLog(e.Raft()) }

// DiskWaiting is for how long the local log has not answered a write.
func (e *Engine) DiskWaiting() time.Duration { return e.stores.disk.Waiting() }

// Close stops Raft and closes the stores.
func (e *Engine) Close() error {
	e.cancel()
	e.queue.close()
	<-e.watched // no restart is under way
	stopped := e.instance.Load().stop(e.config.Timing.Stop)
	e.running.Wait()
	if stopped != nil {
		return stopped // an instance that may still be running keeps its stores
	}
	return e.stores.close()
}
