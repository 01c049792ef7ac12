package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// Strangers get little: one kind of small message, few at a time, and no connection that lies idle.
const (
	joinMessageLimit = 16 << 10
	joinStreams      = 4
	joinIdle         = 30 * time.Second
)

// newJoinServer serves machines that have no certificate yet.
func newJoinServer(n *Node) *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(handshaken{}),
		grpc.MaxRecvMsgSize(joinMessageLimit),
		grpc.MaxConcurrentStreams(joinStreams),
		grpc.ConnectionTimeout(n.config.Timing.Dial),
		grpc.KeepaliveParams(keepaliveFor(joinIdle)),
	)
	peerv1.RegisterJoinServiceServer(server, &joinServer{node: n})
	return server
}

type joinServer struct {
	peerv1.UnimplementedJoinServiceServer
	node *Node
}

// Join implements peerv1.JoinServiceServer. Any member answers; the leader decides.
func (s *joinServer) Join(ctx context.Context, request *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.node.config.Timing.Call)
	defer cancel()
	var response *peerv1.JoinResponse
	err := s.node.atLeader(ctx, func(leader cairn.NodeID) (err error) {
		if leader == s.node.identity.Node {
			response, err = s.node.admitHere(ctx, request)
			return err
		}
		conn, err := s.node.peers.ready(ctx, leader)
		if err != nil {
			return err
		}
		// Asking again is harmless: the same key gets the same answer.
		answer, err := peerv1.NewPeerServiceClient(conn).Admit(ctx, &peerv1.AdmitRequest{Request: request})
		response = answer.GetResponse()
		return fromStatus(err)
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return response, nil
}

// admitHere consumes the token and signs the joiner's key. The token is consumed by the log: of two machines exactly one
// wins, whichever leader they ask. What is refused is an answer; an error means that nothing was decided.
func (n *Node) admitHere(ctx context.Context, request *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	if err := n.checkClock(request.GetWallTime()); err != nil {
		return &peerv1.JoinResponse{Refused: failure(err)}, nil
	}
	keyHash, err := identity.KeyHash(request.GetCertificateRequest())
	if err != nil {
		return &peerv1.JoinResponse{Refused: failure(err)}, nil
	}
	command, err := fsm.Encode(n.meta(), &fsm.ConsumeJoinToken{
		ID: cairn.TokenID(request.GetTokenId()), SecretHash: identity.SecretHash(request.GetSecret()), KeyHash: keyHash,
	})
	if err != nil {
		return nil, err
	}
	// failpoint: admitting
	result, err := n.engine.Apply(ctx, command)
	// failpoint: admitted
	if err != nil {
		return nil, err
	}
	if result.Err != nil {
		return &peerv1.JoinResponse{Refused: failure(result.Err)}, nil
	}
	n.config.Logger.Info("node: joins", "node", result.ID)
	return n.grant(cairn.NodeID(result.ID), request.GetCertificateRequest())
}

func (n *Node) grant(node cairn.NodeID, csr []byte) (*peerv1.JoinResponse, error) {
	now := n.config.Now()
	der, err := n.identity.Authority.SignNode(csr, node, now)
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM, err := n.identity.Authority.EncodePEM()
	if err != nil {
		return nil, err
	}
	cluster := n.View().Cluster()
	if cluster == nil {
		return nil, fmt.Errorf("cluster: is not initialised yet: %w", cairn.ErrUnavailable)
	}
	return &peerv1.JoinResponse{
		Certificate: der, AuthorityCertificatePem: certPEM, AuthorityKeyPem: keyPEM,
		GossipKey: n.identity.GossipKey, ClusterKey: n.identity.ClusterKey, Patience: uint32(n.identity.Patience),
		Cluster: &peerv1.ClusterInfo{
			Id: string(cluster.ID), Name: cluster.Name, CaFingerprint: cluster.CAFingerprint, CreatedAt: cluster.CreatedAt,
		},
		PeerAddresses: n.memberAddresses(), WallTime: now.UnixNano(),
	}, nil
}

// memberAddresses are the cluster addresses of all nodes, this one first.
func (n *Node) memberAddresses() []string {
	addresses := []string{n.config.Advertise}
	for node := range n.View().Nodes() {
		if node.ID != n.identity.Node {
			addresses = append(addresses, node.Address)
		}
	}
	return addresses
}
