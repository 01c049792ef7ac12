// Package gossip tells nodes of each other's addresses and of who seems to answer, over encrypted memberlist.
//
// All of it is a hint. Whoever holds the gossip key can say anything here, so nothing is promoted, removed or trusted
// because of it: an address is tried and then proven by certificate, and who is down is decided by leases.
package gossip

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cairn-storage/cairn"
)

// leaveTimeout is how long a node that stops waits until its farewell is under way.
const leaveTimeout = time.Second

// Config is what a node needs to gossip.
type Config struct {
	Bind      string // host:port; port 0 picks one
	Advertise string // host:port others use; "" is what was bound
	Key       []byte // 32 bytes, the cluster's
	Label     string // the cluster's identifier: other clusters on the network are not listened to
	Self      Member
	// Transport carries the packets instead of Bind; nil is UDP and TCP.
	Transport memberlist.Transport
	// Probe is how often a member is asked whether it is there: 200 ms unless set. The rest goes in proportion.
	Probe  time.Duration
	Logger *slog.Logger
}

// Member is what a node says of itself.
type Member struct {
	ID      cairn.NodeID `json:"id"`
	Address string       `json:"address"` // of the cluster port
}

// Gossip is a running member. Its goroutines are memberlist's; Close ends them.
type Gossip struct {
	list    *memberlist.Memberlist
	address string
	known   *known
}

// Open starts to listen. It knows nobody until Join.
func Open(c Config) (*Gossip, error) {
	meta, err := json.Marshal(c.Self)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if len(meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip: address %q is too long: %w", c.Self.Address, cairn.ErrInvalid)
	}
	config := memberlist.DefaultLANConfig()
	config.Name = string(c.Self.ID)
	config.Label = c.Label
	config.SecretKey = c.Key
	config.GossipVerifyIncoming, config.GossipVerifyOutgoing = true, true
	probe := cmp.Or(c.Probe, 200*time.Millisecond)
	config.ProbeInterval, config.ProbeTimeout, config.GossipInterval = probe, probe/2, probe/4
	config.PushPullInterval = 150 * probe
	config.SuspicionMult, config.Transport = 3, c.Transport
	config.EnableCompression = false // a packet of names and addresses gets hardly smaller, and it was half of what gossip costs
	members := &known{members: make(map[string]Member)}
	config.Delegate, config.Events = delegate{meta}, members
	config.Logger = log.New(lines{c.Logger}, "", 0)
	if config.BindAddr, config.BindPort, err = hostPort(c.Bind); err != nil {
		return nil, err
	}
	config.AdvertisePort = config.BindPort
	if c.Advertise != "" {
		address, err := net.ResolveUDPAddr("udp", c.Advertise)
		if err != nil {
			return nil, fmt.Errorf("gossip address: %w: %w", err, cairn.ErrInvalid)
		}
		config.AdvertiseAddr, config.AdvertisePort = address.IP.String(), address.Port
	}
	list, err := memberlist.Create(config)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return &Gossip{list: list, address: list.LocalNode().Address(), known: members}, nil
}

func hostPort(address string) (string, int, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("gossip address: %w: %w", err, cairn.ErrInvalid)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("gossip address %q: port: %w: %w", address, err, cairn.ErrInvalid)
	}
	return host, int(port), nil
}

// Address is where this member's gossip is reached.
func (g *Gossip) Address() string { return g.address }

// Join introduces this member to whoever listens at the addresses. It takes as long as connecting takes.
func (g *Gossip) Join(addresses ...string) error {
	if _, err := g.list.Join(addresses); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

// Members returns who seems to answer, this member included, in no order.
func (g *Gossip) Members() []Member {
	g.known.mu.Lock()
	defer g.known.mu.Unlock()
	return slices.Collect(maps.Values(g.known.members))
}

// Find returns what a node says of itself, if it seems to answer.
func (g *Gossip) Find(id cairn.NodeID) (Member, bool) {
	g.known.mu.Lock()
	defer g.known.mu.Unlock()
	m, ok := g.known.members[string(id)]
	return m, ok
}

// Close says farewell, so that the others need not find out, and stops.
func (g *Gossip) Close() error {
	left := g.list.Leave(leaveTimeout)
	if err := g.list.Shutdown(); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if left != nil && g.list.NumMembers() > 1 {
		return fmt.Errorf("gossip: leave: %w", left)
	}
	return nil
}

// known keeps a copy of who is there. What memberlist itself returns are pointers to what it goes on to change.
type known struct {
	mu      sync.Mutex
	members map[string]Member
}

// NotifyJoin implements memberlist.EventDelegate. It must not wait, and only takes a lock that nobody holds for long.
func (k *known) NotifyJoin(node *memberlist.Node) {
	var m Member
	// What cannot be read says nothing of anyone; a member speaks under its own name only.
	if json.Unmarshal(node.Meta, &m) != nil || string(m.ID) != node.Name {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.members[node.Name] = m
}

// NotifyUpdate implements memberlist.EventDelegate.
func (k *known) NotifyUpdate(node *memberlist.Node) { k.NotifyJoin(node) }

// NotifyLeave implements memberlist.EventDelegate.
func (k *known) NotifyLeave(node *memberlist.Node) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.members, node.Name)
}

// delegate answers memberlist from memory: its callbacks run where packets are received, and must not wait.
type delegate struct{ meta []byte }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte { return d.meta }

// NotifyMsg implements memberlist.Delegate. No messages are sent this way.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (delegate) MergeRemoteState([]byte, bool) {}

// lines passes memberlist's log on, for those who debug.
type lines struct{ logger *slog.Logger }

var _ io.Writer = lines{}

// Write implements io.Writer; the log package calls it once per line.
func (l lines) Write(line []byte) (int, error) {
	l.logger.Debug("gossip", "line", string(line))
	return len(line), nil
}
