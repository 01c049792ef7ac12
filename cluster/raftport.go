package cluster

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
)

// raftAddress is how Raft's configuration names a node: who must answer, and where. So whoever dials an address knows
// which certificate to expect there.
func raftAddress(id cairn.NodeID, address string) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + address)
}

func splitRaftAddress(address raft.ServerAddress) (cairn.NodeID, string) {
	id, hostPort, _ := strings.Cut(string(address), "@")
	return cairn.NodeID(id), hostPort
}

// raftPort feeds the accepted Raft connections of members to the stream layer of the Raft instance that runs now. Its one
// goroutine ends when the listener is closed.
type raftPort struct {
	node     *Node
	listener net.Listener

	mu      sync.Mutex
	current *streams
	done    chan struct{}
}

func newRaftPort(n *Node, listener net.Listener) *raftPort {
	p := &raftPort{node: n, listener: listener, done: make(chan struct{})}
	go p.serve()
	return p
}

func (p *raftPort) serve() {
	defer close(p.done)
	select {
	case <-p.node.life.opened:
	case <-p.node.life.ctx.Done():
		return
	}
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		current := p.current
		p.mu.Unlock()
		peer, err := identity.PeerOf(conn.(*tls.Conn).ConnectionState())
		if err != nil || current == nil || !p.node.admitted(cairn.NodeID(peer.Name)) || !current.offer(cairn.NodeID(peer.Name), conn) {
			_ = conn.Close() // the peer finds out, and asks again if it is a member
		}
	}
}

// layer makes the stream layer of a new Raft instance.
func (p *raftPort) layer() raft.StreamLayer {
	s := &streams{
		node: p.node, self: netAddress(raftAddress(p.node.identity.Node, p.node.config.Advertise)),
		incoming: make(chan net.Conn), closed: make(chan struct{}), accepted: make(map[net.Conn]cairn.NodeID),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = s
	return s
}

// expel closes the connections of nodes that are no longer members.
func (p *raftPort) expel() {
	p.mu.Lock()
	current := p.current
	p.mu.Unlock()
	if current != nil {
		current.closeUnless(p.node.admitted)
	}
}

func (p *raftPort) close() {
	_ = p.listener.Close() // never fails
	<-p.done
}

// streams is the stream layer of one Raft instance.
type streams struct {
	node     *Node
	self     netAddress
	incoming chan net.Conn

	mu       sync.Mutex
	closed   chan struct{}
	accepted map[net.Conn]cairn.NodeID
}

func (s *streams) offer(from cairn.NodeID, conn net.Conn) bool {
	s.mu.Lock()
	s.accepted[conn] = from
	s.mu.Unlock()
	select {
	case s.incoming <- &stream{Conn: conn, layer: s}:
		return true
	case <-s.closed:
		return false
	}
}

// stream forgets itself when Raft closes it.
type stream struct {
	net.Conn
	layer *streams
}

// Close implements net.Conn.
func (c *stream) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.accepted, c.Conn)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

func (s *streams) closeUnless(keep func(cairn.NodeID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, from := range s.accepted {
		if !keep(from) {
			_ = conn.Close() // Raft's reader finds out
			delete(s.accepted, conn)
		}
	}
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-s.incoming:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The port goes on to be open.
func (s *streams) Close() error {
	s.mu.Lock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	s.mu.Unlock()
	s.closeUnless(func(cairn.NodeID) bool { return false })
	return nil
}

// Addr implements net.Listener.
func (s *streams) Addr() net.Addr { return s.self }

// Dial implements raft.StreamLayer.
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.node.life.ctx, timeout)
	defer cancel()
	select {
	case <-s.node.life.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	id, hostPort := splitRaftAddress(address)
	s.node.peers.learn(id, hostPort)
	return s.node.peers.dialRaft(ctx, id)
}

// netAddress is an address that is only a name.
type netAddress string

// Network implements net.Addr.
func (netAddress) Network() string { return "raft" }

// String implements net.Addr.
func (a netAddress) String() string { return string(a) }
