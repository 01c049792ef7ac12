package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// heard answers a heartbeat of a node, which its certificate has proven. The answer grants a lease only to a node that is
// committed as up, knows it, and is not condemned, and only from the moment at which this node was certainly the leader.
func (t *term) heard(node cairn.NodeID, request *peerv1.HeartbeatRequest) (*peerv1.HeartbeatResponse, error) {
	row := t.node.View().Node(node)
	if row == nil {
		return nil, fmt.Errorf("node %s: is not a member of the cluster: %w", node, cairn.ErrNotFound)
	}
	t.reports.put(node, request, t.node.config.Now())
	answer := &peerv1.HeartbeatResponse{Sequence: request.GetSequence()}
	grant, condemned := t.leases.Heard(node, request.GetAppliedIndex())
	if condemned || row.State != cairn.NodeUp {
		answer.Revoked = true
		return answer, nil
	}
	if !grant { // it catches up; a lease that it still holds was granted for a state that nobody has changed without it
		return answer, nil
	}
	if age, ok := t.node.engine.ProofAge(); ok {
		answer.TtlNanos, answer.ProofAgeNanos = int64(t.node.config.Timing.Lease.TTL), int64(age)
	}
	return answer, nil
}

// Withhold keeps a node that may be up from what needs a lease, at the leader: it gets none before release, and Withhold returns when
// it certainly has none any more. That holds as long as the leader's term, for the next leader grants leases again. After release the
// node has to know the log entry of index first; whoever does not know what became of his command does not call it. An error means that
// nothing is withheld.
func (n *Node) Withhold(ctx context.Context, node cairn.NodeID) (holds func() bool, release func(index uint64), err error) {
	t := n.term.Load()
	if t == nil {
		return nil, nil, n.notLeader()
	}
	holds = func() bool { return n.term.Load() == t }
	release = func(index uint64) { t.leases.Release(node, index) }
	if !t.leases.Withhold(node) {
		return holds, release, nil
	}
	terms := n.config.Timing.Lease
	wait := time.NewTimer(terms.TTL + terms.Margin)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		release(0)
		return nil, nil, fmt.Errorf("node %s: may still hold a lease: %w: %w", n.nameOf(node), ctx.Err(), cairn.ErrTimeout)
	}
	if !holds() {
		return nil, nil, n.notLeader()
	}
	return holds, release, nil
}

// judgeAll commits who is down, and who is up again.
func (t *term) judgeAll(ctx context.Context) {
	for node := range t.node.View().Nodes() {
		t.judge(ctx, node.ID)
	}
}

func (t *term) judge(ctx context.Context, id cairn.NodeID) {
	select {
	case t.liveness <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-t.liveness }()
	node := t.node.View().Node(id)
	if node == nil {
		t.leases.Forget(id)
		return
	}
	var verdict cairn.NodeState
	switch {
	case node.State == cairn.NodeUp && t.leases.Condemn(id):
		verdict = cairn.NodeDown
	case node.State == cairn.NodeDown && t.leases.Back(id):
		verdict = cairn.NodeUp
	default:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, t.node.config.Timing.Call)
	defer cancel()
	result, err := t.node.applyHere(ctx, &fsm.SetNodeState{Node: id, State: verdict})
	if err != nil {
		return // judged again at the next tick; until then it gets no lease
	}
	t.leases.Settle(id, verdict == cairn.NodeUp, result.Index)
	t.node.config.Logger.Warn("node: is "+string(verdict), "node", node.Name, "silent", t.leases.Silent(id).Round(time.Millisecond))
}
