// Package gateway makes every node a door to every file share that is served over HTTP: a request for a share whose active
// replica is on another node goes there and back, in both directions as a stream. So the URL of any node stays good when the
// share moves. While nobody serves a share, because it is being promoted or its node has died, requests wait for a while.
//
// What may have been carried out is never sent twice. A request is repeated only if no connection was had, if the other node
// says that it has changed nothing, or if it lacked the body without which it has no effect.
//
// It does not know what WebDAV is, how access rules are judged, or what a lease is: all of that is decided by the node that
// serves the share. Nor does it know where a request is to be sent to but by the state as this node has it, which may be old:
// a node that does not serve a share says so.
package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// DefaultWait is how long a request waits for a share that nobody serves: a failover with the default lease takes a third of it.
const DefaultWait = 15 * time.Second

// look is how often a request that waits looks again although nothing has changed.
const look = 100 * time.Millisecond

// State is the replicated state as this node knows it.
type State interface {
	View() *fsm.View
	// Subscribe has notify called on every change, with nil if everything may have changed. It must not block.
	Subscribe(notify func([]fsm.Change)) (cancel func())
}

// Config is what a gateway needs; everything but Wait is required.
type Config struct {
	Self  cairn.NodeID
	State State
	// Local serves what this node serves.
	Local http.Handler
	// Unchanged is the header by which Local, on any node, says with a 503 that the request has changed nothing.
	Unchanged string
	// Dial connects to the HTTP port of a node, as this node, and has proven who answers.
	Dial func(ctx context.Context, node cairn.NodeID, address string) (net.Conn, error)
	// Node returns the member of the cluster whose certificate the peer of a connection has proven to have.
	Node func(tls.ConnectionState) (cairn.NodeID, error)
	// Roots verify the certificates of users that other nodes pass on.
	Roots *x509.CertPool
	// Wait is how long a request waits; 0 is not at all.
	Wait   time.Duration
	Logger *slog.Logger
}

// Gateway is an http.Handler. Run has to run beside it.
type Gateway struct {
	config    Config
	transport *http.Transport
	buffers   bufferPool
	counters  counters

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of the state
	sent    map[*attempt]bool
}

// Counters are totals since the gateway was made.
type Counters struct {
	Forwarded int64 // answered by other nodes
	Waited    int64 // had to wait, however it ended
	Refused   int64 // 503, because nobody served the share in time
	Lost      int64 // 502, because a connection broke after the request had gone out on it
}

type counters struct{ forwarded, waited, refused, lost atomic.Int64 }

// New returns a gateway that has no connections yet.
func New(config Config) *Gateway {
	g := &Gateway{config: config, changed: make(chan struct{}), sent: make(map[*attempt]bool)}
	g.transport = g.newTransport()
	return g
}

// Counters returns the totals now.
func (g *Gateway) Counters() Counters {
	c := &g.counters
	return Counters{c.forwarded.Load(), c.waited.Load(), c.refused.Load(), c.lost.Load()}
}

// Run tells requests of changes of the state, until the context ends: those that wait look again, and those that are at a node
// which has lost its part in the share come back.
func (g *Gateway) Run(ctx context.Context) {
	signal := make(chan struct{}, 1)
	defer g.config.State.Subscribe(func([]fsm.Change) {
		select {
		case signal <- struct{}{}:
		default:
		}
	})()
	defer g.transport.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case <-signal:
			g.tell()
		}
	}
}

func (g *Gateway) tell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
	for a := range g.sent {
		if p := g.locate(a.path); p.row == nil || p.row.ID != a.to {
			a.recall()
		}
	}
}

func (g *Gateway) nextChange() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// ServeHTTP serves a request here, or where the share is. One that another node has sent is served here or not at all, so that
// none goes in circles.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	passed, err := g.unwrap(r)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case passed != nil:
		g.config.Local.ServeHTTP(w, passed)
	default:
		g.serve(w, r)
	}
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	deadline := time.Now().Add(g.config.Wait)
	original, waited := r.Body, false
	for {
		changed := g.nextChange() // before looking: what changes meanwhile is seen
		p := g.locate(r.URL.Path)
		body := newBody(original, http.NewResponseController(w))
		r.Body = body
		end := unchanged
		switch {
		case p.row == nil:
			g.config.Local.ServeHTTP(w, r) // it says best what is wrong
			return
		case p.row.ID == g.config.Self:
			end = g.here(w, r)
		case p.served:
			end = g.there(w, r, p)
		}
		untouched := body.detach()
		switch {
		case end == answered:
			return
		case end == unknown && !(untouched && needsBody(r)):
			g.lose(w, p)
			return
		}
		left := time.Until(deadline)
		if !untouched || p.hopeless() || left <= 0 || !rest(r.Context(), changed, min(left, look)) {
			g.refuse(w, p)
			return
		}
		if !waited {
			waited = true
			g.counters.waited.Add(1)
		}
	}
}

// outcome is how an attempt ended.
type outcome int

const (
	answered  outcome = iota // the client has the answer, or half of it and no connection
	unchanged                // certainly nothing was carried out
	unknown                  // something may have been carried out
)

// needsBody reports whether the request has no effect before its body has arrived.
func needsBody(r *http.Request) bool { return r.Method == http.MethodPut && r.ContentLength != 0 }

// rest returns after d or when something has changed; false if the context has ended.
func rest(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// here has this node serve the request.
func (g *Gateway) here(w http.ResponseWriter, r *http.Request) outcome {
	held := &holder{ResponseWriter: w, unchanged: g.config.Unchanged, before: w.Header().Clone()}
	g.config.Local.ServeHTTP(held, r)
	if held.held {
		return unchanged
	}
	return answered
}

// place is where a request has to go.
type place struct {
	row    *cairn.Node // nil if no node has the active replica of anything by that path
	served bool        // by what the node has reported
	copies int         // of the share
	what   string
}

// hopeless reports whether waiting cannot help: no other node can take over.
func (p place) hopeless() bool { return p.row.State != cairn.NodeUp && p.copies < 2 }

func (p place) why() string {
	switch {
	case p.hopeless():
		return fmt.Sprintf("node %s, which has the only copy of this %s, is %s", p.row.Name, p.what, p.row.State)
	case p.row.State != cairn.NodeUp:
		return fmt.Sprintf("node %s, which has the active copy of this %s, is %s, and no other one has taken over; cairn why tells the reason", p.row.Name, p.what, p.row.State)
	}
	return fmt.Sprintf("node %s, which has the active copy of this %s, does not serve it now", p.row.Name, p.what)
}

// locate finds the node that serves a path /shares/<share id>/… or /snapshots/<snapshot id>/….
func (g *Gateway) locate(path string) place {
	parts := strings.SplitN(path, "/", 4)
	if len(parts) < 3 || parts[0] != "" {
		return place{}
	}
	v := g.config.State.View()
	switch parts[1] {
	case "shares":
		return locateShare(v, cairn.ShareID(parts[2]))
	case "snapshots":
		return locateSnapshot(v, cairn.SnapshotID(parts[2]))
	}
	return place{}
}

func locateShare(v *fsm.View, id cairn.ShareID) place {
	share := v.Share(id)
	if share == nil || share.Status != cairn.StatusAvailable || share.Protocol != cairn.ProtocolWebDAV {
		return place{}
	}
	active := v.Replica(share.Active)
	if active == nil {
		return place{}
	}
	return place{row: v.Node(active.Node), served: writable(active), copies: copiesOf(v, id), what: "share"}
}

// writable reports whether a replica serves the share by what its node has reported. What it reported before it became active is where
// it was read.
func writable(r *cairn.Replica) bool {
	return slices.ContainsFunc(r.Have.Locations, func(l cairn.ExportLocation) bool { return !l.ReadOnly })
}

// locateSnapshot prefers the instance of the active replica. A diverged snapshot has one instance only.
func locateSnapshot(v *fsm.View, id cairn.SnapshotID) place {
	snapshot := v.Snapshot(id)
	if snapshot == nil || snapshot.Status != cairn.StatusAvailable {
		return place{}
	}
	share := v.Share(snapshot.Share)
	if share == nil || share.Protocol != cairn.ProtocolWebDAV {
		return place{}
	}
	for instance := range v.InstancesOf(id) {
		replica := v.Replica(instance.Replica)
		if replica == nil || !snapshot.Diverged && share.Active != replica.ID {
			continue
		}
		copies := 1
		if !snapshot.Diverged {
			copies = copiesOf(v, share.ID)
		}
		return place{row: v.Node(replica.Node), served: len(instance.Locations) > 0, copies: copies, what: "snapshot"}
	}
	return place{}
}

func copiesOf(v *fsm.View, id cairn.ShareID) (n int) {
	for range v.ReplicasOf(id) {
		n++
	}
	return n
}

// refuse answers what nobody has served in time.
func (g *Gateway) refuse(w http.ResponseWriter, p place) {
	g.counters.refused.Add(1)
	w.Header().Set("Retry-After", "2")
	answer(w, http.StatusServiceUnavailable, p.why()+"; nothing was changed, try again")
}

// lose answers what may or may not have been carried out.
func (g *Gateway) lose(w http.ResponseWriter, p place) {
	g.counters.lost.Add(1)
	answer(w, http.StatusBadGateway, fmt.Sprintf("the connection to node %s broke; whether the request was carried out is not known, look before you repeat it", p.row.Name))
}

// answer writes one line.
func answer(w http.ResponseWriter, status int, line string) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(line)+1))
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, line) // a client that is gone needs no answer
}
