package cluster

import (
	"context"
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// ReadView returns a state that contains every command whose result anybody had before the call began, on any node.
// Without a leader it fails with cairn.ErrUnavailable; View still answers then.
func (n *Node) ReadView(ctx context.Context) (*fsm.View, error) {
	ctx, cancel := bounded(ctx, n.config.Timing.Call)
	defer cancel()
	err := n.atLeader(ctx, func(leader cairn.NodeID) error {
		if leader == n.identity.Node {
			_, err := n.engine.ReadIndex(ctx) // which waits for this node's own state
			return err
		}
		index, err := n.reads.Do(ctx)
		if err != nil {
			return err
		}
		return n.engine.WaitApplied(ctx, index)
	})
	if err != nil {
		return nil, err
	}
	return n.View(), nil
}

// askReadIndex is one round of a follower's readers.
func (n *Node) askReadIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, n.config.Timing.Election)
	defer cancel()
	leader, _ := n.Leader()
	if leader == "" {
		return 0, n.noLeader()
	}
	conn, err := n.peers.ready(ctx, leader)
	if err != nil {
		return 0, err
	}
	answer, err := peerv1.NewPeerServiceClient(conn).ReadIndex(ctx, &peerv1.ReadIndexRequest{})
	if err != nil {
		return 0, fmt.Errorf("leader %s: %w: %w", leader, err, cairn.ErrUnavailable) // a read can be asked again
	}
	return answer.GetIndex(), nil
}
