package node

import (
	"context"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/fsm"
)

// gatherDelay is how long changes are gathered before actors are woken. Reports of actors are log entries, too: without it each
// of them goes to disk by itself, right in front of the next request; with it they share one write with what comes meanwhile.
const gatherDelay = 2 * time.Millisecond

// waker turns changes of the state machine into wakes of the actors on this node. Changes arrive on the goroutine of the
// log, which must not wait: they are gathered, and one goroutine looks at the newest view for all of them.
type waker struct {
	node    cairn.NodeID
	machine *fsm.Machine
	wake    func(actors.Key)

	mu      sync.Mutex
	pending []fsm.Change
	all     bool // everything may have changed
	signal  chan struct{}
}

func newWaker(node cairn.NodeID, machine *fsm.Machine, wake func(actors.Key)) *waker {
	return &waker{node: node, machine: machine, wake: wake, all: true, signal: make(chan struct{}, 1)}
}

// changed is the machine's subscriber. nil means that everything may have changed.
func (w *waker) changed(changes []fsm.Change) {
	w.mu.Lock()
	w.all = w.all || changes == nil
	for _, change := range changes {
		if change.Table == fsm.TableReplicas {
			w.pending = append(w.pending, change)
		}
	}
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default: // a signal is waiting: it will see this change, too
	}
}

// run wakes every actor of this node once, and then those that are concerned by changes, until the context ends.
func (w *waker) run(ctx context.Context) {
	cancel := w.machine.Subscribe(w.changed)
	defer cancel()
	for {
		w.drain()
		select {
		case <-ctx.Done():
			return
		case <-w.signal:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(gatherDelay):
		}
	}
}

func (w *waker) drain() {
	w.mu.Lock()
	pending, all := w.pending, w.all
	w.pending, w.all = nil, false
	w.mu.Unlock()
	switch {
	case all:
		pending = nil
	case len(pending) == 0:
		return
	}
	for key := range replica.Woken(w.machine.View(), w.node, pending) {
		w.wake(key)
	}
}
