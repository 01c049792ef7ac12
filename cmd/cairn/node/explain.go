package node

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/rpc/errs"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
	"github.com/cairn-storage/cairn/rpc/server"
)

// explainTimeout bounds the question to another node: `cairn why` has to answer when that node is in trouble.
const explainTimeout = 2 * time.Second

// actorService answers other nodes that ask what an actor of this one is doing.
type actorService struct {
	peerv1.UnimplementedActorServiceServer
	runtime *actors.Runtime
}

// GetActorStatus implements peerv1.ActorServiceServer. Times are told as durations: clocks differ between nodes.
func (s *actorService) GetActorStatus(_ context.Context, request *peerv1.GetActorStatusRequest) (*peerv1.GetActorStatusResponse, error) {
	status, ok := s.runtime.Status(replicaKey(cairn.ReplicaID(request.GetReplica())))
	if !ok {
		return &peerv1.GetActorStatusResponse{}, nil
	}
	answer := &peerv1.GetActorStatusResponse{
		Queued: status.Queued, Step: status.Step, Attempts: int64(status.Attempts), LastError: status.LastError,
	}
	if !status.Since.IsZero() {
		answer.RunningMs = max(time.Since(status.Since).Milliseconds(), 1)
	}
	if !status.Next.IsZero() {
		answer.NextAttemptMs = max(time.Until(status.Next).Milliseconds(), 1)
	}
	return answer, nil
}

func replicaKey(id cairn.ReplicaID) actors.Key {
	return actors.Key{Kind: cairn.KindReplica, ID: string(id)}
}

// dialer is how one node reaches another.
type dialer interface {
	Conn(ctx context.Context, node cairn.NodeID) (*grpc.ClientConn, error)
}

// explain asks the node that hosts a replica what its actor is doing.
func (s *actorService) explain(peers dialer, self cairn.NodeID) func(context.Context, cairn.NodeID, cairn.ReplicaID) (server.ActorStatus, error) {
	return func(ctx context.Context, node cairn.NodeID, replica cairn.ReplicaID) (server.ActorStatus, error) {
		ctx, cancel := context.WithTimeout(ctx, explainTimeout)
		defer cancel()
		request := &peerv1.GetActorStatusRequest{Replica: string(replica)}
		if node == self {
			answer, err := s.GetActorStatus(ctx, request)
			return fromPeer(answer), err
		}
		conn, err := peers.Conn(ctx, node)
		if err != nil {
			return server.ActorStatus{}, err
		}
		answer, err := peerv1.NewActorServiceClient(conn).GetActorStatus(ctx, request)
		return fromPeer(answer), errs.FromCall(err, false, false)
	}
}

func fromPeer(answer *peerv1.GetActorStatusResponse) server.ActorStatus {
	status := server.ActorStatus{
		Queued: answer.GetQueued(), Step: answer.GetStep(), Attempts: int(answer.GetAttempts()), LastError: answer.GetLastError(),
	}
	now := time.Now()
	if ms := answer.GetRunningMs(); ms > 0 {
		status.Since = now.Add(-time.Duration(ms) * time.Millisecond)
	}
	if ms := answer.GetNextAttemptMs(); ms > 0 {
		status.Next = now.Add(time.Duration(ms) * time.Millisecond)
	}
	return status
}
