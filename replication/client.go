package replication

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/rpc/errs"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// Dial returns the connection to a node, which the callee keeps.
type Dial func(ctx context.Context, node cairn.NodeID) (*grpc.ClientConn, error)

// Client pulls for the standbys of this node. It implements replica.Puller.
type Client struct {
	conn     Dial
	stall    time.Duration
	inflater *zstd.Decoder
}

// NewClient returns a client. A stream, or an answer, that makes no progress for stall is given up; 0 is 30 seconds.
func NewClient(conn Dial, stall time.Duration) *Client {
	if stall == 0 {
		stall = 30 * time.Second
	}
	return &Client{conn: conn, stall: stall, inflater: newInflater()}
}

// Pull implements replica.Puller.
//
// Before the offer, errors are what the active replica's node answered: cairn.ErrStale if it is not that node or the epoch
// is another one, cairn.ErrNotFound if the source cannot start from the base, and so on. After it they say only what is
// wrong with the stream, because what ails the sender says nothing of the standby: cairn.ErrUnavailable if it broke off,
// ErrTimeout if it stalled, ErrCorrupt if it is damaged. A stream that broke is why take failed, and is returned in its place.
//
// If take succeeds without reading, the stream is not wanted. If it reads, it must have read all: success before the end
// was verified is cairn.ErrCorrupt. A Read that is in progress when take returns ends with the call.
func (c *Client) Pull(ctx context.Context, node cairn.NodeID, request replica.PullRequest, take func(replica.Offer, io.Reader) error) (replica.Offer, error) {
	conn, err := c.conn(ctx, node)
	if err != nil {
		return replica.Offer{}, err
	}
	calling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	asked := requestMessage(request)
	asked.Zstd, asked.Xxh64 = true, true
	in := &incoming{ctx: calling, cancel: cancel, stall: c.stall, inflater: c.inflater}
	offer, err := in.open(func() (receiver, error) {
		return peerv1.NewReplicationServiceClient(conn).Pull(calling, asked, grpc.ForceCodecV2(newCodec()))
	})
	if err != nil {
		return replica.Offer{}, fmt.Errorf("pull from node %s: %w", node, err)
	}
	if offer.Snapshot == "" {
		return offer, nil
	}
	return offer, in.deliver(offer, take)
}

// SyncStates asks a node how far its standbys are; nil asks for all of them.
func (c *Client) SyncStates(ctx context.Context, node cairn.NodeID, standbys []cairn.ReplicaID) ([]replica.SyncState, error) {
	conn, err := c.conn(ctx, node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.stall)
	defer cancel()
	asked := time.Now() // ages count back from before the question
	answer, err := peerv1.NewReplicationServiceClient(conn).GetSyncStates(ctx, &peerv1.GetSyncStatesRequest{Standbys: untyped(standbys)})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, failure(ctx, err))
	}
	var states []replica.SyncState
	for _, state := range answer.GetStates() {
		states = append(states, syncState(state, asked))
	}
	return states, nil
}

// failure is what a call failed with. If the other side ended it without a reason, this side's context is not the reason.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if status.Code(err) == codes.Canceled {
		return fmt.Errorf("call: was ended by the other side: %w", cairn.ErrUnavailable)
	}
	return errs.FromStatus(err)
}
