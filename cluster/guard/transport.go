package guard

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ErrDiskHung is why a leader sends no heartbeats: it could not write what it would be asked to commit.
var ErrDiskHung = errors.New("local disk does not answer")

// ErrLogRefuses is what is wrong with a follower that knows its leader, has found nothing amiss with what came before, and has not taken the
// entries: it could not read or write its log. Raft as it comes takes that for "I lack what comes before", and goes back by an entry each time,
// in the end to a snapshot that is older than what the follower has applied.
var ErrLogRefuses = errors.New("its log cannot be written")

// Inner is what the guarded transport needs of the real one.
type Inner interface {
	raft.Transport
	raft.WithPreVote
}

// Transport is silent while the local disk hangs, so that the followers elect another leader, and enters into the ledger
// who has answered. What peers send goes through its inbox.
//
// Replication is not pipelined: a pipeline sends without asking the guard, and measured with group commit it is slower.
type Transport struct {
	Inner
	disk   *Disk
	limit  time.Duration
	ledger *Ledger
	inbox  *inbox

	mu   sync.Mutex
	next map[raft.ServerID]*raft.AppendEntriesRequest // of each peer that a heartbeat is under way to: the one to follow, or nil
}

// NewTransport guards a transport, which has to be closed. limit is how long a local write may take before the node falls silent.
func NewTransport(inner Inner, disk *Disk, limit time.Duration, ledger *Ledger) *Transport {
	return &Transport{
		Inner: inner, disk: disk, limit: limit, ledger: ledger, inbox: newInbox(inner, limit),
		next: make(map[raft.ServerID]*raft.AppendEntriesRequest),
	}
}

// AppendEntriesPipeline implements raft.Transport.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport; heartbeats are AppendEntries too.
func (t *Transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, request *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) error {
	if waiting := t.disk.Waiting(); waiting > t.limit {
		return fmt.Errorf("%w for %s", ErrDiskHung, waiting.Round(time.Millisecond))
	}
	mark := t.ledger.Mark()
	if err := t.Inner.AppendEntries(id, to, request, answer); err != nil {
		return err
	}
	if answer.Term == request.Term {
		t.ledger.acknowledge(id, request.Term, mark)
		if !answer.Success && !answer.NoRetryBackoff {
			return fmt.Errorf("follower %s: %w", id, ErrLogRefuses)
		}
	}
	return nil
}

// Heartbeat sends a heartbeat of this node as the leader of term, besides those of Raft. It does not wait for the answer, which goes into
// the ledger. One that is asked for while another is under way to the same peer leaves after that; a peer that does not answer holds up one
// goroutine, for as long as the real transport lets a request take.
func (t *Transport) Heartbeat(peer raft.Server, self raft.ServerID, term uint64) {
	request := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: t.EncodePeer(self, t.LocalAddr())}, Term: term,
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, underWay := t.next[peer.ID]
	if underWay {
		t.next[peer.ID] = request
		return
	}
	t.next[peer.ID] = nil
	go t.heartbeats(peer, request)
}

func (t *Transport) heartbeats(peer raft.Server, request *raft.AppendEntriesRequest) {
	for request != nil {
		_ = t.AppendEntries(peer.ID, peer.Address, request, &raft.AppendEntriesResponse{}) // no answer is no proof, and Raft says why
		t.mu.Lock()
		if request = t.next[peer.ID]; request != nil {
			t.next[peer.ID] = nil
		} else {
			delete(t.next, peer.ID)
		}
		t.mu.Unlock()
	}
}

// Close implements raft.WithClose.
func (t *Transport) Close() error {
	t.inbox.close()
	if closer, ok := t.Inner.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}
