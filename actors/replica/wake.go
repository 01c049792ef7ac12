package replica

import (
	"iter"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/fsm"
)

// Keys yields the actors that a node must wake when it starts: every replica that it hosts and every pool that it has.
func Keys(v *fsm.View, node cairn.NodeID) iter.Seq[actors.Key] {
	return func(yield func(actors.Key) bool) {
		for r := range v.ReplicasOn(node) {
			if !yield(actors.Key{Kind: cairn.KindReplica, ID: string(r.ID)}) {
				return
			}
		}
		for p := range v.PoolsOf(node) {
			if !yield(actors.Key{Kind: cairn.KindPool, ID: string(p.ID)}) {
				return
			}
		}
	}
}

// Woken yields the actors of the node that the changes concern; of nil, which is "everything may have changed", all of
// them. The row of a replica changes with everything that is wanted of it, so no other table is needed; only that a first standby
// wants sync points its active replica cannot see in its own row. A row that is
// gone wakes nobody: its actor has removed the object and reported so before, and what was removed by force the next
// sweep finds, while the exporters' guard refuses to serve it from the moment the row is gone.
func Woken(v *fsm.View, node cairn.NodeID, changes []fsm.Change) iter.Seq[actors.Key] {
	if changes == nil {
		return Keys(v, node)
	}
	return func(yield func(actors.Key) bool) {
		for _, change := range changes {
			if change.Table != fsm.TableReplicas {
				continue
			}
			row := v.Replica(cairn.ReplicaID(change.Key))
			if row == nil {
				continue
			}
			if row.Node == node && !yield(actors.Key{Kind: cairn.KindReplica, ID: change.Key}) {
				return
			}
			if source := sourceOf(v, row); source != nil && source.Node == node && !yield(actors.Key{Kind: cairn.KindReplica, ID: string(source.ID)}) {
				return
			}
		}
	}
}

// sourceOf is the active replica that a standby which has nothing yet waits for; nil for every other row.
func sourceOf(v *fsm.View, row *cairn.Replica) *cairn.Replica {
	if row.Role != cairn.RoleStandby || row.Have.Presence == cairn.Present {
		return nil
	}
	share := v.Share(row.Share)
	if share == nil {
		return nil
	}
	return v.Replica(share.Active)
}
