package fsm

import "github.com/cairn-storage/cairn"

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
