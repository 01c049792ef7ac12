// Package lease is the time-bounded right of a node to write, and the leader's account of who holds one.
//
// The leader keeps a Table; every node keeps a Holder. Both count on a Clock that goes on while the machine sleeps. The
// package starts no goroutine, sends nothing and commits nothing: the caller moves heartbeats and decides when to ask.
//
// What makes it safe, with TTL the length of a lease:
//
//   - A holder counts from before it sent the heartbeat, less the age of the leader's proof that it still was the leader.
//     So a lease ends at most TTL after a moment at which its leader was certainly the only one, however long the answer
//     took and however long either process was stopped.
//   - A table is made when a leader's term begins, and gives every node a full TTL before it may be condemned. So it
//     outwaits every lease that an earlier leader gave.
//   - A node is condemned only TTL + Margin after its last heartbeat arrived, and from that moment is refused a lease until
//     the cluster has committed what became of it.
//   - What a node is allowed may be taken from it while it is up only when it is withheld its lease, and has none any more.
//   - A lease is good for a state. A node is granted one only when its own state contains that it is up, and everything that
//     was committed before this leader's term: what it was allowed before it was condemned may be another's by now.
package lease

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
)

// Clock reads a time that never goes back and counts sleep. Only differences have a meaning.
type Clock func() time.Duration

// Boottime is CLOCK_BOOTTIME.
func Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("lease: CLOCK_BOOTTIME: %v", err)) // every Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Terms are the lengths that a cluster agrees on.
type Terms struct {
	TTL    time.Duration // of a lease
	Margin time.Duration // on top, before a silent node is condemned: for clocks that run at different rates
}

// Holder is a node's own lease. The zero value holds none.
type Holder struct {
	mu    sync.Mutex
	until time.Duration
	held  bool
}

// Grant extends the lease after an answer to a heartbeat sent at sent, by a leader whose proof of leadership was age old
// when it answered. An answer that arrives late never shortens a lease.
func (h *Holder) Grant(sent, age, ttl time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := sent - age + ttl; !h.held || until > h.until {
		h.until, h.held = until, true
	}
}

// Revoke ends the lease at once: the leader has said that it has condemned this node.
func (h *Holder) Revoke() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = false
}

// Left is for how long the lease is good; not positive means that the node must not write.
func (h *Holder) Left(now time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.held {
		return 0
	}
	return h.until - now
}

// Table is the account of one leader's term.
type Table struct {
	terms Terms
	clock Clock
	began time.Duration
	state uint64 // the log entry that the term began with

	mu    sync.Mutex
	nodes map[cairn.NodeID]*entry
}

type entry struct {
	heard     time.Duration
	condemned bool
	withheld  int    // by how many
	since     uint64 // the log entry that its state must contain
}

// NewTable opens the account of a term that begins now, with a state that contains the log entry of index state.
func NewTable(terms Terms, clock Clock, state uint64) *Table {
	return &Table{terms: terms, clock: clock, began: clock(), state: state, nodes: make(map[cairn.NodeID]*entry)}
}

func (t *Table) entry(node cairn.NodeID) *entry {
	e := t.nodes[node]
	if e == nil {
		e = &entry{heard: t.began, since: t.state}
		t.nodes[node] = e
	}
	return e
}

// Heard records a heartbeat of a node whose state contained the log entry of index applied when it was sent, and reports whether
// it may be answered with a lease. It may not be while the node is condemned, until Settle says what the cluster has
// committed, nor before the node knows of that, nor while it is withheld. Only one that is condemned loses what it may still hold.
func (t *Table) Heard(node cairn.NodeID, applied uint64) (grant, condemned bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(node)
	e.heard = t.clock()
	return !e.condemned && e.withheld == 0 && applied >= e.since, e.condemned
}

// Silent reports for how long a node has not been heard, in this term.
func (t *Table) Silent(node cairn.NodeID) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clock() - t.entry(node).heard
}

// Condemn marks a node that the committed state has as up, if it has been silent for too long, and reports whether the
// caller must now commit that it is down. After that the node gets no lease before it is settled as up.
func (t *Table) Condemn(node cairn.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(node)
	if t.clock()-e.heard > t.terms.TTL+t.terms.Margin {
		e.condemned = true
	}
	return e.condemned
}

// Back reports whether a node that the committed state has as down is heard again, so that the caller should commit that
// it is up. It stays without a lease until Settle.
func (t *Table) Back(node cairn.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(node)
	e.condemned = true
	return e.heard > t.began && t.clock()-e.heard < t.terms.TTL
}

// Settle tells the table what has been committed of a node, in the log entry of index: up lifts the condemnation.
func (t *Table) Settle(node cairn.NodeID, up bool, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(node)
	e.condemned, e.since = !up, max(e.since, index)
}

// Withhold grants a node no lease until Release, and reports whether it may hold one yet: for a TTL, if its clock goes right.
func (t *Table) Withhold(node cairn.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(node)
	e.withheld++
	return !e.condemned
}

// Release takes back one Withhold. The node gets a lease again when its state contains the log entry of index.
func (t *Table) Release(node cairn.NodeID, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.nodes[node]; e != nil && e.withheld > 0 { // it may have been forgotten meanwhile
		e.withheld--
		e.since = max(e.since, index)
	}
}

// Forget drops a node that has been removed.
func (t *Table) Forget(node cairn.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.nodes, node)
}
