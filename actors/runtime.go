package actors

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairn-storage/cairn"
)

// Runtime runs the actors of one node. It owns the goroutines of the passes and one timer; an idle actor has neither.
type Runtime struct {
	cfg   Config
	start time.Time
	base  context.Context
	stop  context.CancelFunc

	mu     sync.Mutex
	random *rand.Rand
	kinds  map[cairn.Kind]*kind
	queue  []*mailbox
	timers timers
	slots  int // places taken, at most cfg.Parallel
	slow   int // passes that run without a place
	stats  Stats
	closed bool
	ended  chan struct{} // closed when the runtime is closed and no pass runs
}

type kind struct {
	name  cairn.Kind
	actor Actor
	boxes map[string]*mailbox
}

// mailbox is an actor that has something ahead of it. There may be one for every resource of the node, so it fits into
// 48 bytes; what only a running or failing actor needs hangs off it.
type mailbox struct {
	kind     *kind
	id       string
	pass     *pass         // the one that runs, or the last one if it failed
	due      time.Duration // since Runtime.start; meaningful while it has a place among the timers
	place    int32         // index among the timers, or noPlace
	attempts uint16        // failed passes in a row; saturates
	state    state
}

type pass struct {
	since time.Duration
	slow  bool
	err   string
	step  atomic.Pointer[string]
}

type state uint8

const (
	idle    state = iota
	queued        // in Runtime.queue
	running       // a pass runs
	again         // a pass runs and a wake has come meanwhile: exactly one more pass follows
)

// New makes a runtime. Handle every kind before the first wake.
func New(cfg Config) *Runtime {
	cfg = cfg.withDefaults()
	base, stop := context.WithCancel(context.Background())
	return &Runtime{
		cfg:    cfg,
		start:  cfg.Clock.Now(),
		base:   base,
		stop:   stop,
		random: rand.New(cfg.Random),
		kinds:  make(map[cairn.Kind]*kind),
		ended:  make(chan struct{}),
	}
}

// Handle names the actor of a kind.
func (r *Runtime) Handle(name cairn.Kind, actor Actor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds[name] = &kind{name: name, actor: actor, boxes: make(map[string]*mailbox)}
}

// Wake makes the actor look again: now if it is idle or waits for a later time, once more after the pass that runs. It
// never blocks. Keys of a kind that nobody handles are ignored.
func (r *Runtime) Wake(key Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[key.Kind]
	if k == nil || r.closed {
		return
	}
	r.stats.Wakes++
	m := k.boxes[key.ID]
	if m == nil {
		m = &mailbox{kind: k, id: key.ID, place: noPlace}
		k.boxes[key.ID] = m
	}
	switch m.state {
	case idle:
		r.timers.remove(m)
		r.enqueue(m)
		r.dispatch()
	case running:
		m.state = again
	case queued, again:
		r.stats.Coalesced++
	}
}

// WakeAll wakes every key.
func (r *Runtime) WakeAll(keys iter.Seq[Key]) {
	for key := range keys {
		r.Wake(key)
	}
}

// Status describes the actor; false means that it is idle and waits for a wake.
func (r *Runtime) Status(key Key) (ActorStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[key.Kind]
	if k == nil || k.boxes[key.ID] == nil {
		return ActorStatus{}, false
	}
	m := k.boxes[key.ID]
	status := ActorStatus{Queued: m.state == queued, Attempts: int(m.attempts)}
	if m.state == idle && m.place != noPlace {
		status.Next = r.start.Add(m.due)
	}
	if m.pass == nil {
		return status, true
	}
	if m.state == running || m.state == again {
		status.Since = r.start.Add(m.pass.since)
	}
	if step := m.pass.step.Load(); step != nil {
		status.Step = *step
	}
	status.LastError = m.pass.err
	return status, true
}

// Stats counts.
func (r *Runtime) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	for _, k := range r.kinds {
		s.Actors += len(k.boxes)
	}
	s.Queued = len(r.queue)
	s.Running = r.slots + r.slow
	s.Slow = r.slow
	s.Delayed = max(0, len(r.timers.heap)-r.slots) // a pass with a place waits for SlotTimeout among the timers
	return s
}

// Close starts no more passes, ends the contexts of those that run, and waits for them. The error names how many did not
// end before the context did; of their driver calls the outcome is unknown, and the next start looks.
func (r *Runtime) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		r.queue = nil
		r.timers.clear()
		r.stop()
		r.endIfDone()
	}
	r.mu.Unlock()
	select {
	case <-r.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("actors: %d passes still run: %w", r.Stats().Running, context.Cause(ctx))
	}
}

func (r *Runtime) endIfDone() {
	if r.closed && r.slots+r.slow == 0 {
		close(r.ended)
	}
}

func (r *Runtime) now() time.Duration { return r.cfg.Clock.Now().Sub(r.start) }

func (r *Runtime) enqueue(m *mailbox) {
	m.state = queued
	r.queue = append(r.queue, m)
}

// dispatch starts passes while there are places, oldest wake first.
func (r *Runtime) dispatch() {
	for len(r.queue) > 0 && r.slots < r.cfg.Parallel {
		m := r.queue[0]
		r.queue[0] = nil
		if r.queue = r.queue[1:]; len(r.queue) == 0 {
			r.queue = nil // a burst's array is not kept
		}
		r.slots++
		r.stats.Passes++
		m.state = running
		m.pass = &pass{since: r.now()}
		r.delay(m, r.cfg.SlotTimeout)
		r.cfg.Executor.Go(func() { r.run(m) })
	}
}

// delay puts m among the timers and sees to it that the alarm rings in time.
func (r *Runtime) delay(m *mailbox, after time.Duration) {
	now := r.now()
	m.due = now + after
	r.timers.add(m)
	r.timers.arm(now, r.cfg.Clock, r.ring)
}

// ring is the one alarm: it wakes what is due, takes the place of passes that are slow, and arms itself again.
func (r *Runtime) ring() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	now := r.now()
	for m := r.timers.due(now); m != nil; m = r.timers.due(now) {
		if m.state == idle {
			r.enqueue(m)
			continue
		}
		m.pass.slow = true
		r.slots--
		r.slow++
	}
	r.dispatch()
	r.timers.disarm()
	r.timers.arm(now, r.cfg.Clock, r.ring)
}

func (r *Runtime) run(m *mailbox) {
	ctx, cancel := context.WithTimeout(context.WithValue(r.base, passKey{}, m.pass), r.cfg.PassTimeout)
	defer cancel()
	outcome, err := r.attempt(ctx, m)
	r.finish(m, outcome, err)
}

// panicked is the error of a pass that panicked.
type panicked struct {
	cause any
	stack string
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.cause) }

// attempt turns a panic into the failure of this one pass.
func (r *Runtime) attempt(ctx context.Context, m *mailbox) (outcome Outcome, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = &panicked{cause, string(debug.Stack())}
		}
	}()
	return m.kind.actor.Reconcile(ctx, m.id)
}

func (r *Runtime) finish(m *mailbox, outcome Outcome, err error) {
	r.mu.Lock()
	r.timers.remove(m)
	if m.pass.slow {
		r.slow--
	} else {
		r.slots--
	}
	if r.closed {
		r.endIfDone()
		r.mu.Unlock()
		return
	}
	failedBefore := m.attempts
	wait := r.settle(m, outcome, err)
	switch {
	case m.state == again:
		r.enqueue(m)
	case wait > 0:
		m.state = idle
		r.delay(m, wait)
	default:
		delete(m.kind.boxes, m.id)
	}
	r.dispatch()
	r.mu.Unlock()
	r.log(m.kind.name, m.id, failedBefore, wait, err)
}

// settle counts the result of a pass and returns how long the actor waits if nobody wakes it; 0 is for ever.
func (r *Runtime) settle(m *mailbox, outcome Outcome, err error) time.Duration {
	if err != nil {
		r.stats.Failures++
		if _, ok := err.(*panicked); ok {
			r.stats.Panics++
		}
		m.pass.err = err.Error()
		if m.attempts < math.MaxUint16 {
			m.attempts++
		}
		return r.backoff(m.attempts)
	}
	m.attempts = 0
	m.pass = nil
	if outcome.Again <= 0 {
		return 0
	}
	tenth := outcome.Again / 10
	return max(1, outcome.Again-tenth+time.Duration(r.random.Int64N(int64(2*tenth)+1)))
}

func (r *Runtime) backoff(attempts uint16) time.Duration {
	wait := r.cfg.Backoff.Max
	if doublings := attempts - 1; doublings < 32 && r.cfg.Backoff.Min<<doublings>>doublings == r.cfg.Backoff.Min {
		wait = min(wait, r.cfg.Backoff.Min<<doublings)
	}
	half := wait / 2
	return wait - time.Duration(r.random.Int64N(int64(half)+1))
}

// log says that an actor began to fail and that it recovered; the attempts in between are for those who look closely.
func (r *Runtime) log(kind cairn.Kind, id string, failedBefore uint16, wait time.Duration, err error) {
	actor := Key{kind, id}.String()
	if p, ok := err.(*panicked); ok {
		r.cfg.Logger.Error("actor panicked; it tries again", "actor", actor, "error", err, "in", wait.Round(time.Millisecond), "stack", p.stack)
		return
	}
	switch {
	case err != nil && failedBefore == 0:
		r.cfg.Logger.Warn("actor failed; it tries again", "actor", actor, "error", err, "in", wait.Round(time.Millisecond))
	case err != nil:
		r.cfg.Logger.Debug("actor failed again", "actor", actor, "error", err, "attempts", failedBefore+1, "in", wait.Round(time.Millisecond))
	case failedBefore > 0:
		r.cfg.Logger.Info("actor recovered", "actor", actor, "failed_attempts", failedBefore)
	}
}
