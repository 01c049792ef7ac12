package fsm

import "github.com/cairn-storage/cairn"

// ReportReplica is what a node found and did about a replica. It is refused as cairn.ErrStale unless the node hosts the
// replica and Generation and Epoch are the newest: an answer to an older question proves nothing.
type ReportReplica struct {
	Node       cairn.NodeID
	Replica    cairn.ReplicaID
	Generation uint64
	Epoch      uint64
	// Have is what was found; its Generation is ignored.
	Have      cairn.ReplicaHave
	Snapshots []SnapshotHave
	// RuleFault says why access rules could not be applied, though the replica itself is served.
	RuleFault cairn.Fault
}

// SnapshotHave is what the node found of one snapshot on the replica. Absent means that it is certainly not there.
type SnapshotHave struct {
	Snapshot  cairn.SnapshotID
	Have      cairn.Presence
	Fault     cairn.Fault
	Locations []cairn.ExportLocation
}

func (*ReportReplica) op() Op           { return OpReportReplica }
func (c *ReportReplica) target() string { return "replica/" + string(c.Replica) }
