package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/consensus"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// Apply proposes a command and waits for its result. A node that does not lead forwards what speaks for itself (its row,
// its pools, its reports) to the leader, and nothing else. What the state machine refuses is Result.Err. An error means that the command was not decided: cairn.ErrUnavailable and
// cairn.ErrUpgrade say that nothing was done, cairn.ErrUnknownOutcome that it may have been: ask again with the same token.
func (n *Node) Apply(ctx context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error) {
	if have, need := n.View().CommandVersion(), fsm.Version(c); need > have {
		return fsm.Result{}, fmt.Errorf("command of version %d: some node understands no more than version %d; upgrade it: %w", need, have, cairn.ErrUpgrade)
	}
	data, err := fsm.Encode(meta, c)
	if err != nil {
		return fsm.Result{}, err
	}
	ctx, cancel := bounded(ctx, n.config.Timing.Call)
	defer cancel()
	if speaksFor(n.identity.Node, data) == nil {
		return n.applyAnywhere(ctx, data)
	}
	// Only the leader could decide what such a command should say, so another leader must be asked from the start.
	for {
		result, err := n.engine.Apply(ctx, data)
		if !errors.Is(err, consensus.ErrNotLeader) {
			return result, err
		}
		leader, _, err := n.AwaitLeader(ctx)
		switch {
		case err != nil:
			return fsm.Result{}, err
		case leader != n.identity.Node:
			return fsm.Result{}, n.notLeader()
		}
	}
}

// AwaitLeader returns the leader and its address. During an election it waits, but no longer than one takes; then it fails
// with cairn.ErrUnavailable and says how many voters seem to answer.
func (n *Node) AwaitLeader(ctx context.Context) (cairn.NodeID, string, error) {
	patience := time.NewTimer(n.config.Timing.Election)
	defer patience.Stop()
	for {
		changed := n.engine.LeaderChanged()
		if leader, address := n.Leader(); leader != "" {
			return leader, address, nil
		}
		select {
		case <-changed:
		case <-patience.C:
			return "", "", n.noLeader()
		case <-ctx.Done():
			return "", "", n.noLeader()
		}
	}
}

// applyAnywhere proposes a command that speaks for this node wherever the leader is. It tries another leader only after an
// answer that certainly means that nothing was done.
func (n *Node) applyAnywhere(ctx context.Context, data []byte) (result fsm.Result, err error) {
	err = n.atLeader(ctx, func(leader cairn.NodeID) (err error) {
		if leader == n.identity.Node {
			result, err = n.engine.Apply(ctx, data)
		} else {
			result, err = n.forward(ctx, leader, data)
		}
		return err
	})
	return result, err
}

// forward sends a command to the leader, once.
func (n *Node) forward(ctx context.Context, leader cairn.NodeID, data []byte) (fsm.Result, error) {
	conn, err := n.peers.ready(ctx, leader)
	if err != nil {
		return fsm.Result{}, err
	}
	// failpoint: forwarding
	answer, err := peerv1.NewPeerServiceClient(conn).Apply(ctx, &peerv1.ApplyRequest{Command: data})
	// failpoint: forwarded
	if err != nil {
		if refused := fromStatus(err); errors.Is(refused, cairn.ErrDenied) {
			return fsm.Result{}, refused
		}
		return fsm.Result{}, fmt.Errorf("leader %s: %w: %w", leader, err, cairn.ErrUnknownOutcome)
	}
	if err := failureError(answer.GetUndecided()); err != nil {
		return fsm.Result{}, err
	}
	result := fsm.Result{
		ID: answer.GetId(), Index: answer.GetIndex(), Replayed: answer.GetReplayed(), Err: failureError(answer.GetRefused()),
	}
	for _, part := range answer.GetEach() {
		result.Each = append(result.Each, failureError(part.GetRefused()))
	}
	return result, nil
}

// atLeader calls the function with the leader, again if that one turns out not to lead, until the time of an election has
// passed. The function must return consensus.ErrNotLeader or cairn.ErrUnavailable only if nothing was done.
func (n *Node) atLeader(ctx context.Context, call func(cairn.NodeID) error) error {
	patience := time.NewTimer(n.config.Timing.Election)
	defer patience.Stop()
	for {
		changed := n.engine.LeaderChanged()
		var err error
		if leader, _ := n.engine.Leader(); leader == "" {
			err = n.noLeader()
		} else if err = call(cairn.NodeID(leader)); err == nil || !errors.Is(err, consensus.ErrNotLeader) && !errors.Is(err, cairn.ErrUnavailable) {
			return err
		}
		if errors.Is(err, consensus.ErrNotLeader) {
			err = n.noLeader()
		}
		select {
		case <-changed:
		case <-time.After(n.config.Timing.Raft.Heartbeat / 4): // the same leader, perhaps ready by now
		case <-patience.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// noLeader says what is known of why there is none.
func (n *Node) noLeader() error {
	voters := n.engine.Voters()
	answering := []string{}
	for _, m := range n.gossip.Members() {
		if slices.Contains(voters, raftID(m.ID)) {
			answering = append(answering, n.nameOf(m.ID))
		}
	}
	slices.Sort(answering)
	return fmt.Errorf("cluster: has no leader; %d of %d voters seem to answer %v, %d are needed: %w",
		len(answering), len(voters), answering, len(voters)/2+1, cairn.ErrUnavailable)
}

func (n *Node) nameOf(id cairn.NodeID) string {
	if node := n.View().Node(id); node != nil {
		return node.Name
	}
	return string(id)
}

// bounded gives the context a deadline, if it has none.
func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, limit)
}

// meta stamps a command of the cluster itself.
func (n *Node) meta() fsm.Meta { return fsm.Meta{At: n.config.Now().UnixNano(), Actor: "cluster"} }

// lead-only commands go to this node's engine and nowhere else: in another node's term they would be wrong.
func (n *Node) applyHere(ctx context.Context, c fsm.Command) (fsm.Result, error) {
	data, err := fsm.Encode(n.meta(), c)
	if err != nil {
		return fsm.Result{}, err
	}
	result, err := n.engine.Apply(ctx, data)
	if err != nil {
		return fsm.Result{}, err
	}
	return result, result.Err
}
