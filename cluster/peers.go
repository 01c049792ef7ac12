package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
)

const (
	dialTimeout = 2 * time.Second
	// silenceLimit ends a connection whose data nobody has acknowledged for so long: a peer that was unplugged closes
	// nothing, and TCP by itself would wait for a quarter of an hour.
	silenceLimit = 5 * time.Second
)

// peers holds the connections to other nodes, one each, made when first used.
type peers struct {
	identity  *Identity
	addresses func(cairn.NodeID) []string
	reach     Dial
	patience  time.Duration // Timing.Dial

	mu     sync.Mutex
	conns  map[cairn.NodeID]*grpc.ClientConn
	hints  map[cairn.NodeID]string // where a node said it was, before the state said so
	closed bool
}

func newPeers(id *Identity, addresses func(cairn.NodeID) []string, reach Dial, patience time.Duration) *peers {
	return &peers{
		identity: id, addresses: addresses, reach: reach, patience: patience,
		conns: make(map[cairn.NodeID]*grpc.ClientConn), hints: make(map[cairn.NodeID]string),
	}
}

// learn remembers an address that a member gave for a node. It is tried last, and the node must prove who it is.
func (p *peers) learn(id cairn.NodeID, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hints[id] = address
}

// conn returns the connection to a node.
func (p *peers) conn(id cairn.NodeID) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("node: is being stopped: %w", cairn.ErrUnavailable)
	}
	if conn := p.conns[id]; conn != nil {
		return conn, nil
	}
	conn, err := p.open(id)
	if err != nil {
		return nil, err
	}
	p.conns[id] = conn
	return conn, nil
}

// open makes a connection to a node, with options besides its own.
func (p *peers) open(id cairn.NodeID, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+string(id), append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(p.identity.ClientConfig(identity.ProtocolGRPC, id))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx, id) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: p.patience / 40, Multiplier: 1.6, Jitter: 0.2, MaxDelay: p.patience / 2},
			MinConnectTimeout: p.patience,
		}),
		// Nothing is sent twice: whether the first attempt was carried out is for the caller to find out.
		grpc.WithDisableRetry(),
	}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", id, err)
	}
	return conn, nil
}

// ready waits until the connection to a node stands, so that an error before it certainly means that nothing was sent.
func (p *peers) ready(ctx context.Context, id cairn.NodeID) (*grpc.ClientConn, error) {
	conn, err := p.conn(id)
	if err != nil {
		return nil, err
	}
	conn.Connect()
	conn.ResetConnectBackoff() // a peer that was down may just have come back
	for failures := 0; ; {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return conn, nil
		case connectivity.Idle:
			conn.Connect()
		case connectivity.TransientFailure:
			failures++
		}
		// The first failure may be that of an earlier attempt.
		if failures > 1 || state == connectivity.Shutdown || !conn.WaitForStateChange(ctx, state) {
			return nil, fmt.Errorf("node %s: does not answer at %s: %w", id, strings.Join(p.candidates(id), ", "), cairn.ErrUnavailable)
		}
	}
}

func (p *peers) candidates(id cairn.NodeID) []string {
	addresses := p.addresses(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if hint := p.hints[id]; hint != "" && !slices.Contains(addresses, hint) {
		addresses = append(addresses, hint)
	}
	return addresses
}

// dial connects to the first address of a node that accepts. Who is there is proven by the handshake that follows.
func (p *peers) dial(ctx context.Context, id cairn.NodeID) (net.Conn, error) {
	failed := []error{fmt.Errorf("node %s: no address answers", id)}
	for _, address := range p.candidates(id) {
		conn, err := p.reach(ctx, address)
		if err == nil {
			return conn, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// dialRaft connects to a node for Raft, TLS included.
func (p *peers) dialRaft(ctx context.Context, id cairn.NodeID) (net.Conn, error) {
	conn, err := p.dial(ctx, id)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, p.identity.ClientConfig(identity.ProtocolRaft, id))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// dialTCP is the Dial of the machine's own network.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout: dialTimeout,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silenceLimit.Milliseconds()))
			})
			return errors.Join(err, failed)
		},
	}
	return d.DialContext(ctx, "tcp", address)
}

// drop closes the connection to a node that is no longer a member.
func (p *peers) drop(id cairn.NodeID) {
	p.mu.Lock()
	conn := p.conns[id]
	delete(p.conns, id)
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // only says that it was closed before
	}
}

func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var failed []error
	for _, conn := range p.conns {
		failed = append(failed, conn.Close())
	}
	return errors.Join(failed...)
}
