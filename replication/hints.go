package replication

import (
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/cairn-storage/cairn"
)

// hintsPerMessage keeps a message far below gRPC's limit.
const hintsPerMessage = 1000

// Hints says to nodes which of their standbys may lack something. A hint that nobody listens for is dropped: who begins to
// listen looks at everything once, and every standby looks by itself from time to time. The zero value is ready.
type Hints struct {
	mu      sync.Mutex
	watches map[cairn.NodeID]*watch
}

// watch is one listener. What it has not taken yet is merged, so it is never more than the standbys of its node.
type watch struct {
	hints    *Hints
	pending  map[cairn.ReplicaID]struct{} // guarded by hints.mu
	signal   chan struct{}                // has an element while something is pending
	replaced chan struct{}                // closed when the node listens anew
}

// Publish says that a standby may lack something. It never blocks.
func (h *Hints) Publish(node cairn.NodeID, standby cairn.ReplicaID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.watches[node]
	if w == nil {
		return
	}
	w.pending[standby] = struct{}{}
	select {
	case w.signal <- struct{}{}:
	default: // it has not looked since the last one
	}
}

// subscribe makes the one listener of a node. An older one is of a connection that the node has given up.
func (h *Hints) subscribe(node cairn.NodeID) *watch {
	w := &watch{hints: h, pending: make(map[cairn.ReplicaID]struct{}), signal: make(chan struct{}, 1), replaced: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.watches[node]; old != nil {
		close(old.replaced)
	}
	if h.watches == nil {
		h.watches = make(map[cairn.NodeID]*watch)
	}
	h.watches[node] = w
	return w
}

func (h *Hints) leave(node cairn.NodeID, w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watches[node] == w {
		delete(h.watches, node)
	}
}

// take empties the listener, in messages' worth.
func (w *watch) take() iter.Seq[[]string] {
	w.hints.mu.Lock()
	pending := w.pending
	w.pending = make(map[cairn.ReplicaID]struct{})
	w.hints.mu.Unlock()
	return slices.Chunk(untyped(slices.Sorted(maps.Keys(pending))), hintsPerMessage)
}
