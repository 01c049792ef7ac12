package cluster

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// Verdict is the answer to "may these nodes be stopped?".
type Verdict struct {
	OK      bool
	Reasons []string // why not, one sentence each
	// Shares lose the service of their only copy while the nodes are away. They lose no data.
	Shares []*cairn.Share
}

// OkToStop judges what would happen if the nodes were stopped now: whether a majority of the voters would still answer, and
// which shares nobody else could serve. Nodes that do not answer already count as stopped.
func OkToStop(status Status, view *fsm.View, stop []cairn.NodeID) Verdict {
	var v Verdict
	for _, id := range stop {
		if view.Node(id) == nil {
			v.Reasons = append(v.Reasons, fmt.Sprintf("node %s is not a member", id))
		}
	}
	away := make(map[cairn.NodeID]bool)
	voters, left := 0, 0
	for _, m := range status.Members {
		away[m.Node.ID] = slices.Contains(stop, m.Node.ID) || m.Node.State == cairn.NodeDown || !m.Answers
		if m.Votes {
			voters++
			if !away[m.Node.ID] {
				left++
			}
		}
	}
	if need := voters/2 + 1; left < need {
		v.Reasons = append(v.Reasons, fmt.Sprintf("%d of %d voters would be left, and %d are needed: no change could be made", left, voters, need))
	}
	for share := range view.Shares("") {
		served, copies := false, 0
		for replica := range view.ReplicasOf(share.ID) {
			copies++
			served = served || !away[replica.Node]
		}
		if copies > 0 && !served && hostedBy(view, share.ID, stop) {
			v.Shares = append(v.Shares, share)
		}
	}
	if n := len(v.Shares); n > 0 {
		v.Reasons = append(v.Reasons, fmt.Sprintf("%d shares have no copy elsewhere and could not be reached, such as %s", n, v.Shares[0].Name))
	}
	v.OK = len(v.Reasons) == 0
	return v
}

func hostedBy(view *fsm.View, share cairn.ShareID, nodes []cairn.NodeID) bool {
	for replica := range view.ReplicasOf(share) {
		if slices.Contains(nodes, replica.Node) {
			return true
		}
	}
	return false
}
