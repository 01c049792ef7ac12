package fsm

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
)

// RegisterNode announces a node, or that it came back: addresses, zone, labels and command version are taken over, its
// state becomes up, and Draining and JoinedAt stay. A new node needs a consumed join token of its ID and name, unless it is
// the first of the cluster.
type RegisterNode struct{ Node cairn.Node }

// SetNodeState records the leader's decision that a node is up or down.
type SetNodeState struct {
	Node  cairn.NodeID
	State cairn.NodeState
}

// DrainNode stops, or allows again, new replicas on a node.
type DrainNode struct {
	Node     cairn.NodeID
	Draining bool
}

// RemoveNode forgets a node for good, with its pools and join tokens. A node that hosts replicas is refused unless Force is
// set; then shares whose only copy was there are lost, and an event names each.
type RemoveNode struct {
	Node  cairn.NodeID
	Force bool
}

func (*RegisterNode) op() Op           { return OpRegisterNode }
func (c *RegisterNode) target() string { return "node/" + string(c.Node.ID) }

func (*SetNodeState) op() Op           { return OpSetNodeState }
func (c *SetNodeState) target() string { return "node/" + string(c.Node) }

func (*DrainNode) op() Op           { return OpDrainNode }
func (c *DrainNode) target() string { return "node/" + string(c.Node) }

func (*RemoveNode) op() Op           { return OpRemoveNode }
func (c *RemoveNode) target() string { return "node/" + string(c.Node) }

func (c *RegisterNode) apply(tx *Tx) (string, error) {
	row := c.Node
	if err := checkNode(tx, &row); err != nil {
		return "", err
	}
	row.State = cairn.NodeUp
	old := tx.Node(row.ID)
	if old == nil {
		row.Draining, row.JoinedAt = false, tx.meta.At
		put(tx, tx.nodes, &row)
		tx.event("node.joined", "", row.Ref(), "node %s joined at %s", row.Name, row.Address)
		return string(row.ID), nil
	}
	row.Draining, row.JoinedAt = old.Draining, old.JoinedAt
	put(tx, tx.nodes, &row)
	if old.State != cairn.NodeUp {
		tx.event("node.up", "", row.Ref(), "node %s is up", row.Name)
		tx.turned(&row)
	}
	return string(row.ID), nil
}

func checkNode(tx *Tx, n *cairn.Node) error {
	if err := checkID(cairn.KindNode, n.ID); err != nil {
		return err
	}
	if err := cairn.CheckName("node", n.Name); err != nil {
		return err
	}
	if err := checkMetadata(n.Labels); err != nil {
		return fmt.Errorf("node %s: labels: %w", n.Name, err)
	}
	if err := checkText("zone", n.Zone, cairn.MaxNameLength, false); err != nil {
		return err
	}
	old, named := tx.Node(n.ID), tx.NodeByName(n.Name)
	switch {
	case n.Address == "" || n.CommandVersion == 0:
		return cause(cairn.ErrInvalid, "node %s: address and command version are required", n.Name)
	case tx.Cluster() == nil:
		return cause(cairn.ErrPrecondition, "node %s: the cluster has not been initialised", n.Name)
	case named != nil && named.ID != n.ID:
		return cause(cairn.ErrExists, "node %s: a node of that name is a member with identifier %s", n.Name, named.ID)
	case old != nil && old.Name != n.Name:
		return cause(cairn.ErrInvalid, "node %s: its name is %s; a node is renamed by joining anew", n.Name, old.Name)
	case old == nil && tx.nodes.len() > 0 && !tx.mayJoin(n):
		return cause(cairn.ErrDenied, "node %s: no join token was used for identifier %s", n.Name, n.ID)
	}
	return nil
}

// mayJoin reports whether a join token of the node's ID and name was consumed.
func (tx *Tx) mayJoin(n *cairn.Node) bool {
	for token := range tx.Tokens() {
		if token.Node == n.ID && token.Name == n.Name && len(token.UsedBy) > 0 {
			return true
		}
	}
	return false
}

func (c *SetNodeState) apply(tx *Tx) (string, error) {
	old := tx.Node(c.Node)
	switch {
	case old == nil:
		return "", missing(cairn.KindNode, c.Node)
	case c.State != cairn.NodeUp && c.State != cairn.NodeDown:
		return "", cause(cairn.ErrInvalid, "node %s: state %q: want up or down", old.Name, c.State)
	case old.State == c.State:
		return string(c.Node), nil
	}
	row := *old
	row.State = c.State
	put(tx, tx.nodes, &row)
	// One event for the node: one for each share would push everything else out of the journal.
	tx.event("node."+string(c.State), "", row.Ref(), "node %s is %s", row.Name, c.State)
	tx.turned(&row)
	return string(c.Node), nil
}

// turned settles what follows for the replicas of a node from its going down or coming up.
func (tx *Tx) turned(node *cairn.Node) {
	tx.refault(tx.ReplicasOn(node.ID))
	for _, r := range slices.Collect(tx.ReplicasOn(node.ID)) {
		switch {
		case r.Role != cairn.RoleStandby:
		case node.State == cairn.NodeDown:
			tx.strand(r)
		case r.Have.InSync: // it said so of a time that is over: it must answer anew
			tx.wantOf(r, nil)
		}
	}
}

// strand: a standby on a node that is down follows nobody. What waits for it goes on without it. There is no event for
// each: that of the node says it.
func (tx *Tx) strand(r *cairn.Replica) {
	if tx.promotes(r) {
		tx.callOff(tx.Task(r.Share), cairn.TaskFailed,
			cairn.Fault{Code: cairn.FaultNodeDown, At: tx.meta.At, Message: "node " + tx.Node(r.Node).Name + ", which it was to go to, is down"})
	}
	if r = tx.Replica(r.ID); r.State == cairn.ReplicaInSync {
		tx.stand(tx.Share(r.Share), r, cairn.ReplicaOutOfSync)
	}
	tx.settleResize(r.Share)
}

func (c *DrainNode) apply(tx *Tx) (string, error) {
	old := tx.Node(c.Node)
	switch {
	case old == nil:
		return "", missing(cairn.KindNode, c.Node)
	case old.Draining == c.Draining:
		return string(c.Node), nil
	}
	row := *old
	row.Draining = c.Draining
	put(tx, tx.nodes, &row)
	if c.Draining {
		tx.event("node.draining", "", row.Ref(), "node %s takes no new replicas", row.Name)
	} else {
		tx.event("node.undrained", "", row.Ref(), "node %s takes new replicas again", row.Name)
	}
	return string(c.Node), nil
}

func (c *RemoveNode) apply(tx *Tx) (string, error) {
	node := tx.Node(c.Node)
	if node == nil {
		return "", missing(cairn.KindNode, c.Node)
	}
	if tx.nodes.len() == 1 {
		return "", cause(cairn.ErrPrecondition, "node %s: is the last node of the cluster", node.Name)
	}
	replicas := slices.Collect(tx.ReplicasOn(c.Node))
	if len(replicas) > 0 && !c.Force {
		return "", cause(cairn.ErrInUse, "node %s: hosts %s; delete them, or use --force and lose them",
			node.Name, plural(len(replicas), "replica", "replicas"))
	}
	for _, r := range replicas {
		share := tx.Share(r.Share)
		switch {
		case share.Active != r.ID || tx.otherThan(r) == nil:
		case share.Status == cairn.StatusCreating:
			return "", cause(cairn.ErrPrecondition, "node %s: %s is being created there; delete it first", node.Name, share.Ref())
		case share.Status == cairn.StatusAvailable:
			return "", cause(cairn.ErrPrecondition, "node %s: has the active replica of %s; promote another one first", node.Name, share.Ref())
		}
	}
	for _, r := range replicas {
		if err := tx.lose(r, node); err != nil {
			return "", err
		}
	}
	for _, p := range slices.Collect(tx.PoolsOf(c.Node)) {
		remove(tx, tx.pools, string(p.ID))
	}
	for _, t := range slices.Collect(tx.Tokens()) {
		if t.Node == c.Node {
			remove(tx, tx.tokens, string(t.ID))
		}
	}
	remove(tx, tx.nodes, string(c.Node))
	tx.event("node.removed", "", node.Ref(), "node %s removed", node.Name)
	return string(c.Node), nil
}

// lose forgets a replica with its node, and the share if that was its last copy.
func (tx *Tx) lose(r *cairn.Replica, node *cairn.Node) error {
	if other := tx.otherThan(r); other != nil {
		if share := tx.Share(r.Share); share.Active == r.ID { // of a share that is being deleted: it has an active one to its end
			tx.lead(share, other, cairn.Keep{})
		} else if tx.promotes(r) {
			tx.callOff(tx.Task(share.ID), cairn.TaskFailed, cairn.Fault{
				Code: cairn.FaultNodeDown, At: tx.meta.At, Message: "node " + node.Name + ", which it was to go to, was removed",
			})
		}
		share := tx.Share(r.Share)
		tx.dropReplica(share, tx.Replica(r.ID))
		tx.event("replica.lost", share.Project, r.Ref(), "replica of share %s lost with node %s", share.Name, node.Name)
		tx.without(share)
		return nil
	}
	share := *tx.Share(r.Share)
	if share.Status != cairn.StatusDeleting {
		if err := become(share.Ref(), &share.Status, cairn.StatusDeleting); err != nil {
			return err
		}
	}
	tx.dropShare(&share)
	tx.event("share.lost", share.Project, share.Ref(), "share %s (%s) lost: its only replica was on node %s",
		share.Name, cairn.FormatSize(share.Size), node.Name)
	return nil
}

// otherThan returns another replica of the same share, or nil.
func (tx *Tx) otherThan(r *cairn.Replica) *cairn.Replica {
	for other := range tx.ReplicasOf(r.Share) {
		if other.ID != r.ID {
			return other
		}
	}
	return nil
}
