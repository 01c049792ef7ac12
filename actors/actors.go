// Package actors runs one actor for every resource: keyed, lazy, coalescing.
//
// An actor is a function from a resource's identifier to "make it so": Reconcile reads what is wanted, looks at what is
// there, and moves one towards the other. A wake says only "look again"; it carries no data, so a lost, doubled or merged
// wake is harmless. At most one pass of an actor runs at any time: that is the lock of its resource on this node.
//
// The package knows no Raft, no state machine and no driver. Clock, randomness and executor are values, so the same
// code runs on goroutines and real time, and single-threaded from a seed (package actors/sim).
package actors

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cairn-storage/cairn"
)

// Key names an actor: the kind of its resource and the resource's identifier.
type Key struct {
	Kind cairn.Kind
	ID   string
}

// String renders "replica/0190…".
func (k Key) String() string { return string(k.Kind) + "/" + k.ID }

// Actor reconciles the resources of one kind. Reconcile must be idempotent, must keep no state that it could not find out
// again, and must return promptly when the context ends. It is called for different identifiers at the same time, never
// for the same one.
type Actor interface {
	Reconcile(ctx context.Context, id string) (Outcome, error)
}

// Outcome is what a pass without an error asks for.
type Outcome struct {
	// Again is when to look again without being woken, give or take a tenth so that resources that started together do
	// not stay together. 0: not before the next wake.
	Again time.Duration
}

// Clock tells the time and calls back. The default is the monotonic clock of the process.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once after d, in a goroutine of its own, unless the timer was stopped before.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a call that has not happened yet. Stop is as of time.Timer.
type Timer interface{ Stop() bool }

// Executor starts f and returns without waiting for it. The default starts a goroutine.
type Executor interface{ Go(f func()) }

// Backoff bounds the wait after a failed pass: Min after the first, twice as long after each further one, at most Max,
// and between half and all of that at random.
type Backoff struct{ Min, Max time.Duration }

// Config is what a runtime is made of. Every zero value has a default.
type Config struct {
	Clock    Clock
	Random   rand.Source // used under the runtime's lock only
	Executor Executor
	Logger   *slog.Logger
	// PassTimeout is the outer deadline of a pass, 48 hours unless set; actors put tighter ones on every call they make.
	PassTimeout time.Duration
	// Parallel is how many passes may run at once, 32 unless set. A pass that has run for SlotTimeout, 10 seconds unless
	// set, gives up its place but not its actor's lock: a long copy or a pool that hangs does not starve the others.
	Parallel    int
	SlotTimeout time.Duration
	Backoff     Backoff // 200 ms to 1 minute unless set
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	if c.Random == nil {
		c.Random = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	if c.Executor == nil {
		c.Executor = goroutines{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.PassTimeout <= 0 {
		c.PassTimeout = 48 * time.Hour
	}
	if c.Parallel <= 0 {
		c.Parallel = 32
	}
	if c.SlotTimeout <= 0 {
		c.SlotTimeout = 10 * time.Second
	}
	if c.Backoff.Min <= 0 {
		c.Backoff.Min = 200 * time.Millisecond
	}
	if c.Backoff.Max < c.Backoff.Min {
		c.Backoff.Max = max(time.Minute, c.Backoff.Min)
	}
	return c
}

type systemClock struct{}

func (systemClock) Now() time.Time                            { return time.Now() }
func (systemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

type goroutines struct{}

func (goroutines) Go(f func()) { go f() }

// ActorStatus is what an operator may know of one actor that is not idle.
type ActorStatus struct {
	Queued bool // waits for a place to run
	// Since is when the running pass began; zero if none runs. Step is what it does, or what the last failed pass did.
	Since time.Time
	Step  string
	// Attempts counts the passes that failed in a row, the last one with LastError.
	Attempts  int
	LastError string
	// Next is when the actor will look again by itself; zero if it waits for a wake.
	Next time.Time
}

// Stats counts what the runtime holds and has done.
type Stats struct {
	Actors  int // that are queued, running, or have a time to look again; an actor with nothing ahead of it costs nothing
	Queued  int
	Running int // passes, those beyond SlotTimeout included
	Slow    int // passes beyond SlotTimeout
	Delayed int // actors with a time to look again

	Wakes     uint64
	Coalesced uint64 // wakes that found one already waiting
	Passes    uint64
	Failures  uint64 // passes that returned an error, panics included
	Panics    uint64
}

type passKey struct{}

// Doing notes what the running pass does now, in a few words, for ActorStatus. Outside a pass it does nothing.
func Doing(ctx context.Context, step string) {
	if p, ok := ctx.Value(passKey{}).(*pass); ok {
		p.step.Store(&step)
	}
}
