package consensus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

const (
	// maxEntries is how many entries are on their way at the same time: one is written and sent while the next one gathers
	// the commands that come meanwhile. With more of them, each would hold fewer commands.
	maxEntries = 2
	// maxBundled and maxBundleBytes bound a bundle. Whoever waits for the first command of a bundle waits for the last one,
	// too, and Raft keeps the newest entries in memory and sends many at once.
	maxBundled     = 256
	maxBundleBytes = 128 << 10
)

// queue gathers commands that come while others are on their way, and makes one log entry of them. A command that finds
// room leaves at once and by itself.
//
// Each entry on its way has one goroutine. Every command is answered exactly once, and the error says what is known of it:
// one that is still here when its caller gives up, or when the queue closes, is certainly not done.
type queue struct {
	// propose makes an entry and returns the result of each command. An error is about all of them. It returns when Raft has
	// stopped, if not before: what waits is waiting for it.
	propose func(commands [][]byte, deadline time.Time) ([]fsm.Result, error)
	// room is how many entries may be on their way, and how many commands each may hold.
	room func() (entries, commands int)

	mu      sync.Mutex
	waiting []*proposal // in the order in which they came
	away    int         // entries on their way
	closed  bool
}

// proposal is one command and, once done is closed, its answer.
type proposal struct {
	data     []byte
	deadline time.Time
	done     chan struct{}
	result   fsm.Result
	err      error
}

func newQueue(propose func([][]byte, time.Time) ([]fsm.Result, error), room func() (int, int)) *queue {
	return &queue{propose: propose, room: room}
}

// do has the command proposed and waits for its result, at most until the context's deadline, which it must have.
func (q *queue) do(ctx context.Context, data []byte) (fsm.Result, error) {
	deadline, _ := ctx.Deadline()
	p := &proposal{data: data, deadline: deadline, done: make(chan struct{})}
	if !q.add(p) {
		return fsm.Result{}, fmt.Errorf("raft: this node is stopping: %w", cairn.ErrUnavailable)
	}
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		if q.withdraw(p) {
			return fsm.Result{}, fmt.Errorf("raft: there was no room for the command before the deadline: %w", cairn.ErrUnavailable)
		}
		return fsm.Result{}, fmt.Errorf("raft: no answer before the deadline: %w", cairn.ErrUnknownOutcome)
	}
}

// add lets the command leave at once if there is room. It reports false after close.
func (q *queue) add(p *proposal) bool {
	entries, _ := q.room()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.waiting = append(q.waiting, p)
	if q.away < entries {
		q.away++
		go q.run()
	}
	return true
}

// withdraw takes the command back; false if it has left.
func (q *queue) withdraw(p *proposal) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, p)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// run makes one entry after the other until nothing waits any more.
func (q *queue) run() {
	for {
		_, most := q.room()
		batch := q.take(most)
		if len(batch) == 0 {
			return
		}
		commands := make([][]byte, len(batch))
		deadline := batch[0].deadline
		for i, p := range batch {
			commands[i] = p.data
			if p.deadline.After(deadline) {
				deadline = p.deadline
			}
		}
		results, err := q.propose(commands, deadline)
		for i, p := range batch {
			if p.err = err; err == nil {
				p.result = results[i]
			}
			close(p.done)
		}
	}
}

// take removes the commands of the next entry: the oldest ones, as many as fit, and at least one.
func (q *queue) take(most int) []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < min(most, len(q.waiting)) {
		if size += len(q.waiting[n].data); n > 0 && size > maxBundleBytes {
			break
		}
		n++
	}
	batch := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	if n == 0 {
		q.away--
	}
	return batch
}

// close refuses all commands from now on, and answers those that wait: nothing of them was done. What is on its way is
// answered by propose.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, p := range q.waiting {
		p.err = fmt.Errorf("raft: this node is stopping: %w", cairn.ErrUnavailable)
		close(p.done)
	}
	q.waiting = nil
}
