package replica

import (
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// Guard answers for exporters, on every request, whether a replica may be served here. It implements drivers.Guard.
type Guard struct {
	Node   cairn.NodeID
	Viewer interface{ View() *fsm.View }
	// LeaseValid reports whether this node holds a lease now.
	LeaseValid func() bool
}

// Check refuses a replica that has no row, another home or another epoch: cairn.ErrStale. Where another node could be made
// the writer without this one knowing it, a lease is needed too: cairn.ErrUnavailable. A share with one replica, or
// with manual failover, is served on without one: nobody else can write it, so stopping would cost and protect nothing.
func (g *Guard) Check(id cairn.ReplicaID, epoch uint64) error {
	v := g.Viewer.View()
	if standby, ok := drilled(id); ok { // served as long as its standby is here, in that epoch
		id = standby
	}
	row := v.Replica(id)
	switch {
	case row == nil:
		return fmt.Errorf("replica %s: has no row: %w", id, cairn.ErrStale)
	case row.Node != g.Node:
		return fmt.Errorf("replica %s: belongs to another node: %w", id, cairn.ErrStale)
	case row.Epoch != epoch:
		return fmt.Errorf("replica %s: epoch %d rules, not %d: %w", id, row.Epoch, epoch, cairn.ErrStale)
	}
	replicas := 0
	for range v.ReplicasOf(row.Share) {
		replicas++
	}
	var policy *cairn.ShareType
	if share := v.Share(row.Share); share != nil {
		policy = v.Type(share.Type)
	}
	if secondWriter(replicas, policy) && !g.LeaseValid() {
		return fmt.Errorf("replica %s: this node holds no lease: %w", id, cairn.ErrUnavailable)
	}
	return nil
}

// secondWriter reports whether the cluster may promote another replica by itself. Of a type that is not known the
// careful answer is yes.
func secondWriter(replicas int, t *cairn.ShareType) bool {
	return replicas > 1 && (t == nil || t.Failover == cairn.FailoverAuto)
}
