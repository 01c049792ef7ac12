package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// JoinConfig says where a machine joins with what.
type JoinConfig struct {
	DataDir string
	Token   string
	Hosts   []string // names and addresses of this machine, for its certificate
	// Now is the wall clock that the cluster compares with its own; nil is the machine's.
	Now func() time.Time
	// Dial is the machine's own unless set.
	Dial Dial
}

// Join makes this machine a node of the token's cluster: it verifies that a member shows the pinned authority, trades the
// token for a certificate and the cluster's keys, and commits them to the data directory in one rename. It can be repeated
// after a crash, with the same token and directory.
func Join(ctx context.Context, c JoinConfig) (*Identity, error) {
	ctx, cancel := bounded(ctx, DefaultTiming().Call)
	defer cancel()
	if c.Now == nil {
		c.Now = wallClock
	}
	if c.Dial == nil {
		c.Dial = dialTCP
	}
	token, err := ParseToken(c.Token)
	if err != nil {
		return nil, err
	}
	candidate, err := identity.NewCandidate(c.DataDir, token, c.Hosts)
	if err != nil {
		return nil, err
	}
	failed := []error{fmt.Errorf("join: no member answers: %w", cairn.ErrUnavailable)}
	for _, address := range token.Addresses {
		response, err := askToJoin(ctx, c.Dial, address, &peerv1.JoinRequest{
			TokenId: string(token.ID), Secret: token.Secret, CertificateRequest: candidate.Request, WallTime: c.Now().UnixNano(),
		}, token.Fingerprint)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", address, err))
			continue
		}
		if err := failureError(response.GetRefused()); err != nil {
			return nil, err
		}
		return candidate.Accept(grantOf(response))
	}
	return nil, oneLine(failed)
}

// askToJoin sends the request to one member, after that has proven that it belongs to the token's cluster.
func askToJoin(ctx context.Context, dial Dial, address string, request *peerv1.JoinRequest, fingerprint string) (*peerv1.JoinResponse, error) {
	secure, err := dialTLS(ctx, dial, address, identity.PinnedConfig(fingerprint))
	if err != nil {
		return nil, err
	}
	defer secure.Close()
	used := make(chan net.Conn, 1)
	used <- secure
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(handshaken{}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case first := <-used:
				return first, nil
			default:
				return nil, errors.New("connection was lost")
			}
		}),
		grpc.WithDisableRetry())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	response, err := peerv1.NewJoinServiceClient(conn).Join(ctx, request)
	return response, fromStatus(err)
}

func grantOf(response *peerv1.JoinResponse) identity.Grant {
	cluster := response.GetCluster()
	return identity.Grant{
		Cluster: cairn.Cluster{
			ID: cairn.ClusterID(cluster.GetId()), Name: cluster.GetName(),
			CAFingerprint: cluster.GetCaFingerprint(), CreatedAt: cluster.GetCreatedAt(),
		},
		Certificate: response.GetCertificate(), AuthorityPEM: response.GetAuthorityCertificatePem(), SignerPEM: response.GetAuthorityKeyPem(),
		GossipKey: response.GetGossipKey(), ClusterKey: response.GetClusterKey(), Patience: int(response.GetPatience()),
		PeerAddresses: response.GetPeerAddresses(),
	}
}

// oneLine joins errors for people. If all but the first have the same cause, that cause decides what the error is.
func oneLine(failed []error) error {
	if len(failed) == 2 {
		return fmt.Errorf("join: %w", failed[1])
	}
	err := failed[0]
	for _, next := range failed[1:] {
		err = fmt.Errorf("%w; %w", err, next)
	}
	return err
}
