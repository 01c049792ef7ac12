package fsm

import (
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
)

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

// maxNotes bounds what a driver may tell the operator.
const maxNotes = 16

// maxOverSubscription is 1000 times; beyond it a ratio is a mistake.
const maxOverSubscription = 100_000

func (c *RegisterPools) apply(tx *Tx) (string, error) {
	node := tx.Node(c.Node)
	if node == nil {
		return "", missing(cairn.KindNode, c.Node)
	}
	listed := make(map[cairn.PoolID]bool, len(c.Pools))
	for i := range c.Pools {
		row := c.Pools[i]
		if err := checkPool(node, &row); err != nil {
			return "", err
		}
		if listed[row.ID] {
			return "", cause(cairn.ErrInvalid, "pool %s/%s: is listed twice", node.Name, row.Name)
		}
		listed[row.ID] = true
		tx.registerPool(node, &row)
	}
	for _, old := range slices.Collect(tx.PoolsOf(c.Node)) {
		if !listed[old.ID] {
			tx.retirePool(node, old)
		}
	}
	return string(c.Node), nil
}

func checkPool(node *cairn.Node, p *cairn.Pool) error {
	if err := cairn.CheckName("pool", p.Name); err != nil {
		return err
	}
	switch label := node.Name + "/" + p.Name; {
	case p.Node != node.ID || p.ID != cairn.MakePoolID(node.ID, p.Name):
		return cause(cairn.ErrInvalid, "pool %s: identifier %q and node %q do not fit its name", label, p.ID, p.Node)
	case p.Driver == "":
		return cause(cairn.ErrInvalid, "pool %s: driver is required", label)
	case p.Total < 0:
		return cause(cairn.ErrInvalid, "pool %s: total %d: must not be negative", label, p.Total)
	case p.ReservedPercent < 0 || p.ReservedPercent > 99:
		return cause(cairn.ErrInvalid, "pool %s: reserved %d%%: want 0 to 99", label, p.ReservedPercent)
	case p.OverSubscriptionPercent < 100 || p.OverSubscriptionPercent > maxOverSubscription:
		return cause(cairn.ErrInvalid, "pool %s: over-subscription %d%%: want 100 to %d", label, p.OverSubscriptionPercent, maxOverSubscription)
	case len(p.Notes) > maxNotes || len(strings.Join(p.Notes, "")) > maxDescription:
		return cause(cairn.ErrInvalid, "pool %s: %d notes: want at most %d, with %d bytes together", label, len(p.Notes), maxNotes, maxDescription)
	case !slices.IsSorted(p.Capabilities) || !slices.IsSorted(p.Protocols):
		return cause(cairn.ErrInvalid, "pool %s: capabilities and protocols must be sorted", label)
	}
	return nil
}

func (tx *Tx) registerPool(node *cairn.Node, row *cairn.Pool) {
	old := tx.Pool(row.ID)
	if old == nil {
		row.Frozen, row.Fault = false, tx.since(cairn.Fault{}, row.Fault)
		put(tx, tx.pools, row)
		tx.event("pool.registered", "", row.Ref(), "pool %s/%s registered with %s", node.Name, row.Name, cairn.FormatSize(row.Total))
		tx.poolHealth(node, cairn.Fault{}, row)
		return
	}
	row.Frozen, row.Fault = old.Frozen, tx.since(old.Fault, row.Fault)
	put(tx, tx.pools, row)
	tx.poolHealth(node, old.Fault, row)
}

// retirePool handles a pool that the node does not have any more.
func (tx *Tx) retirePool(node *cairn.Node, old *cairn.Pool) {
	if first(tx.ReplicasIn(old.ID)) == nil {
		remove(tx, tx.pools, string(old.ID))
		tx.event("pool.removed", "", old.Ref(), "pool %s/%s removed", node.Name, old.Name)
		return
	}
	row := *old
	row.Fault = tx.since(old.Fault, cairn.Fault{Code: cairn.FaultPool, Message: "is not configured on its node any more"})
	put(tx, tx.pools, &row)
	tx.poolHealth(node, old.Fault, &row)
}

// poolHealth tells of a change of the pool's fault, once for the pool and silently for the shares in it.
func (tx *Tx) poolHealth(node *cairn.Node, was cairn.Fault, pool *cairn.Pool) {
	switch {
	case was == pool.Fault:
		return
	case pool.Fault.Healthy():
		tx.event("pool.healthy", "", pool.Ref(), "pool %s/%s is healthy again", node.Name, pool.Name)
	default:
		tx.event("pool.faulty", "", pool.Ref(), "pool %s/%s: %s", node.Name, pool.Name, pool.Fault.Message)
	}
	tx.refault(tx.ReplicasIn(pool.ID))
}

func (c *FreezePool) apply(tx *Tx) (string, error) {
	old := tx.Pool(c.Pool)
	switch {
	case old == nil:
		return "", missing(cairn.KindPool, c.Pool)
	case old.Frozen == c.Frozen:
		return string(c.Pool), nil
	}
	row := *old
	row.Frozen = c.Frozen
	put(tx, tx.pools, &row)
	if c.Frozen {
		tx.event("pool.frozen", "", row.Ref(), "pool %s takes no new replicas", tx.poolLabel(&row))
	} else {
		tx.event("pool.thawed", "", row.Ref(), "pool %s takes new replicas again", tx.poolLabel(&row))
	}
	return string(c.Pool), nil
}

// poolLabel names a pool for people: node name and pool name.
func (tx *Tx) poolLabel(p *cairn.Pool) string {
	if node := tx.Node(p.Node); node != nil {
		return node.Name + "/" + p.Name
	}
	return string(p.ID)
}

// promise adds to what is provisioned on a pool, unless that would be more than the pool can bear.
func (tx *Tx) promise(pool *cairn.Pool, size int64) error {
	now, limit := tx.Provisioned(pool.ID), pool.Provisionable()
	if now > limit || size > limit-now {
		return cause(cairn.ErrCapacity, "pool %s: %s promised and %s asked, but it can bear %s",
			tx.poolLabel(pool), cairn.FormatSize(now), cairn.FormatSize(size), cairn.FormatSize(limit))
	}
	put(tx, tx.provisioned, &provision{Pool: pool.ID, Bytes: now + size})
	return nil
}

// takeBack lowers what is provisioned on a pool.
func (tx *Tx) takeBack(id cairn.PoolID, size int64) {
	if left := tx.Provisioned(id) - size; left != 0 {
		put(tx, tx.provisioned, &provision{Pool: id, Bytes: left})
		return
	}
	remove(tx, tx.provisioned, string(id))
}
