package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/fsm"
)

// standby is a candidate, with what its node said of it.
type standby struct {
	row    *cairn.Replica
	node   *cairn.Node
	newest cairn.SnapshotID // "" if the node does not answer or has no sync point
	point  replica.SyncPoint
	asOf   time.Time
	silent error // why the node does not answer
}

// standbysOf returns the replicas of a share that are not active.
func standbysOf(view *fsm.View, share *cairn.Share) (out []standby) {
	for row := range view.ReplicasOf(share.ID) {
		if row.ID != share.Active {
			out = append(out, standby{row: row, node: view.Node(row.Node)})
		}
	}
	return out
}

// complete reports whether the replica is there and on a node that is up.
func (s *standby) complete() bool {
	have := s.row.Have
	return s.node.State == cairn.NodeUp && s.row.Want.Presence == cairn.Present && have.Presence == cairn.Present &&
		have.Fault.Code != cairn.FaultMissing
}

// ready reports whether the replica may become active without an operator's word.
func (s *standby) ready() bool { return s.complete() && s.row.State == cairn.ReplicaInSync }

// condition says what stands in the way of a replica; otherwise is said of the node of one that is ready.
func (s *standby) condition(otherwise string) string {
	switch {
	case s.node.State != cairn.NodeUp:
		return fmt.Sprintf("node %s is %s", s.node.Name, s.node.State)
	case s.row.Want.Presence != cairn.Present:
		return "the one on node " + s.node.Name + " is being removed"
	case s.row.Have.Presence != cairn.Present:
		return "the one on node " + s.node.Name + " has never been complete"
	case s.row.Have.Fault.Code == cairn.FaultMissing:
		return "the one on node " + s.node.Name + " " + s.row.Have.Fault.Message
	case s.row.State != cairn.ReplicaInSync:
		return fmt.Sprintf("the one on node %s is %s", s.node.Name, s.row.State)
	case s.silent != nil:
		return fmt.Sprintf("node %s does not answer: %v", s.node.Name, s.silent)
	}
	return "node " + s.node.Name + " " + otherwise
}

func conditions(standbys []standby, otherwise string) string {
	var texts []string
	for i := range standbys {
		texts = append(texts, standbys[i].condition(otherwise))
	}
	return strings.Join(texts, "; ")
}

// freshest returns the candidate with the newest sync point, nil if none has one. Of equal ones the data are the same, so
// until when one node knows that nothing had changed since holds for all of them.
func freshest(candidates []standby) *standby {
	var best *standby
	for i := range candidates {
		s := &candidates[i]
		switch {
		case s.newest == "":
		case best == nil || s.point.Epoch > best.point.Epoch || s.point.Epoch == best.point.Epoch && s.point.Seq > best.point.Seq:
			best = s
		case s.point.Epoch == best.point.Epoch && s.point.Seq == best.point.Seq:
			known := best.asOf
			if s.asOf.After(known) {
				known = s.asOf
			}
			if s.row.ID < best.row.ID {
				best = s
			}
			best.asOf = known
		}
	}
	return best
}

// choose decides who takes over, or why nobody does. lastWrite is the latest moment at which the active one can have
// written.
func choose(kind *cairn.ShareType, standbys []standby, lastWrite time.Time) (best *standby, window time.Duration, why reason) {
	if kind.Failover != cairn.FailoverAuto {
		return nil, 0, reason{cause: "the type leaves failover to an operator", text: fmt.Sprintf("type %s leaves failover to an operator", kind.Name)}
	}
	candidates := slices.DeleteFunc(slices.Clone(standbys), func(s standby) bool { return !s.ready() })
	if len(candidates) == 0 {
		return nil, 0, reason{cause: "no replica is in sync on a node that is up", text: "no replica can take over: " + conditions(standbys, "has no sync point of it")}
	}
	if best = freshest(candidates); best == nil {
		return nil, 0, reason{cause: "no candidate says how far it is", text: "no replica can take over: " + conditions(standbys, "has no sync point of it")}
	}
	window = best.window(lastWrite)
	if limit := time.Duration(kind.MaxRPO); limit > 0 && window > limit {
		return nil, window, reason{cause: "more would be lost than the type allows", text: fmt.Sprintf(
			"node %s would take over without the last %s of writes, and type %s allows %s", best.node.Name, rounded(window), kind.Name, limit)}
	}
	return best, window, reason{}
}

// window is for how long the active one can have written what is not here.
func (s *standby) window(lastWrite time.Time) time.Duration { return max(0, lastWrite.Sub(s.asOf)) }

// rounded is for people.
func rounded(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}
