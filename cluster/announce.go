package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// Announce tells the cluster that this node is there: its addresses, zone, labels, command version and pools. ID, name and
// cluster address are this node's own. It asks until it is answered or the context ends, and returns when the node is
// registered and its own state says so. cairn.ErrDenied means that the node is no member: it was removed.
func (n *Node) Announce(ctx context.Context, node cairn.Node, pools []cairn.Pool) error {
	node.ID, node.Name, node.Address = n.identity.Node, n.identity.Name, n.config.Advertise
	if node.CommandVersion == 0 {
		node.CommandVersion = fsm.CurrentVersion
	}
	meta := fsm.Meta{At: n.config.Now().UnixNano(), Actor: "node/" + string(node.ID)}
	registration, err := fsm.Encode(meta, &fsm.RegisterNode{Node: node})
	if err != nil {
		return err
	}
	inventory, err := fsm.Encode(meta, &fsm.RegisterPools{Node: node.ID, Pools: pools})
	if err != nil {
		return err
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, n.config.Timing.Call)
		index, err := n.announceOnce(attempt, registration, inventory)
		if err == nil {
			err = n.engine.WaitApplied(attempt, index)
		}
		cancel()
		if err == nil {
			n.life.registered.Store(true)
			return nil
		}
		switch {
		case errors.Is(err, cairn.ErrDenied):
			return n.removed() // its token was used once, and its row is gone
		case denied(err):
			return err
		}
		select {
		case <-time.After(n.config.Timing.Heartbeat):
		case <-ctx.Done():
			return fmt.Errorf("node %s: could not announce itself: %w", n.identity.Name, err)
		}
	}
}

func (n *Node) announceOnce(ctx context.Context, registration, inventory []byte) (uint64, error) {
	leader, err := n.findLeader(ctx)
	if err != nil {
		return 0, err
	}
	request := &peerv1.AnnounceRequest{RegisterNode: registration, RegisterPools: inventory, WallTime: n.config.Now().UnixNano()}
	if leader == n.identity.Node {
		return n.register(ctx, leader, request)
	}
	conn, err := n.peers.ready(ctx, leader)
	if err != nil {
		return 0, err
	}
	answer, err := peerv1.NewPeerServiceClient(conn).Announce(ctx, request)
	return answer.GetIndex(), fromStatus(err)
}

// findLeader returns the leader that this node follows, or whom the members that it can reach follow. A node that is new,
// or whose address has changed, is not told by Raft.
func (n *Node) findLeader(ctx context.Context) (cairn.NodeID, error) {
	if leader, _ := n.Leader(); leader != "" {
		return leader, nil
	}
	for _, address := range n.acquaintances() {
		hello, err := n.hello(ctx, address)
		if err != nil || hello.GetLeaderId() == "" {
			continue // one of the others may know
		}
		leader := cairn.NodeID(hello.GetLeaderId())
		n.peers.learn(leader, hello.GetLeaderAddress())
		return leader, nil
	}
	return "", n.noLeader()
}

// register carries out an announcement at the leader. Clocks are compared first, because what expires does so by them.
func (n *Node) register(ctx context.Context, sender cairn.NodeID, request *peerv1.AnnounceRequest) (uint64, error) {
	t := n.term.Load()
	if t == nil {
		return 0, n.notLeader()
	}
	if err := n.checkClock(request.GetWallTime()); err != nil {
		return 0, err
	}
	for _, data := range [][]byte{request.GetRegisterNode(), request.GetRegisterPools()} {
		if err := speaksFor(sender, data); err != nil {
			return 0, err
		}
	}
	// No verdict on this node may come between its registration and the end of its condemnation.
	select {
	case t.liveness <- struct{}{}:
	case <-ctx.Done():
		return 0, fmt.Errorf("node %s: is being judged: %w: %w", n.nameOf(sender), ctx.Err(), cairn.ErrUnavailable)
	}
	defer func() { <-t.liveness }()
	// failpoint: registering
	result, err := n.commit(ctx, request.GetRegisterNode())
	if err != nil {
		return 0, err
	}
	// failpoint: registered
	t.leases.Settle(sender, true, result.Index)
	t.leases.Heard(sender, 0)
	t.wakeMembers()
	if _, err := n.commit(ctx, request.GetRegisterPools()); err != nil {
		return 0, err
	}
	return result.Index, nil
}

// commit applies at this leader and makes one error of both kinds.
func (n *Node) commit(ctx context.Context, data []byte) (fsm.Result, error) {
	result, err := n.engine.Apply(ctx, data)
	if err == nil {
		err = result.Err
	}
	return result, err
}

func (n *Node) checkClock(theirs int64) error {
	skew := time.Duration(theirs - n.config.Now().UnixNano())
	if skew.Abs() <= maxSkew {
		return nil
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	return fmt.Errorf("clock: is %s %s that of the leader %s; set it right, keep it so with chrony or systemd-timesyncd, and try again: %w",
		skew.Abs().Round(time.Second), direction, n.identity.Name, cairn.ErrPrecondition)
}

// speaksFor refuses a command of a node that is about another one, or that nodes do not send.
func speaksFor(sender cairn.NodeID, data []byte) error {
	meta, command, err := fsm.Decode(data)
	if err != nil {
		return fmt.Errorf("command: %w: %w", err, cairn.ErrInvalid)
	}
	var about cairn.NodeID
	switch c := command.(type) {
	case *fsm.RegisterNode:
		about = c.Node.ID
	case *fsm.RegisterPools:
		about = c.Node
	case *fsm.ReportReplica:
		about = c.Node
	case *fsm.ReportReplicas:
		about = c.Node
	default:
		return fmt.Errorf("node %s: may not send %T: %w", sender, command, cairn.ErrDenied)
	}
	if about != sender || meta.Actor != "node/"+string(sender) {
		return fmt.Errorf("node %s: speaks for %q as %q: %w", sender, about, meta.Actor, cairn.ErrDenied)
	}
	return nil
}
