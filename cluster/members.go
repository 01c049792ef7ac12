package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// The rows of nodes say who is a member; Raft's configuration follows them. Whoever adds, moves or removes a node commits
// the row, and the leader's term brings the configuration in line, after a crash as well as at once.

func raftID(id cairn.NodeID) raft.ServerID { return raft.ServerID(id) }

// change is one step towards a Raft configuration that fits the rows.
type change struct {
	kind    changeKind
	id      raft.ServerID
	address raft.ServerAddress
}

type changeKind string

const (
	changePlace    changeKind = "place"    // add as a non-voter, or give it its new address
	changeRemove   changeKind = "remove"   //
	changeHandOver changeKind = "handover" // this leader has been removed: another one must remove it from Raft
)

// reconcile compares the configuration with the rows. Without rows the cluster is not initialised, and nothing follows.
func reconcile(self cairn.NodeID, servers []raft.Server, nodes []*cairn.Node) []change {
	if len(nodes) == 0 {
		return nil
	}
	var changes []change
	rows := make(map[raft.ServerID]raft.ServerAddress)
	for _, node := range nodes {
		rows[raftID(node.ID)] = raftAddress(node.ID, node.Address)
	}
	placed := make(map[raft.ServerID]raft.ServerAddress)
	for _, server := range servers {
		placed[server.ID] = server.Address
		if _, member := rows[server.ID]; member {
			continue
		}
		kind := changeRemove
		if server.ID == raftID(self) {
			kind = changeHandOver
		}
		changes = append(changes, change{kind: kind, id: server.ID})
	}
	for _, node := range nodes {
		if id := raftID(node.ID); placed[id] != rows[id] {
			changes = append(changes, change{kind: changePlace, id: id, address: rows[id]})
		}
	}
	return changes
}

// keepMembers brings Raft's configuration in line with the rows, when woken and from time to time.
func (t *term) keepMembers(ctx context.Context) {
	ticker := time.NewTicker(t.node.config.Timing.Pilot)
	defer ticker.Stop()
	for {
		var nodes []*cairn.Node
		for node := range t.node.View().Nodes() {
			nodes = append(nodes, node)
		}
		for _, c := range reconcile(t.node.identity.Node, t.node.engine.Servers(), nodes) {
			if err := t.carryOut(ctx, c); err != nil && ctx.Err() == nil {
				t.node.config.Logger.Warn("membership: "+string(c.kind), "node", t.node.nameOf(cairn.NodeID(c.id)), "error", err)
			}
		}
		select {
		case <-t.wake:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (t *term) carryOut(ctx context.Context, c change) error {
	ctx, cancel := context.WithTimeout(ctx, t.node.config.Timing.Call)
	defer cancel()
	switch c.kind {
	case changePlace:
		return await(ctx, t.raft.AddNonvoter(c.id, c.address, 0, t.node.config.Timing.Call)) // keeps the vote of a voter
	case changeRemove:
		return await(ctx, t.raft.RemoveServer(c.id, 0, t.node.config.Timing.Call))
	default:
		return t.node.TransferLeadership(ctx, "")
	}
}

// await waits for Raft under a deadline. A future that nobody waits for any more ends with the instance.
func await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *term) wakeMembers() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// admitted reports whether a node may talk to this one as a member. It may if a row or Raft's configuration names it, and
// also if this node has no newest state to judge by: a node that was away may not know its own leader yet.
func (n *Node) admitted(id cairn.NodeID) bool {
	if n.View().Node(id) != nil || n.inRaft(id) {
		return true
	}
	current := n.engine.Leading() || time.Since(n.engine.Raft().LastContact()) < 2*n.config.Timing.Raft.Heartbeat
	return !current || n.View().Cluster() == nil
}

// watchMembers acts on changes of the rows of nodes: connections of a node that was removed are closed, and a node that
// finds itself removed stops.
func (n *Node) watchMembers() {
	changed := make(chan struct{}, 1)
	cancel := n.machine.Subscribe(func(changes []fsm.Change) {
		for _, c := range changes {
			if c.Table == fsm.TableDivergence {
				n.config.Logger.Error("state: differs from the leader's; drain this node, remove it and let it join anew", "entry", c.Key)
			}
		}
		ofNodes := func(c fsm.Change) bool { return c.Table == fsm.TableNodes }
		if changes == nil || slices.ContainsFunc(changes, ofNodes) { // nil is everything
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	defer cancel()
	known := make(map[cairn.NodeID]bool)
	for {
		now := make(map[cairn.NodeID]bool)
		for node := range n.View().Nodes() {
			now[node.ID] = true
		}
		for id := range known {
			if !now[id] {
				n.peers.drop(id)
			}
		}
		if len(known) > 0 {
			n.raftPort.expel()
		}
		switch {
		case now[n.identity.Node]:
			n.life.registered.Store(true)
		case known[n.identity.Node]:
			n.life.fail(n.removed())
		}
		known = now
		select {
		case <-changed:
		case <-n.life.ctx.Done():
			return
		}
	}
}

func (n *Node) removed() error {
	return fmt.Errorf("node %s: was removed from cluster %s; to join again it needs a new token and an empty data directory: %w",
		n.identity.Name, n.identity.Cluster.Name, cairn.ErrDenied)
}

// RemoveMember removes a node for good, at the leader: first its row, which is the decision, then its place in Raft, which
// any leader finishes. A refusal is Result.Err. It returns when Raft's configuration has followed, or with
// cairn.ErrUnknownOutcome if that took longer than the context; the row is gone then all the same.
func (n *Node) RemoveMember(ctx context.Context, meta fsm.Meta, id cairn.NodeID, force bool) (fsm.Result, error) {
	ctx, cancel := bounded(ctx, n.config.Timing.Call)
	defer cancel()
	t := n.term.Load()
	if t == nil {
		return fsm.Result{}, n.notLeader()
	}
	result, err := n.Apply(ctx, meta, &fsm.RemoveNode{Node: id, Force: force})
	if err != nil || result.Err != nil {
		return result, err
	}
	t.wakeMembers()
	for {
		if id == n.identity.Node || !n.inRaft(id) {
			return result, nil // a leader that removes itself is taken out by its successor
		}
		select {
		case <-time.After(n.config.Timing.Raft.Heartbeat / 10):
		case <-ctx.Done():
			return result, fmt.Errorf("node %s: is removed, and still in Raft's configuration: %w", id, cairn.ErrUnknownOutcome)
		}
	}
}

func (n *Node) inRaft(id cairn.NodeID) bool {
	for _, server := range n.engine.Servers() {
		if server.ID == raftID(id) {
			return true
		}
	}
	return false
}

func (n *Node) notLeader() error {
	leader, address := n.Leader()
	if leader == "" {
		return n.noLeader()
	}
	return fmt.Errorf("node %s: does not lead; the leader is %s at %s: %w", n.identity.Name, n.nameOf(leader), address, cairn.ErrUnavailable)
}

// TransferLeadership hands leadership to a voter; "" lets Raft pick the one that is closest. The error is
// cairn.ErrUnavailable if this node does not lead or the other did not take over: then this one still leads, or an
// election follows.
func (n *Node) TransferLeadership(ctx context.Context, to cairn.NodeID) error {
	ctx, cancel := bounded(ctx, n.config.Timing.Call)
	defer cancel()
	if !n.engine.Leading() {
		return n.notLeader()
	}
	// A second transfer while the first is still being cleared up is what makes Raft's flag stick.
	if !n.life.transfer.TryLock() {
		return fmt.Errorf("leadership: is being transferred already: %w", cairn.ErrBusy)
	}
	defer n.life.transfer.Unlock()
	var server *raft.Server // the best one
	if to != "" {
		found, err := n.voter(to)
		if err != nil {
			return err
		}
		server = &found
	}
	if err := n.engine.TransferLeadership(ctx, server); err != nil {
		return fmt.Errorf("leadership: %w: %w", err, cairn.ErrUnavailable)
	}
	return nil
}

func (n *Node) voter(id cairn.NodeID) (raft.Server, error) {
	for _, server := range n.engine.Servers() {
		switch {
		case server.ID != raftID(id):
		case server.Suffrage != raft.Voter:
			return server, fmt.Errorf("node %s: does not vote and cannot lead: %w", n.nameOf(id), cairn.ErrPrecondition)
		case id == n.identity.Node:
			return server, fmt.Errorf("node %s: leads already: %w", n.nameOf(id), cairn.ErrPrecondition)
		default:
			return server, nil
		}
	}
	return raft.Server{}, fmt.Errorf("node %s: is not a member: %w", id, cairn.ErrNotFound)
}

// addresses are where a node may be, the most likely first. Each is only a try: the node proves who it is.
func (n *Node) addresses(id cairn.NodeID) []string {
	var addresses []string
	add := func(address string) {
		if address != "" && !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	if node := n.View().Node(id); node != nil {
		add(node.Address)
	}
	for _, server := range n.engine.Servers() {
		if server.ID == raftID(id) {
			_, hostPort := splitRaftAddress(server.Address)
			add(hostPort)
		}
	}
	if m, ok := n.gossip.Find(id); ok {
		add(m.Address)
	}
	return addresses
}

// denied tells an answer that will not change by asking again.
func denied(err error) bool {
	return errors.Is(err, cairn.ErrDenied) || errors.Is(err, cairn.ErrPrecondition) || errors.Is(err, cairn.ErrInvalid) || errors.Is(err, cairn.ErrExists)
}
