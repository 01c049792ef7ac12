package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/cairn-storage/cairn"
)

// window is how much of a stream may be on its way: enough for 10 Gbit/s over 3 ms. It bounds what a slow standby keeps in
// memory; a connection holds at most connectionWindow for all its streams.
const (
	window           = 4 << 20
	connectionWindow = 16 << 20
)

// Connections are this node's own connections for replication, one to each node. The connection that package cluster keeps
// carries heartbeats and requests, which would wait behind the data of a stream.
type Connections struct {
	// Dial makes a connection with those options besides what reaches and proves the node.
	Dial func(node cairn.NodeID, options ...grpc.DialOption) (*grpc.ClientConn, error)
	// Silence is how long a connection may bring nothing before the other node is asked whether it is there; it then has half as
	// long to answer. 0 is 10 s.
	Silence time.Duration

	mu     sync.Mutex
	conns  map[cairn.NodeID]*grpc.ClientConn
	closed bool
}

// Conn is a Dial. The connection stands when it is first used, and is made again when it breaks.
func (c *Connections) Conn(_ context.Context, node cairn.NodeID) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("connection to node %s: this node is being stopped: %w", node, cairn.ErrUnavailable)
	}
	if conn := c.conns[node]; conn != nil {
		return conn, nil
	}
	conn, err := c.Dial(node, options(cmp.Or(c.Silence, 10*time.Second))...)
	if err != nil {
		return nil, err
	}
	if c.conns == nil {
		c.conns = make(map[cairn.NodeID]*grpc.ClientConn)
	}
	c.conns[node] = conn
	return conn, nil
}

// Close closes all of them. What uses them ends with an error.
func (c *Connections) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var failed []error
	for _, conn := range c.conns {
		failed = append(failed, conn.Close())
	}
	c.conns = nil
	return errors.Join(failed...)
}

func options(silence time.Duration) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(chunkBytes),
		// A watch sends nothing, so it would never notice that the other machine was unplugged.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silence, Timeout: silence / 2}),
	}
}
