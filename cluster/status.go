package cluster

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
)

// Status is the cluster as one node sees it. What only the leader hears of is unset elsewhere; see Member.Heard.
type Status struct {
	Node    cairn.NodeID // who says this
	Leader  cairn.NodeID // "" if it knows none
	Term    uint64
	Applied uint64        // newest log entry in this node's state
	Lease   time.Duration // that this node has left; not positive means none
	// DiskWaiting is for how long the local log has not answered a write.
	DiskWaiting time.Duration
	Members     []Member // in order of identifier
}

// Member is one node of a Status.
type Member struct {
	Node      *cairn.Node
	InRaft    bool
	Votes     bool
	Answers   bool // by gossip: a hint
	Heard     bool // the leader has had a heartbeat of it in this term; the rest is from the newest
	Silent    time.Duration
	Skew      time.Duration // of its wall clock; positive is ahead of the leader's
	LastLog   uint64
	Applied   uint64
	Diverged  uint64 // log index of the first checkpoint at which its state differed from the leader's; 0 = none
	LeaseGood bool   // it may have a lease
}

// Status returns what this node knows, without asking anybody.
func (n *Node) Status() Status {
	leader, _ := n.Leader()
	status := Status{
		Node: n.identity.Node, Leader: leader, Term: n.engine.Raft().CurrentTerm(), Applied: n.engine.Applied(),
		Lease: n.lease.Left(n.config.Clock()), DiskWaiting: n.engine.DiskWaiting(),
	}
	suffrage := make(map[raft.ServerID]raft.ServerSuffrage)
	for _, server := range n.engine.Servers() {
		suffrage[server.ID] = server.Suffrage
	}
	for node := range n.View().Nodes() {
		m := Member{Node: node}
		var vote raft.ServerSuffrage
		vote, m.InRaft = suffrage[raftID(node.ID)]
		m.Votes = m.InRaft && vote == raft.Voter
		_, m.Answers = n.gossip.Find(node.ID)
		if t := n.term.Load(); t != nil {
			var newest report
			newest, m.Silent, m.Heard = t.reports.of(node.ID)
			m.Skew, m.LastLog, m.Applied, m.Diverged = newest.skew, newest.lastLog, newest.applied, newest.diverged
			m.LeaseGood = m.Heard && node.State == cairn.NodeUp && m.Silent < n.config.Timing.Lease.TTL
		}
		status.Members = append(status.Members, m)
	}
	return status
}
