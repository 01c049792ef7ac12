package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// beat renews this node's lease at whoever leads, all its life.
func (n *Node) beat() {
	var sequence uint64
	for n.life.ctx.Err() == nil {
		changed := n.engine.LeaderChanged()
		leader, _ := n.Leader()
		switch leader {
		case "":
		case n.identity.Node:
			n.beatHere(&sequence)
		default:
			ctx, cancel := context.WithCancel(n.life.ctx)
			go func() {
				select {
				case <-changed:
					cancel()
				case <-ctx.Done():
				}
			}()
			err := n.beatAt(ctx, leader, &sequence)
			cancel()
			if errors.Is(err, cairn.ErrNotFound) && n.life.registered.Load() {
				n.life.fail(n.removed())
				return
			}
		}
		select {
		case <-changed:
		case <-time.After(n.config.Timing.Heartbeat):
		case <-n.life.ctx.Done():
		}
	}
}

// beatHere renews the lease of the leader itself, by the same rules as everybody's.
func (n *Node) beatHere(sequence *uint64) {
	t := n.term.Load()
	if t == nil {
		return
	}
	*sequence++
	sent := n.config.Clock()
	if answer, err := t.heard(n.identity.Node, n.heartbeat(*sequence)); err == nil {
		n.granted(sent, answer)
	}
}

// beatAt sends heartbeats to a leader until the stream ends or falls silent.
func (n *Node) beatAt(ctx context.Context, leader cairn.NodeID, sequence *uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := n.peers.ready(ctx, leader)
	if err != nil {
		return err
	}
	stream, err := openHeartbeats(ctx, conn)
	if err != nil {
		return fromStatus(err)
	}
	pending := &pendingBeats{sent: make(map[uint64]time.Duration), last: n.config.Clock()}
	ended := make(chan error, 1)
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				ended <- fromStatus(err)
				return
			}
			if sent, ok := pending.answered(answer.GetSequence(), n.config.Clock()); ok {
				n.granted(sent, answer)
			}
		}
	}()
	ticker := time.NewTicker(n.config.Timing.Heartbeat)
	defer ticker.Stop()
	for {
		*sequence++
		now := n.config.Clock()
		if silent := now - pending.send(*sequence, now); silent > n.config.Timing.Lease.TTL {
			return fmt.Errorf("leader %s: has not answered for %s: %w", leader, silent, cairn.ErrUnavailable)
		}
		if err := stream.Send(n.heartbeat(*sequence)); err != nil {
			return <-ended // Send says only that it ended
		}
		select {
		case <-ticker.C:
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// openHeartbeats begins a stream that is not opened anew behind our back: gRPC does that with one that the server has not begun to process,
// unless it was asked for its context. Waiting for a connection meanwhile, the reader would keep Send from returning, and nobody would
// see that the leader has fallen silent.
func openHeartbeats(ctx context.Context, conn grpc.ClientConnInterface) (peerv1.PeerService_HeartbeatClient, error) {
	stream, err := peerv1.NewPeerServiceClient(conn).Heartbeat(ctx)
	if err == nil {
		_ = stream.Context()
	}
	return stream, err
}

// pendingBeats remembers when each heartbeat was sent: a lease counts from there, and not from its answer.
type pendingBeats struct {
	mu   sync.Mutex
	sent map[uint64]time.Duration
	last time.Duration // of the newest answer, or of the beginning
}

func (p *pendingBeats) send(sequence uint64, now time.Duration) (last time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent[sequence] = now
	return p.last
}

func (p *pendingBeats) answered(sequence uint64, now time.Duration) (sent time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, ok = p.sent[sequence]
	delete(p.sent, sequence)
	p.last = now
	return sent, ok
}

func (n *Node) granted(sent time.Duration, answer *peerv1.HeartbeatResponse) {
	switch {
	case answer.GetRevoked():
		n.lease.Revoke()
	case answer.GetTtlNanos() > 0:
		n.lease.Grant(sent, time.Duration(answer.GetProofAgeNanos()), time.Duration(answer.GetTtlNanos()))
	}
}

// heartbeat is this node's soft state.
func (n *Node) heartbeat(sequence uint64) *peerv1.HeartbeatRequest {
	lastIndex, lastTerm := n.engine.LastLog()
	diverged, _ := n.machine.Divergence()
	request := &peerv1.HeartbeatRequest{
		Sequence: sequence, WallTime: n.config.Now().UnixNano(),
		LastLogIndex: lastIndex, LastLogTerm: lastTerm, AppliedIndex: n.engine.Applied(), DivergedAt: diverged,
	}
	for pool, free := range n.config.Free() {
		request.Pools = append(request.Pools, &peerv1.PoolTelemetry{PoolId: string(pool), FreeBytes: free})
	}
	return request
}
