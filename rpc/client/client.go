// Package client talks to a Cairn cluster: one connection over any of several nodes, mutual TLS, errors that wrap the sentinels of
// package cairn, idempotency tokens, and retries that cannot do anything twice. It knows the API and nothing of what is
// behind it.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Client is a connection to a cluster; it is safe for concurrent use. Its methods return the clients of the services, whose
// calls behave like this:
//
//   - Errors wrap a sentinel of package cairn where the cluster's answer is one, and have its text.
//   - A request that changes something gets an idempotency token unless it has one.
//   - A request that names no project is about the one of Config.
//   - A call that is answered with cairn.ErrUnavailable or cairn.ErrUnknownOutcome is sent again, to another node if there
//     is one, with the same token, until the context's deadline, 15 seconds if it has none. Nothing else is sent again.
type Client struct {
	conn *grpc.ClientConn
}

// Dial prepares the connection. It fails only if the configuration is wrong: nodes that cannot be reached show at the
// first call.
func Dial(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	tlsConfig, err := tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	nodes := manual.NewBuilderWithScheme("cairn")
	state := resolver.State{}
	for _, address := range cfg.Addresses {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	nodes.InitialState(state)
	calls := calls{project: cfg.Project}
	conn, err := grpc.NewClient("cairn:///cluster",
		grpc.WithResolvers(nodes),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithChainUnaryInterceptor(calls.unary),
		grpc.WithChainStreamInterceptor(calls.stream),
	)
	if err != nil {
		return nil, fmt.Errorf("client: %v: %w", err, cairn.ErrInvalid)
	}
	return &Client{conn}, nil
}

// tlsConfig presents the user's certificate and accepts nodes of the cluster. A server is taken for a node if its certificate was
// signed by the cluster's CA and names a node (cairn://node/…): the CA signs such certificates for members only, and every
// member may answer for the cluster, so the address that it was reached by proves nothing more. That is why a node behind a
// forwarded port or a new name needs no new certificate. A user's certificate does not pass for a node's.
func tlsConfig(cfg Config) (*tls.Config, error) {
	certificate, err := tls.X509KeyPair(cfg.Certificate, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("client certificate and key: %v: %w", err, cairn.ErrInvalid)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cfg.CA) {
		return nil, fmt.Errorf("client: ca holds no certificate: %w", cairn.ErrInvalid)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"h2"},
		// Only the check of the host name is skipped; VerifyConnection does the rest.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return verifyNode(state, roots) },
	}, nil
}

func verifyNode(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("server: has no certificate: %w", cairn.ErrUnauthenticated)
	}
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	leaf := state.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("server: is not of this cluster: %w", err)
	}
	for _, uri := range leaf.URIs {
		if uri.Scheme == "cairn" && uri.Host == "node" {
			return nil
		}
	}
	return fmt.Errorf("server: its certificate is not that of a node: %w", cairn.ErrUnauthenticated)
}

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// Shares is the client of ShareService.
func (c *Client) Shares() pb.ShareServiceClient { return pb.NewShareServiceClient(c.conn) }

// Replicas is the client of ReplicaService.
func (c *Client) Replicas() pb.ReplicaServiceClient { return pb.NewReplicaServiceClient(c.conn) }

// Snapshots is the client of SnapshotService.
func (c *Client) Snapshots() pb.SnapshotServiceClient { return pb.NewSnapshotServiceClient(c.conn) }

// Access is the client of AccessService.
func (c *Client) Access() pb.AccessServiceClient { return pb.NewAccessServiceClient(c.conn) }

// Types is the client of TypeService.
func (c *Client) Types() pb.TypeServiceClient { return pb.NewTypeServiceClient(c.conn) }

// Quotas is the client of QuotaService.
func (c *Client) Quotas() pb.QuotaServiceClient { return pb.NewQuotaServiceClient(c.conn) }

// Tasks is the client of TaskService.
func (c *Client) Tasks() pb.TaskServiceClient { return pb.NewTaskServiceClient(c.conn) }

// Users is the client of UserService.
func (c *Client) Users() pb.UserServiceClient { return pb.NewUserServiceClient(c.conn) }

// Events is the client of EventService.
func (c *Client) Events() pb.EventServiceClient { return pb.NewEventServiceClient(c.conn) }

// Cluster is the client of ClusterService.
func (c *Client) Cluster() pb.ClusterServiceClient { return pb.NewClusterServiceClient(c.conn) }

// Nodes is the client of NodeService.
func (c *Client) Nodes() pb.NodeServiceClient { return pb.NewNodeServiceClient(c.conn) }

// Pools is the client of PoolService.
func (c *Client) Pools() pb.PoolServiceClient { return pb.NewPoolServiceClient(c.conn) }

// checkAddress accepts host:port.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || strings.ContainsAny(address, " \t\n") {
		return fmt.Errorf("address %q: want host:port, such as 10.0.0.1:7450: %w", address, cairn.ErrInvalid)
	}
	return nil
}

// callTimeout is for calls whose context has no deadline.
const callTimeout = 15 * time.Second

func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}
