package fsm

import (
	"fmt"
	"strconv"

	"github.com/cairn-storage/cairn"
)

func (h *history) chance(percent int) bool {
	return h.choose.IntN(100) < percent
}

func (h *history) pick(from ...string) string {
	return from[h.choose.IntN(len(from))]
}

func (h *history) share() cairn.ShareID { return cairn.ShareID(h.pick("s1", "s1", "s1", "s2", "s3")) }

func (h *history) snapshot() cairn.SnapshotID {
	return cairn.SnapshotID(h.pick("p1", "p2", "p3"))
}

func (h *history) size() int64 { return h.choose.Int64N(6) << 30 }

func (h *history) id(prefix string) string { return fmt.Sprintf("%s%d", prefix, h.n) }

func (h *history) command() Command {
	if h.chance(40) {
		return h.report()
	}
	if h.chance(20) {
		return h.fleet()
	}
	if h.chance(35) {
		return h.replication()
	}
	switch h.choose.IntN(18) {
	case 0, 1:
		return h.create()
	case 2:
		return &DeleteShare{ID: h.share()}
	case 3, 4:
		kind := cairn.TaskExtend
		if h.chance(50) {
			kind = cairn.TaskShrink
		}
		return &SetSize{ID: h.share(), Kind: kind, Size: h.size(), Task: cairn.TaskID(h.id("t"))}
	case 5:
		return &RevertShare{ID: h.share(), Snapshot: h.snapshot(), Task: cairn.TaskID(h.id("t"))}
	case 6:
		c := &StopTask{Share: h.share()}
		if task := h.a.View().Task(c.Share); task != nil {
			c.Task = task.ID
		}
		return c
	case 7, 13, 14, 15:
		return &CreateSnapshot{cairn.Snapshot{ID: h.snapshot(), Share: h.share(), Name: h.pick("m", "t")}}
	case 16:
		return &ManageSnapshot{cairn.Snapshot{ID: h.snapshot(), Share: h.share(), Name: h.pick("m", "t")}, h.pick("x", "y")}
	case 17:
		return &UnmanageSnapshot{ID: h.snapshot()}
	case 8:
		return &DeleteSnapshot{ID: h.snapshot()}
	case 9:
		return &AllowAccess{h.rule()}
	case 10:
		return &DenyAccess{Rule: cairn.RuleID(h.id("a"))}
	case 11:
		r := h.rule()
		return &SetAccess{Share: r.Share, Snapshot: r.Snapshot, Rules: []cairn.AccessRule{r}}
	}
	return &UnmanageShare{ID: h.share(), Task: cairn.TaskID(h.id("t")), Release: "old"}
}

func (h *history) create() Command {
	c := createShare(h.pick("s1", "s2", "s3"), h.size())
	c.Share.Project = cairn.ProjectID(h.pick("web", "api"))
	c.Replicas[0].Pool = h.pool()
	if h.chance(60) {
		c.Share.Type = "twin"
		for n := range h.choose.IntN(3) {
			c.Replicas = append(c.Replicas, Placement{cairn.ReplicaID(fmt.Sprintf("r-%s-%d", c.Share.ID, n+2)), h.pool()})
		}
	}
	if h.chance(20) {
		c.Share.Source = h.snapshot()
	} else if h.chance(20) {
		c.Adopt, c.Task = "old", cairn.TaskID(h.id("t"))
	}
	return c
}

func (h *history) pool() cairn.PoolID {
	return cairn.PoolID(h.pick("n1/fast", "n1/slow", "n2/fast", "n3/fast"))
}

// replica is one that exists, mostly.
func (h *history) replica(of cairn.ShareID) cairn.ReplicaID {
	ids := []string{"r-none"}
	for r := range h.a.View().ReplicasOf(of) {
		ids = append(ids, string(r.ID), string(r.ID))
	}
	return cairn.ReplicaID(h.pick(ids...))
}

func (h *history) replication() Command {
	share := h.share()
	switch h.choose.IntN(10) {
	case 0, 1:
		id := cairn.ReplicaID(fmt.Sprintf("r-%s-%d", share, 2+h.choose.IntN(4)))
		return &AddReplica{Share: share, Replica: Placement{id, h.pool()}}
	case 2:
		return &RemoveReplica{Replica: h.replica(share), Force: h.chance(50)}
	case 3:
		return &ResyncReplica{Replica: h.replica(share)}
	case 4, 5, 6:
		return &PromoteShare{Share: share, Replica: h.replica(share), Task: cairn.TaskID(h.id("t"))}
	}
	c := &FailoverShares{}
	for i := range 1 + h.choose.IntN(2) {
		keep := h.id("kept") + "-" + strconv.Itoa(i) // as all identifiers, minted for one thing
		f := Failover{Share: h.share(), Snapshot: "y", Keep: cairn.SnapshotID(keep), Forced: h.chance(50)}
		f.Replica = h.replica(f.Share)
		if s := h.a.View().Share(f.Share); s != nil && h.chance(95) {
			f.Epoch = h.a.View().Replica(s.Active).Epoch
		}
		c.Failovers = append(c.Failovers, f)
	}
	return c
}

func (h *history) rule() cairn.AccessRule {
	r := cairn.AccessRule{
		ID: cairn.RuleID(h.id("a")), Share: h.share(), Kind: cairn.AccessIP, Who: h.pick("10.0.0.1", "10.0.0.2", "::1"),
		Level: cairn.AccessLevel(h.pick("rw", "ro")),
	}
	if h.chance(30) {
		r.Snapshot = h.snapshot()
	}
	return r
}

func (h *history) fleet() Command {
	node := cairn.NodeID(h.pick("n1", "n2", "n3"))
	switch h.choose.IntN(12) {
	case 0:
		return &CreateJoinToken{cairn.JoinToken{ID: "k", Node: node, Name: string(node), SecretHash: hashOf("s"), ExpiresAt: 1 << 40}}
	case 1:
		return &ConsumeJoinToken{ID: "k", SecretHash: hashOf("s"), KeyHash: hashOf("k")}
	case 2:
		return &RegisterNode{cairn.Node{ID: node, Name: string(node), Address: "a", CommandVersion: 1}}
	case 3, 8, 9, 10, 11:
		return &SetNodeState{Node: node, State: cairn.NodeState(h.pick("up", "down"))}
	case 4:
		return &DrainNode{Node: node, Draining: h.chance(50)}
	case 5:
		if h.chance(70) {
			return &FreezePool{Pool: "n1/fast", Frozen: h.chance(50)}
		}
		return &RemoveNode{Node: node, Force: h.chance(50)}
	case 6:
		return &SetQuota{cairn.Quota{Project: "web", Limits: cairn.Limits{Shares: 2, Bytes: 8 * h.size(), Snapshots: 2, SnapshotBytes: 4 * h.size()}}}
	}
	c := &RegisterPools{Node: node, Pools: []cairn.Pool{bigPool(node, "fast"), bigPool(node, "slow")}}
	c.Pools[1].Total = 4 << 30
	if h.chance(10) {
		c.Pools = c.Pools[:1]
	}
	return c
}

// report answers for a replica, mostly with what is wanted.
func (h *history) report() Command {
	r := h.a.View().Replica(h.replica(h.share()))
	if r == nil {
		return &ReportReplica{Replica: "r-none"}
	}
	c := honest(h.a.View(), r)
	if h.chance(20) {
		c.Have.Presence = cairn.Presence(h.pick("present", "absent", "released"))
		c.Have.Fault = cairn.Fault{Code: cairn.FaultCode(h.pick("", "data_loss", "no_space", "missing")), Message: "m"}
	}
	if h.chance(10) {
		c.RuleFault = cairn.Fault{Code: cairn.FaultExport, Message: "m"}
	}
	if h.chance(5) {
		c.Generation--
	}
	if h.chance(20) {
		c.Have.InSync, c.Have.Synced, c.Have.Sealed, c.Have.Kept = h.chance(50), "", "", ""
	}
	c.Have.Diverged = h.chance(50)
	c.Snapshots = nil
	for i := range h.a.View().InstancesOn(r.ID) {
		switch {
		case h.chance(80):
			c.Snapshots = append(c.Snapshots, SnapshotHave{Snapshot: i.Snapshot, Have: i.Want})
		case h.chance(30):
			c.Snapshots = append(c.Snapshots, SnapshotHave{Snapshot: i.Snapshot, Have: cairn.Absent})
		}
	}
	return c
}
