package cluster

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/consensus"
	"github.com/cairn-storage/cairn/cluster/lease"
)

// Config is what a node needs. DataDir, Listener, Advertise and Logger are required.
type Config struct {
	DataDir  string
	Listener net.Listener // the cluster port; the node owns it, also if Open fails
	// Advertise is the host:port at which other nodes reach Listener.
	Advertise string
	// GossipBind is the host:port for gossip; "" is any port on the address of Advertise. GossipAdvertise is what others use.
	GossipBind, GossipAdvertise string
	// Seeds are addresses of members to ask for the leader when nothing else is known, such as after all moved at once.
	Seeds []string
	// Free reports the free bytes of the node's pools; it is called with every heartbeat and must not block. May be nil.
	Free func() map[cairn.PoolID]int64
	// Duties are what else this node does while it leads the cluster. Each is run in a goroutine of its own when a term has
	// begun, and its context ends with the term; the next term waits until it has returned.
	Duties []func(ctx context.Context)
	// Timing may be zero, which means DefaultTiming, with the patience that the cluster was made with. It must be the same on
	// all nodes.
	Timing Timing
	// Clock counts while the machine sleeps, Now is the wall clock; both are for tests to replace.
	Clock lease.Clock
	Now   func() time.Time
	// Network is how this node reaches others; nil is the machine's own.
	Network *Network
	// Middleware, if set, wraps the Raft log store: for fault injection and measurement.
	Middleware func(raft.LogStore) raft.LogStore
	Logger     *slog.Logger
}

// Network stands in for the machine's network where there is none: whole clusters in virtual time.
type Network struct {
	// Dial connects to the cluster port of a node, as net.Dialer does.
	Dial Dial
	// Gossip carries the packets of gossip. It is the node's, and shut down with it.
	Gossip memberlist.Transport
}

// Dial connects to host:port.
type Dial func(ctx context.Context, address string) (net.Conn, error)

// Timing is every duration of a node.
type Timing struct {
	Raft      consensus.Timing
	Lease     lease.Terms
	Heartbeat time.Duration // between renewals of the lease
	// Probe is how often gossip asks a member whether it is there. Members that it does not know are looked for a tenth as
	// often: afterwards gossip keeps itself.
	Probe time.Duration
	// Election is how long a call waits for a leader before it says that there is none.
	Election time.Duration
	// Stable is how long a new node must have been healthy before it may vote; Pilot is how often that is looked at.
	Stable, Pilot time.Duration
	// Checkpoint is how often states are compared, if anything has changed; CheckpointEntries is how many log entries bring
	// it forward.
	Checkpoint        time.Duration
	CheckpointEntries uint64
	// Dial is how long it may take to connect to another node; half of it is the longest pause between two attempts.
	Dial time.Duration
	// Handshake is how long who connects may take to prove who it is.
	Handshake time.Duration
	// Call bounds calls whose context has no deadline.
	Call time.Duration
}

// DefaultTiming is for machines in one network.
func DefaultTiming() Timing {
	return Timing{
		Raft:              consensus.DefaultTiming(),
		Lease:             lease.Terms{TTL: 2 * time.Second, Margin: 500 * time.Millisecond},
		Heartbeat:         250 * time.Millisecond,
		Probe:             200 * time.Millisecond,
		Election:          1500 * time.Millisecond,
		Stable:            3 * time.Second,
		Pilot:             time.Second,
		Checkpoint:        30 * time.Second,
		CheckpointEntries: 10_000,
		Dial:              dialTimeout,
		Handshake:         5 * time.Second,
		Call:              10 * time.Second,
	}
}

// times is t with more patience: everything that decides that somebody does not answer takes n times as long, and what is
// said all the time is said n times less often.
func (t Timing) times(n int) Timing {
	for _, wait := range []*time.Duration{
		&t.Raft.Heartbeat, &t.Raft.Commit, &t.Raft.DiskLimit, &t.Raft.RPC, &t.Lease.TTL, &t.Lease.Margin, &t.Heartbeat, &t.Election,
	} {
		*wait *= time.Duration(max(1, n))
	}
	return t
}

// maxSkew is how far clocks may differ when a node joins or comes back. Tokens and certificates expire by the wall
// clock, and so do the events that people read; nothing that fences does.
const maxSkew = 60 * time.Second

func (c *Config) setDefaults(patience int) {
	if c.Timing == (Timing{}) {
		c.Timing = DefaultTiming().times(patience)
	}
	if c.Clock == nil {
		c.Clock = lease.Boottime
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.GossipBind == "" {
		host, _, _ := net.SplitHostPort(c.Advertise) // Open has checked it
		if net.ParseIP(host) == nil {
			host = "0.0.0.0" // a name may resolve to an address that is not this machine's own
		}
		c.GossipBind = net.JoinHostPort(host, "0")
	}
	if c.Network == nil {
		c.Network = &Network{Dial: dialTCP}
	}
	if c.Free == nil {
		c.Free = func() map[cairn.PoolID]int64 { return nil }
	}
}
