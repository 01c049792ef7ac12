package fsm

import (
	"slices"

	"github.com/cairn-storage/cairn"
)

// CreateFromSnapshot makes a share from a snapshot. If From is empty it is cloned in a pool that has the snapshot; else the copy
// on that replica is sent to another pool. Until the share is there the snapshot can neither be deleted nor let go of, and From
// cannot be removed but with its node.
type CreateFromSnapshot struct {
	Create CreateFencedShare // or one that needs no fence
	From   cairn.ReplicaID
}

func (*CreateFromSnapshot) op() Op           { return OpCreateFromSnapshot }
func (c *CreateFromSnapshot) target() string { return c.Create.target() }

func (c *CreateFromSnapshot) apply(tx *Tx) (string, error) {
	if c.Create.Create.Share.Source == "" {
		return "", cause(cairn.ErrInvalid, "share %s: comes from no snapshot", c.Create.Create.Share.Name)
	}
	if c.From != "" {
		if err := checkID(cairn.KindReplica, c.From); err != nil {
			return "", err
		}
	}
	return c.Create.create(tx, c.From)
}

// sends checks that the replica can send the snapshot that the share is made from to the pool.
func (tx *Tx) sends(s *cairn.Share, from cairn.ReplicaID, to cairn.PoolID) error {
	source, pool := tx.Replica(from), tx.Pool(to)
	if source == nil {
		return missing(cairn.KindReplica, from)
	}
	if i := tx.Instance(s.Source, from); i == nil || i.Have != cairn.Present || i.Want != cairn.Present {
		return cause(cairn.ErrPrecondition, "share %s: %s does not have snapshot %s", s.Name, source.Ref(), s.Source)
	}
	if pool == nil {
		return missing(cairn.KindPool, to)
	}
	home := tx.Pool(source.Pool)
	switch node := tx.Node(source.Node); {
	case node.State != cairn.NodeUp:
		return cause(cairn.ErrPrecondition, "share %s: node %s, which has snapshot %s, is %s", s.Name, node.Name, s.Source, node.State)
	case home.Driver != pool.Driver:
		return cause(cairn.ErrNotSupported, "share %s: snapshot %s is in pool %s, whose driver %s has no stream for pool %s of driver %s",
			s.Name, s.Source, tx.poolLabel(home), home.Driver, tx.poolLabel(pool), pool.Driver)
	}
	for _, p := range []*cairn.Pool{home, pool} {
		if !slices.Contains(p.Capabilities, cairn.CapReplicate) {
			return cause(cairn.ErrNotSupported, "pool %s: cannot do %s", tx.poolLabel(p), cairn.CapReplicate)
		}
	}
	return nil
}
