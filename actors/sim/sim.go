// Package sim is a clock and an executor for package actors that run everything on one thread, in an order that a seed
// decides. The same seed gives the same trace, bit for bit, so a failure that a random run finds can be run again.
//
// Every function that Go is given is a coroutine. One runs at any time; where it calls Yield or Sleep, the seed decides
// which one goes on. Time stands still while anything can run, then jumps to the next timer.
package sim

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/cairn-storage/cairn/actors"
)

// World is a clock, an executor and a source of randomness. It must be used from one goroutine and from the functions
// that it runs.
type World struct {
	Random *rand.Rand
	now    time.Time
	ready  []*task
	timers timerHeap
	timed  uint64 // timers ever made: equal times keep the order in which they were asked for
	tasks  uint64
	active *task
	trace  hash.Hash64
	log    io.Writer
}

type task struct {
	id    uint64
	next  func() (struct{}, bool)
	yield func(struct{}) bool
}

// New makes a world from a seed. log, if not nil, gets every line of the trace.
func New(seed uint64, log io.Writer) *World {
	return &World{
		Random: rand.New(rand.NewPCG(seed, 0)),
		now:    time.Unix(1_700_000_000, 0).UTC(),
		trace:  fnv.New64a(),
		log:    log,
	}
}

// Now is the world's time.
func (w *World) Now() time.Time { return w.now }

// AfterFunc runs f as a coroutine after d.
func (w *World) AfterFunc(d time.Duration, f func()) actors.Timer {
	return w.after(d, func() { w.Go(f) })
}

func (w *World) after(d time.Duration, fire func()) *timer {
	w.timed++
	t := &timer{at: w.now.Add(max(0, d)), order: w.timed, fire: fire}
	heap.Push(&w.timers, t)
	return t
}

// Go makes f runnable.
func (w *World) Go(f func()) {
	w.tasks++
	t := &task{id: w.tasks}
	t.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		f()
	})
	w.ready = append(w.ready, t)
}

// Yield lets another coroutine go on, or the same one. Outside a coroutine it does nothing.
func (w *World) Yield() {
	if t := w.active; t != nil {
		w.ready = append(w.ready, t)
		t.yield(struct{}{})
	}
}

// Sleep parks the coroutine for d. Outside a coroutine it does nothing.
func (w *World) Sleep(d time.Duration) {
	if t := w.active; t != nil {
		w.after(d, func() { w.ready = append(w.ready, t) })
		t.yield(struct{}{})
	}
}

// Step runs one coroutine up to its next Yield, Sleep or end, or else lets time pass up to the next timer. False: nothing
// is left to run or to wait for.
func (w *World) Step() bool {
	if len(w.ready) > 0 {
		i := w.Random.IntN(len(w.ready))
		t := w.ready[i]
		w.ready = append(w.ready[:i], w.ready[i+1:]...)
		w.Tracef("run %d", t.id)
		w.active = t
		t.next()
		w.active = nil
		return true
	}
	for len(w.timers) > 0 {
		t := heap.Pop(&w.timers).(*timer)
		if t.fire == nil {
			continue
		}
		w.now = t.at
		w.Tracef("time %d", w.now.UnixNano())
		fire := t.fire
		t.fire = nil
		fire()
		return true
	}
	return false
}

// RunUntil steps until done reports true; false if that did not happen within limit steps or nothing was left to run.
func (w *World) RunUntil(done func() bool, limit int) bool {
	for range limit {
		if done() {
			return true
		}
		if !w.Step() {
			return done()
		}
	}
	return done()
}

// Tracef adds a line to the trace.
func (w *World) Tracef(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	w.trace.Write([]byte(line + "\n"))
	if w.log != nil {
		fmt.Fprintln(w.log, line)
	}
}

// Hash is the hash of the trace so far.
func (w *World) Hash() uint64 { return w.trace.Sum64() }

type timer struct {
	at    time.Time
	order uint64
	fire  func() // nil: fired or stopped
}

// Stop reports whether it kept the timer from firing.
func (t *timer) Stop() bool {
	pending := t.fire != nil
	t.fire = nil
	return pending
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].order < h[j].order
	}
	return h[i].at.Before(h[j].at)
}
func (h timerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)   { *h = append(*h, x.(*timer)) }

func (h *timerHeap) Pop() any {
	old := *h
	last := len(old) - 1
	t := old[last]
	old[last] = nil
	*h = old[:last]
	return t
}
