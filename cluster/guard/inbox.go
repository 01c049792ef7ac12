package guard

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// inbox hands Raft what peers send to it, one after the other, heartbeats too. One that comes while Raft's main loop is busy, with a disk for
// one, is answered here, from what Raft knows, and changes nothing.
//
// As the library comes, the goroutine of the connection takes a heartbeat, beside the main loop. One of a later term makes a follower of a
// leader and changes its term while the main loop still does a leader's or a candidate's work: it writes what it was asked for under a term
// in which another leads, or takes the votes of the last election for those of this one. Two different entries then have the same index and
// term, and no node ever notices.
type inbox struct {
	inner    raft.Transport
	patience time.Duration
	consumer chan raft.RPC
	closed   chan struct{}
	once     sync.Once

	raft      atomic.Pointer[raft.Raft]
	successor atomic.Pointer[raft.AppendEntriesRequest] // the heartbeat with the latest term that came while Raft was busy and had an earlier one
	succeeded chan struct{}                             // has one if there is a new successor
}

func newInbox(inner raft.Transport, patience time.Duration) *inbox {
	i := &inbox{inner: inner, patience: patience, consumer: make(chan raft.RPC), closed: make(chan struct{}), succeeded: make(chan struct{}, 1)}
	go i.forward()
	return i
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.inbox.consumer }

// SetHeartbeatHandler implements raft.Transport. The function is what Raft's main loop calls, too, for a heartbeat that it is handed.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {
	t.Inner.SetHeartbeatHandler(t.inbox.heartbeat)
}

// Serve tells the transport whose it is. Before, whatever comes waits for the main loop.
func (t *Transport) Serve(r *raft.Raft) { t.inbox.raft.Store(r) }

// Successor is the leader of a later term than Raft's, of which Raft is too busy to hear. The term in which it leads itself is over.
func (t *Transport) Successor() (id raft.ServerID, address raft.ServerAddress, ok bool) {
	request, r := t.inbox.successor.Load(), t.inbox.raft.Load()
	if request == nil || r.CurrentTerm() >= request.Term {
		return "", "", false
	}
	return raft.ServerID(request.ID), t.DecodePeer(request.Addr), true
}

// Succeeded receives when there is a new successor.
func (t *Transport) Succeeded() <-chan struct{} { return t.inbox.succeeded }

func (i *inbox) close() { i.once.Do(func() { close(i.closed) }) }

// forward passes on everything but heartbeats.
func (i *inbox) forward() {
	for {
		select {
		case rpc := <-i.inner.Consumer():
			i.deliver(rpc, nil)
		case <-i.closed:
			return
		}
	}
}

// deliver waits until the main loop takes the request; false if tired received before.
func (i *inbox) deliver(rpc raft.RPC, tired <-chan time.Time) bool {
	select {
	case i.consumer <- rpc:
	case <-i.closed:
		rpc.Respond(nil, raft.ErrTransportShutdown)
	case <-tired:
		return false
	}
	return true
}

// heartbeat is called by the goroutine of a connection.
func (i *inbox) heartbeat(rpc raft.RPC) {
	select {
	case i.consumer <- rpc:
		return
	default: // the main loop is busy
	}
	request, ok := rpc.Command.(*raft.AppendEntriesRequest)
	r := i.raft.Load()
	switch {
	case !ok || r == nil:
		i.deliver(rpc, nil)
	case known(r, request):
		i.answer(rpc, r, request)
	default:
		i.succeed(r, request)
		// Raft has to hear of it. Its disk may hang, though, and the leader has to know who is there.
		tired := time.NewTimer(i.patience)
		defer tired.Stop()
		if !i.deliver(rpc, tired.C) {
			i.answer(rpc, r, request)
		}
	}
}

// known reports whether the heartbeat tells Raft nothing new: it is its leader's, or one's before him.
func known(r *raft.Raft, request *raft.AppendEntriesRequest) bool {
	term := r.CurrentTerm()
	_, leader := r.LeaderWithID()
	return request.Term < term || request.Term == term && r.State() == raft.Follower && leader == raft.ServerID(request.ID)
}

func (i *inbox) succeed(r *raft.Raft, request *raft.AppendEntriesRequest) {
	for {
		last := i.successor.Load()
		if request.Term <= r.CurrentTerm() || last != nil && request.Term <= last.Term {
			return
		}
		if i.successor.CompareAndSwap(last, request) {
			break
		}
	}
	select {
	case i.succeeded <- struct{}{}:
	default: // there is one already
	}
}

// answer says what Raft would say if it heard of the heartbeat now: that this node has voted in no later term than that of the answer, which is
// true whether or not it hears of it.
func (i *inbox) answer(rpc raft.RPC, r *raft.Raft, request *raft.AppendEntriesRequest) {
	term := r.CurrentTerm()
	select {
	case <-i.closed: // the next instance of Raft may have voted since
		rpc.Respond(nil, raft.ErrTransportShutdown)
	default:
		rpc.Respond(&raft.AppendEntriesResponse{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax},
			Term:      max(term, request.Term), LastLog: r.LastIndex(), Success: request.Term >= term,
		}, nil)
	}
}
