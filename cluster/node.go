package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/consensus"
	"github.com/cairn-storage/cairn/cluster/gossip"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/cluster/lease"
	"github.com/cairn-storage/cairn/cluster/mux"
	"github.com/cairn-storage/cairn/fsm"
)

// Node is a running member. Its goroutines are those of its parts, and one each for: the leader's term, its heartbeats,
// changes of membership, acquaintance with peers, and the renewal of its certificate. Close ends and awaits all of them.
type Node struct {
	config   Config
	identity *Identity
	machine  *fsm.Machine
	engine   *consensus.Engine
	port     *mux.Mux
	raftPort *raftPort
	joins    *grpc.Server
	gossip   *gossip.Gossip
	peers    *peers
	lease    lease.Holder
	term     atomic.Pointer[term] // set while this node leads
	reads    *consensus.Rounds    // of a follower
	life     life
}

// life is what ends a node.
type life struct {
	ctx        context.Context
	cancel     context.CancelFunc
	running    sync.WaitGroup
	opened     chan struct{} // closed when every part is there: Raft talks to peers before Open has returned
	stopped    chan error
	registered atomic.Bool // the cluster has known this node in this life
	transfer   sync.Mutex  // one leadership transfer at a time: a second one can make the first stick
}

// fail reports why the node must stop. Only the first reason counts.
func (l *life) fail(err error) {
	select {
	case l.stopped <- err:
	default:
	}
}

// Open starts a node whose data directory has an identity: one that was made by Init or Join.
func Open(_ context.Context, config Config) (_ *Node, err error) {
	defer func() {
		if err != nil {
			_ = config.Listener.Close() // it may be closed already
		}
	}()
	if _, _, err := net.SplitHostPort(config.Advertise); err != nil {
		return nil, fmt.Errorf("address to advertise: %w: %w", err, cairn.ErrInvalid)
	}
	id, err := LoadIdentity(config.DataDir)
	if err != nil {
		return nil, err
	}
	config.setDefaults(id.Patience)
	n := &Node{config: config, identity: id, machine: fsm.New()}
	n.life.stopped, n.life.opened = make(chan error, 1), make(chan struct{})
	n.life.ctx, n.life.cancel = context.WithCancel(context.Background())
	n.peers = newPeers(id, n.addresses, config.Network.Dial, config.Timing.Dial)
	n.reads = consensus.NewRounds(n.life.ctx, n.askReadIndex)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	n.port = mux.New(config.Listener, mux.Protocols{
		identity.ProtocolGRPC: id.ServerConfig(tls.RequireAndVerifyClientCert, identity.ProtocolGRPC),
		identity.ProtocolRaft: id.ServerConfig(tls.RequireAndVerifyClientCert, identity.ProtocolRaft),
		identity.ProtocolJoin: id.ServerConfig(tls.NoClientCert, identity.ProtocolJoin),
	}, config.Timing.Handshake, config.Logger)
	n.raftPort = newRaftPort(n, n.port.Listener(identity.ProtocolRaft))
	if n.gossip, err = gossip.Open(gossip.Config{
		Bind: config.GossipBind, Advertise: config.GossipAdvertise, Key: id.GossipKey, Label: string(id.Cluster.ID),
		Self: gossip.Member{ID: id.Node, Address: config.Advertise}, Transport: config.Network.Gossip, Probe: config.Timing.Probe, Logger: config.Logger,
	}); err != nil {
		return nil, err
	}
	if n.engine, err = consensus.Open(n.consensusConfig(), n.founding()); err != nil {
		return nil, err
	}
	n.start()
	return n, nil
}

func (n *Node) consensusConfig() consensus.Config {
	return consensus.Config{
		Dir: filepath.Join(n.config.DataDir, "raft"), ID: raft.ServerID(n.identity.Node),
		Streams: n.raftPort.layer, Machine: n.machine,
		Timing: n.config.Timing.Raft, Clock: n.config.Clock, Middleware: n.config.Middleware, Logger: n.config.Logger,
	}
}

// founding is the first configuration of Raft, on the node that made the cluster.
func (n *Node) founding() *raft.Configuration {
	if n.identity.Founder == nil {
		return nil
	}
	return &raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(n.identity.Node), Address: raftAddress(n.identity.Node, n.config.Advertise),
	}}}
}

func (n *Node) start() {
	close(n.life.opened)
	n.joins = newJoinServer(n)
	n.life.running.Go(func() { _ = n.joins.Serve(n.port.Listener(identity.ProtocolJoin)) }) // until the listener closes
	n.life.running.Go(n.lead)
	n.life.running.Go(n.beat)
	n.life.running.Go(n.watchMembers)
	n.life.running.Go(n.acquaint)
	n.life.running.Go(n.renew)
}

// Close stops the node, in the way that a crash would, but that it tells gossip. A leader that goes in peace transfers its
// leadership first.
func (n *Node) Close() error {
	n.life.cancel()
	if n.joins != nil {
		n.joins.Stop()
	}
	n.life.running.Wait()
	var failed []error
	if n.engine != nil {
		failed = append(failed, n.engine.Close())
	}
	if n.gossip != nil {
		failed = append(failed, n.gossip.Close())
	}
	failed = append(failed, n.peers.close())
	if n.port != nil {
		n.raftPort.close()
		failed = append(failed, n.port.Close())
	}
	return errors.Join(failed...)
}

// Stopped receives why the node must stop: it was removed, or it can no longer do its work. The caller then closes it.
func (n *Node) Stopped() <-chan error { return n.life.stopped }

// Identity is who this node is.
func (n *Node) Identity() *Identity { return n.identity }

// Machine is the replicated state of this node.
func (n *Node) Machine() *fsm.Machine { return n.machine }

// View is the state as this node knows it, perhaps an old one. It costs nothing.
func (n *Node) View() *fsm.View { return n.machine.View() }

// IsLeader reports whether this node leads, as far as it knows.
func (n *Node) IsLeader() bool { return n.engine.Leading() }

// Leader returns the leader that this node knows of, and its address; "" if it knows none.
func (n *Node) Leader() (cairn.NodeID, string) {
	id, address := n.engine.Leader()
	_, hostPort := splitRaftAddress(address)
	return cairn.NodeID(id), hostPort
}

// LeaseValid reports whether this node may write now.
func (n *Node) LeaseValid() bool { return n.LeaseLeft() > 0 }

// LeaseLeft is for how long this node may still write; not positive means not at all.
func (n *Node) LeaseLeft() time.Duration { return n.lease.Left(n.config.Clock()) }

// APIListener returns the connections that negotiated "h2". TLS has been done: serve them with ServerCredentials.
func (n *Node) APIListener() net.Listener { return n.port.Listener(identity.ProtocolGRPC) }

// ServerCredentials lets gRPC see the certificate of connections on which TLS has been done.
func (n *Node) ServerCredentials() credentials.TransportCredentials { return handshaken{} }

// Conn returns the connection to a peer; it is shared and stays the node's. It connects when it is first used.
func (n *Node) Conn(_ context.Context, id cairn.NodeID) (*grpc.ClientConn, error) {
	return n.peers.conn(id)
}

// Dial makes a connection to a peer that is the caller's own, for what would stand in the way of heartbeats on the shared one.
func (n *Node) Dial(id cairn.NodeID, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return n.peers.open(id, options...)
}

// PoolFree is the free space of a pool by the newest heartbeat, at the leader; -1 if it is not known.
func (n *Node) PoolFree(pool cairn.PoolID) int64 {
	if t := n.term.Load(); t != nil {
		return t.reports.free(pool)
	}
	return -1
}
