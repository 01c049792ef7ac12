package server

import (
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// stranded returns the active replica of a share whose node is down and which has another replica, else nil.
func stranded(v *fsm.View, s *cairn.Share) *cairn.Replica {
	active := v.Replica(s.Active)
	if active == nil || s.Status != cairn.StatusAvailable {
		return nil
	}
	if n := v.Node(active.Node); n == nil || n.State != cairn.NodeDown {
		return nil
	}
	for r := range v.ReplicasOf(s.ID) {
		if r.ID != active.ID {
			return active
		}
	}
	return nil
}

// failover explains a share that waits for another replica to take over: who could, by which policy, how far it is, and what an
// operator can do and would lose by it. It returns what the summary says; "" if the share does not wait.
func (q *question) failover(f *facts, s *cairn.Share) string {
	active, kind := stranded(q.view, s), q.view.Type(s.Type)
	if active == nil || kind == nil {
		return ""
	}
	reason := q.waits
	switch {
	case kind.Failover != cairn.FailoverAuto:
		f.add("policy", "type %s leaves failover to an operator", kind.Name)
		reason = "an operator, as its type says"
	case kind.MaxRPO > 0:
		f.add("policy", "type %s has the freshest replica that is in_sync take over, unless more than %s of writes would be lost", kind.Name, time.Duration(kind.MaxRPO))
	default:
		f.add("policy", "type %s has the freshest replica that is in_sync take over", kind.Name)
	}
	if q.waits != "" && kind.Failover == cairn.FailoverAuto {
		f.add("failover", "%s", q.waits)
	}
	able, ready := "", false
	for r := range q.view.ReplicasOf(s.ID) {
		if r.ID == active.ID {
			continue
		}
		text, complete := q.candidate(r, active)
		f.add("candidate", "%s", text)
		if complete && able == "" {
			able = nodeName(q.view, r.Node)
		}
		ready = ready || complete && r.State == cairn.ReplicaInSync
	}
	if able == "" {
		f.add("operator", "no replica can take over, not even by force; bring back node %s, or one of the others", nodeName(q.view, active.Node))
	} else {
		f.add("operator", "`cairn share promote %s --to %s --force` takes over without the active replica; what the new one lacks stays at node %s, which keeps it: `cairn replica list %s --diverged`",
			s.Name, able, nodeName(q.view, active.Node), s.Name)
	}
	switch {
	case reason != "":
		return reason
	case !ready:
		return "no replica is in_sync on a node that is up"
	}
	return "the leader's decision"
}

// candidate says of a standby what stands in its way and how far it is, and whether it may take over by force.
func (q *question) candidate(r, active *cairn.Replica) (text string, complete bool) {
	name := nodeName(q.view, r.Node)
	node, state := q.view.Node(r.Node), q.sync[r.ID]
	switch {
	case node == nil || node.State != cairn.NodeUp:
		return fmt.Sprintf("the one on node %s cannot: the node is not up", name), false
	case r.Have.Presence != cairn.Present || r.Want.Presence != cairn.Present:
		return fmt.Sprintf("the one on node %s cannot: it is not complete, or is being removed", name), false
	case r.Have.Fault.Code == cairn.FaultMissing:
		return fmt.Sprintf("the one on node %s cannot: %s", name, r.Have.Fault.Message), false
	case state == nil || state.Lag < 0:
		return fmt.Sprintf("the one on node %s is %s, and the node does not say how far it is", name, r.State), true
	}
	lacks := "nothing that is known of"
	if left := state.Lag - q.downSince(active.Node); left > 0 {
		lacks = fmt.Sprintf("up to %s of writes", left.Round(time.Second))
	}
	return fmt.Sprintf("the one on node %s is %s and lacks %s", name, r.State, lacks), true
}

// downSince is for how long a node has certainly been down, 0 if that is not known.
func (q *question) downSince(id cairn.NodeID) time.Duration {
	if at := q.downAt(id); at != 0 {
		return max(0, q.now.Sub(time.Unix(0, at)))
	}
	return 0
}
