package fsm

import "github.com/cairn-storage/cairn"

// RegisterPools is the full list of a node's pools. A pool that is not in it any more is removed if it holds nothing, else
// it stays with a fault. Frozen is kept.
type RegisterPools struct {
	Node  cairn.NodeID
	Pools []cairn.Pool
}

// FreezePool stops, or allows again, new replicas in a pool.
type FreezePool struct {
	Pool   cairn.PoolID
	Frozen bool
}

func (*RegisterPools) op() Op           { return OpRegisterPools }
func (c *RegisterPools) target() string { return "node/" + string(c.Node) }

func (*FreezePool) op() Op           { return OpFreezePool }
func (c *FreezePool) target() string { return "pool/" + string(c.Pool) }
