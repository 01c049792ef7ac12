package server

import (
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
)

// gates says by what a share over NFS that fails over by itself is reached: through the gate of whichever node has the active
// replica, and at its service address.
func (q *question) gates(f *facts, s *cairn.Share) {
	kind, address := q.view.Type(s.Type), q.view.ServiceAddress(s.ID)
	active := q.view.Replica(s.Active)
	if s.Protocol != cairn.ProtocolNFS || kind == nil || kind.Failover != cairn.FailoverAuto || active == nil {
		return
	}
	f.add("gate", "node %s lets clients through only while it holds a lease; on the node: nft list table inet cairn_nfs", nodeName(q.view, active.Node))
	for r := range q.view.ReplicasOf(s.ID) {
		if pool := q.view.Pool(r.Pool); pool != nil && !slices.Contains(pool.Capabilities, cairn.CapFence) {
			f.add("gate", "node %s cannot have one, so it cannot serve the share: %s", nodeName(q.view, r.Node), strings.Join(pool.Notes, "; "))
		}
	}
	switch {
	case !address.IsValid():
		f.add("address", "it has no service address: clients have to find the next node after a failover; see `cairn share set-address`")
	case len(writtenAt(active)) == 0:
		f.add("address", "%s is held by nobody while the share is not served; node %s takes it when it is", address, nodeName(q.view, active.Node))
	default:
		f.add("address", "%s is held by node %s while it serves the share; on the node: ip address show", address, nodeName(q.view, active.Node))
	}
}
