package replication

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/rpc/errs"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// Source is what a node can send to standbys elsewhere, and what it knows of its own.
type Source interface {
	// Offer says what a standby lacks next. The function sends it; it is nil if the offer is of nothing. When its context
	// ends it returns soon, and whatever kept the snapshot is gone.
	Offer(ctx context.Context, request replica.PullRequest) (replica.Offer, replica.SendFunc, error)
	// SyncStates says how far standbys on this node are; nil asks for all.
	SyncStates(ids []cairn.ReplicaID) []replica.SyncState
	// Content reads a snapshot of an active replica here.
	Content(ctx context.Context, id cairn.ReplicaID, snap cairn.SnapshotID) (replica.Content, error)
}

// Viewer is the state as this node knows it, perhaps an old one.
type Viewer interface {
	View() *fsm.View
}

// ServerConfig is what a Server is made of. All is needed except what says otherwise.
type ServerConfig struct {
	Self   cairn.NodeID
	Viewer Viewer
	Source Source
	Hints  *Hints
	// Driller tries out standbys of this node.
	Driller Driller
	// Caller returns the node that the certificate of a call proves.
	Caller func(context.Context) (cairn.NodeID, error)
	// Rate bounds what all streams of this node send together, in bytes per second as they are sent; 0 does not.
	Rate int64
	// Compression of what this node sends.
	Compression Compression
	// Stall ends a stream whose puller has taken nothing for so long: 2 minutes unless set. Until then the snapshot cannot
	// be deleted here, and a standby whose disk hangs must not fill this one.
	Stall time.Duration
}

// Server implements peerv1.ReplicationServiceServer, on a gRPC server that was made with ServerOption. Every stream has one goroutine besides that of its call; it ends with
// the call.
type Server struct {
	peerv1.UnimplementedReplicationServiceServer
	config ServerConfig
	rate   *limiter
	// deflater is nil without compression.
	deflater *zstd.Encoder
	buffers  buffers
	life     context.Context
	end      context.CancelCauseFunc

	mu    sync.Mutex // orders the beginning of pumps and the end of life
	pumps sync.WaitGroup
}

// NewServer returns a server that answers as soon as it is registered.
func NewServer(config ServerConfig) *Server {
	if config.Stall == 0 {
		config.Stall = 2 * time.Minute
	}
	s := &Server{config: config, rate: newLimiter(config.Rate)}
	if config.Compression == CompressZstd {
		s.deflater = newDeflater()
	}
	s.life, s.end = context.WithCancelCause(context.Background())
	return s
}

// Close ends the streams: none of them would end by itself when a gRPC server stops gracefully. Calls that come later are
// refused with cairn.ErrUnavailable.
func (s *Server) Close() {
	s.mu.Lock()
	s.end(fmt.Errorf("node %s: is being stopped: %w", s.config.Self, cairn.ErrUnavailable))
	s.mu.Unlock()
	s.pumps.Wait()
}

// start runs a pump, unless the server is closed.
func (s *Server) start(pump func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return context.Cause(s.life)
	}
	s.pumps.Go(pump)
	return nil
}

// living returns a context that ends with the call, or with the server.
func (s *Server) living(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(context.Cause(s.life)) })
	return ctx, func(cause error) { stop(); cancel(cause) }
}

// Pull implements peerv1.ReplicationServiceServer.
func (s *Server) Pull(request *peerv1.PullRequest, stream grpc.ServerStreamingServer[peerv1.PullResponse]) error {
	ctx, cancel := s.living(stream.Context())
	defer cancel(nil)
	err := s.pull(ctx, cancel, request, stream)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // what the source says of it then is a consequence
	}
	return errs.ToStatus(err)
}

func (s *Server) pull(ctx context.Context, cancel context.CancelCauseFunc, asked *peerv1.PullRequest, stream sender) error {
	request := pullRequest(asked)
	if err := s.mayPull(ctx, request); err != nil {
		return err
	}
	offer, send, err := s.config.Source.Offer(ctx, request)
	switch {
	case err != nil:
		return err
	case send == nil && offer.Snapshot == "":
		return stream.SendMsg(offerMessage(offer))
	case send == nil || offer.Snapshot == "":
		return fmt.Errorf("share %s: offer of snapshot %q does not fit its stream", request.Share, offer.Snapshot)
	}
	message, deflater, xxh64 := offerMessage(offer), s.deflater, asked.GetXxh64()
	if !asked.GetZstd() { // an older node
		deflater = nil
	}
	message.GetOffer().Zstd, message.GetOffer().Xxh64 = deflater != nil, xxh64
	out := &outgoing{
		ctx: ctx, offer: message, deflater: deflater, messages: make(chan any), pumped: make(chan struct{}),
		buffers: &s.buffers, rate: s.rate, stall: s.config.Stall, xxh64: xxh64, sum: newSum(xxh64),
	}
	if err := s.start(func() { out.pump(stream, cancel) }); err != nil {
		return err
	}
	// failpoint: sending
	if err := send(ctx, out); err != nil {
		return fmt.Errorf("snapshot %s: %w", offer.Snapshot, err)
	}
	// failpoint: sent
	return out.finish()
}

// mayPull: only the node that hosts a standby may pull for it, and only from the node of the active replica; and only the node
// that hosts a replica which is made from a snapshot, from one that has that. Where the two
// nodes see different states the answer is cairn.ErrStale: the one that is behind catches up, and nothing follows until then.
func (s *Server) mayPull(ctx context.Context, request replica.PullRequest) error {
	caller, err := s.config.Caller(ctx)
	if err != nil {
		return err
	}
	view := s.config.Viewer.View()
	standby, share := view.Replica(request.Standby), view.Share(request.Share)
	copied := replica.Copied(view, standby)
	if standby == nil || share == nil {
		return fmt.Errorf("share %s, standby %s: not in the state of node %s: %w", request.Share, request.Standby, s.config.Self, cairn.ErrStale)
	}
	active := view.Replica(share.Active)
	switch {
	case standby.Node != caller:
		return fmt.Errorf("replica %s: is not on node %s, which asks for it: %w", standby.ID, caller, cairn.ErrDenied)
	case standby.Share != share.ID:
		return fmt.Errorf("replica %s: is not of share %s: %w", standby.ID, share.ID, cairn.ErrInvalid)
	case copied && replica.Origin(view, standby, s.config.Self) == nil:
		return fmt.Errorf("replica %s: the snapshot that it is made from is not on node %s: %w", standby.ID, s.config.Self, cairn.ErrStale)
	case copied && standby.Epoch != request.Epoch:
		return fmt.Errorf("replica %s: its epoch is %d on node %s, and %d in the request: %w", standby.ID, standby.Epoch, s.config.Self, request.Epoch, cairn.ErrStale)
	case copied:
		return nil
	case active == nil || active.Node != s.config.Self || active.ID == standby.ID:
		return fmt.Errorf("share %s: its active replica for standby %s is not on node %s: %w", share.ID, standby.ID, s.config.Self, cairn.ErrStale)
	case active.Epoch != request.Epoch:
		return fmt.Errorf("share %s: its epoch is %d on node %s, and %d in the request: %w", share.ID, active.Epoch, s.config.Self, request.Epoch, cairn.ErrStale)
	}
	return nil
}

// member is the caller, if it is a node of the cluster.
func (s *Server) member(ctx context.Context) (cairn.NodeID, error) {
	caller, err := s.config.Caller(ctx)
	if err != nil {
		return "", err
	}
	if s.config.Viewer.View().Node(caller) == nil {
		return "", fmt.Errorf("node %s: is not a node of the cluster as node %s knows it: %w", caller, s.config.Self, cairn.ErrDenied)
	}
	return caller, nil
}

// Watch implements peerv1.ReplicationServiceServer. The first message is empty: from now on no hint is missed.
func (s *Server) Watch(_ *peerv1.WatchRequest, stream grpc.ServerStreamingServer[peerv1.WatchResponse]) error {
	ctx, cancel := s.living(stream.Context())
	defer cancel(nil)
	node, err := s.member(ctx)
	if err != nil {
		return errs.ToStatus(err)
	}
	watch := s.config.Hints.subscribe(node)
	defer s.config.Hints.leave(node, watch)
	if err := stream.Send(&peerv1.WatchResponse{}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return errs.ToStatus(context.Cause(ctx))
		case <-watch.replaced:
			return errs.ToStatus(fmt.Errorf("node %s: watches with a newer call: %w", node, cairn.ErrStale))
		case <-watch.signal:
		}
		for ids := range watch.take() {
			if err := stream.Send(&peerv1.WatchResponse{Standbys: ids}); err != nil {
				return err
			}
		}
	}
}

// GetSyncStates implements peerv1.ReplicationServiceServer.
func (s *Server) GetSyncStates(ctx context.Context, request *peerv1.GetSyncStatesRequest) (*peerv1.GetSyncStatesResponse, error) {
	if _, err := s.member(ctx); err != nil {
		return nil, errs.ToStatus(err)
	}
	now := time.Now()
	answer := &peerv1.GetSyncStatesResponse{}
	for _, state := range s.config.Source.SyncStates(typed[cairn.ReplicaID](request.GetStandbys())) {
		answer.States = append(answer.States, stateMessage(state, now))
	}
	return answer, nil
}
