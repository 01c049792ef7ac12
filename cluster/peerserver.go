package cluster

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/consensus"
	"github.com/cairn-storage/cairn/cluster/identity"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// RegisterPeer adds the node-to-node service to the server of APIListener. It checks its callers itself.
func (n *Node) RegisterPeer(s *grpc.Server) {
	peerv1.RegisterPeerServiceServer(s, &peerServer{node: n})
}

// peerServer answers other nodes.
type peerServer struct {
	peerv1.UnimplementedPeerServiceServer
	node *Node
}

// Caller is the node that the connection's certificate proves.
func Caller(ctx context.Context) (cairn.NodeID, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", fmt.Errorf("caller: is not known: %w", cairn.ErrUnauthenticated)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", fmt.Errorf("caller: has no certificate: %w", cairn.ErrUnauthenticated)
	}
	subject, err := identity.PeerOf(info.State)
	if err != nil {
		return "", err
	}
	return subject.Node()
}

// member is the caller, if it is a member.
func (s *peerServer) member(ctx context.Context) (cairn.NodeID, error) {
	id, err := Caller(ctx)
	if err != nil {
		return "", err
	}
	if !s.node.admitted(id) {
		return "", fmt.Errorf("node %s: is not a member of the cluster: %w", id, cairn.ErrNotFound)
	}
	return id, nil
}

// Apply implements peerv1.PeerServiceServer.
func (s *peerServer) Apply(ctx context.Context, request *peerv1.ApplyRequest) (*peerv1.ApplyResponse, error) {
	id, err := s.member(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	if err := speaksFor(id, request.GetCommand()); err != nil {
		return nil, toStatus(err)
	}
	result, err := s.node.engine.Apply(ctx, request.GetCommand())
	if errors.Is(err, consensus.ErrNotLeader) {
		err = s.node.notLeader()
	}
	answer := &peerv1.ApplyResponse{
		Id: result.ID, Index: result.Index, Replayed: result.Replayed, Refused: failure(result.Err), Undecided: failure(err),
	}
	for _, refused := range result.Each {
		answer.Each = append(answer.Each, &peerv1.PartResult{Refused: failure(refused)})
	}
	return answer, nil
}

// ReadIndex implements peerv1.PeerServiceServer.
func (s *peerServer) ReadIndex(ctx context.Context, _ *peerv1.ReadIndexRequest) (*peerv1.ReadIndexResponse, error) {
	if _, err := s.member(ctx); err != nil {
		return nil, toStatus(err)
	}
	index, err := s.node.engine.ReadIndex(ctx)
	if errors.Is(err, consensus.ErrNotLeader) {
		err = s.node.notLeader()
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerv1.ReadIndexResponse{Index: index}, nil
}

// Heartbeat implements peerv1.PeerServiceServer. The term is looked up for every message: an answer is of the term in which
// it was asked for, or there is none.
func (s *peerServer) Heartbeat(stream grpc.BidiStreamingServer[peerv1.HeartbeatRequest, peerv1.HeartbeatResponse]) error {
	id, err := Caller(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		t := s.node.term.Load()
		if t == nil {
			return toStatus(s.node.notLeader())
		}
		answer, err := t.heard(id, request)
		if err != nil {
			return toStatus(err)
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// Hello implements peerv1.PeerServiceServer. Any node may ask: a new one has no other way to find the leader.
func (s *peerServer) Hello(ctx context.Context, _ *peerv1.HelloRequest) (*peerv1.HelloResponse, error) {
	if _, err := Caller(ctx); err != nil {
		return nil, toStatus(err)
	}
	leader, address := s.node.Leader()
	return &peerv1.HelloResponse{
		NodeId: string(s.node.identity.Node), GossipAddress: s.node.gossip.Address(), LeaderId: string(leader), LeaderAddress: address,
	}, nil
}

// Announce implements peerv1.PeerServiceServer. Whether the node is, or may become, a member is the state machine's
// decision.
func (s *peerServer) Announce(ctx context.Context, request *peerv1.AnnounceRequest) (*peerv1.AnnounceResponse, error) {
	id, err := Caller(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	index, err := s.node.register(ctx, id, request)
	if errors.Is(err, consensus.ErrNotLeader) {
		err = s.node.notLeader()
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerv1.AnnounceResponse{Index: index}, nil
}

// Admit implements peerv1.PeerServiceServer.
func (s *peerServer) Admit(ctx context.Context, request *peerv1.AdmitRequest) (*peerv1.AdmitResponse, error) {
	if _, err := s.member(ctx); err != nil {
		return nil, toStatus(err)
	}
	response, err := s.node.admitHere(ctx, request.GetRequest())
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerv1.AdmitResponse{Response: response}, nil
}

// RenewCertificate implements peerv1.PeerServiceServer.
func (s *peerServer) RenewCertificate(ctx context.Context, request *peerv1.RenewCertificateRequest) (*peerv1.RenewCertificateResponse, error) {
	id, err := s.member(ctx)
	if err == nil && !s.node.engine.Leading() {
		err = s.node.notLeader() // who has the newest list of members
	}
	if err != nil {
		return nil, toStatus(err)
	}
	der, err := s.node.identity.Authority.SignNode(request.GetCertificateRequest(), id, s.node.config.Now())
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerv1.RenewCertificateResponse{Certificate: der}, nil
}
