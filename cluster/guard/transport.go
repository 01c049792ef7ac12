package guard

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// ErrDiskHung is why a leader sends no heartbeats: it could not write what it would be asked to commit.
var ErrDiskHung = errors.New("local disk does not answer")

// Inner is what the guarded transport needs of the real one.
type Inner interface {
	raft.Transport
	raft.WithPreVote
}

// Transport is silent while the local disk hangs, so that the followers elect another leader, and enters into the ledger
// who has answered.
//
// Replication is not pipelined: a pipeline sends without asking the guard, and measured with group commit it is slower.
type Transport struct {
	Inner
	disk   *Disk
	limit  time.Duration
	ledger *Ledger
}

// NewTransport guards a transport. limit is how long a local write may take before the node falls silent.
func NewTransport(inner Inner, disk *Disk, limit time.Duration, ledger *Ledger) *Transport {
	return &Transport{Inner: inner, disk: disk, limit: limit, ledger: ledger}
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
	}
	return nil
}

// Close implements raft.WithClose.
func (t *Transport) Close() error {
	if closer, ok := t.Inner.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}
