package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// scene is a cluster of two nodes in which share "backups" was asked for, on n1, 40 seconds ago.
type scene struct {
	*testCluster
	now     time.Time
	replica cairn.ReplicaID
	live    map[cairn.ReplicaID]live
	sync    map[cairn.ReplicaID]*SyncState
	waits   string
}

const (
	sceneShare   = cairn.ShareID("01990000-0000-7000-8000-0000000000a1")
	sceneReplica = cairn.ReplicaID("01990000-0000-7000-8000-0000000000b1")
	sceneSnap    = cairn.SnapshotID("01990000-0000-7000-8000-0000000000c1")
	sceneTask    = cairn.TaskID("01990000-0000-7000-8000-0000000000d1")
)

func newScene(t *testing.T) *scene {
	c := newCluster(t, 2)
	s := &scene{testCluster: c, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), replica: sceneReplica, live: map[cairn.ReplicaID]live{}}
	c.at = s.now.Add(-40 * time.Second)
	c.must(&fsm.CreateShare{
		Share:    cairn.Share{ID: sceneShare, Project: "default", Name: "backups", Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "default", Size: gib},
		Replicas: []fsm.Placement{{ID: sceneReplica, Pool: s.pool("n1")}},
	})
	return s
}

func (s *scene) pool(node string) cairn.PoolID { return cairn.MakePoolID(s.node(node).id, "data") }

// report is what n1 says about the replica.
func (s *scene) report(fault cairn.Fault) {
	r := s.machine.View().Replica(sceneReplica)
	have := cairn.ReplicaHave{Presence: cairn.Present, Size: s.machine.View().Share(sceneShare).Size, Fault: fault}
	if r.Have.Presence == cairn.Absent && !fault.Healthy() {
		have.Presence = cairn.Absent
	}
	s.must(&fsm.ReportReplica{Node: r.Node, Replica: r.ID, Generation: r.Generation, Epoch: r.Epoch, Have: have})
}

// after moves the clock of commands to that long before the question.
func (s *scene) after(ago time.Duration) { s.at = s.now.Add(-ago) }

func (s *scene) actor(status ActorStatus) { s.live[sceneReplica] = live{status: status} }

// cutting asks for a snapshot and an access rule.
func (s *scene) cutting() {
	s.report(cairn.Fault{})
	s.after(7 * time.Second)
	s.must(&fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: sceneSnap, Share: sceneShare, Name: "s1"}})
	s.must(&fsm.AllowAccess{Rule: cairn.AccessRule{ID: "r1", Share: sceneShare, Kind: cairn.AccessIP, Who: "10.0.0.1", Level: cairn.AccessRW}})
}

// stranded makes share "docs" with its active replica on n1, which went down a minute ago, and a standby on n2 that is state.
func (s *scene) stranded(kind cairn.ShareType, state SyncState) string {
	const docs, active, standby = cairn.ShareID("01990000-0000-7000-8000-0000000000a2"), cairn.ReplicaID("01990000-0000-7000-8000-0000000000b2"), cairn.ReplicaID("01990000-0000-7000-8000-0000000000b3")
	kind.Name, kind.Format, kind.Replication = "copied", cairn.FormatFiles, cairn.ReplicationDR
	s.must(&fsm.CreateType{Type: kind})
	s.must(&fsm.CreateShare{
		Share:    cairn.Share{ID: docs, Project: "default", Name: "docs", Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "copied", Size: gib},
		Replicas: []fsm.Placement{{ID: active, Pool: s.pool("n1")}, {ID: standby, Pool: s.pool("n2")}},
	})
	for _, id := range []cairn.ReplicaID{active, standby} {
		r := s.machine.View().Replica(id)
		have := cairn.ReplicaHave{Presence: cairn.Present, Size: gib, InSync: id == standby && state.Error == ""}
		s.must(&fsm.ReportReplica{Node: r.Node, Replica: id, Generation: r.Generation, Epoch: r.Epoch, Have: have})
	}
	s.after(time.Minute)
	s.must(&fsm.SetNodeState{Node: s.node("n1").id, State: cairn.NodeDown})
	s.sync = map[cairn.ReplicaID]*SyncState{standby: &state}
	return "share/docs"
}

// unreadable makes share "docs" with its active replica on n1 and a standby on n2, in sync, which the exporter there does not serve.
func (s *scene) unreadable() cairn.ReplicaID {
	const docs, active, standby = cairn.ShareID("01990000-0000-7000-8000-0000000000a4"), cairn.ReplicaID("01990000-0000-7000-8000-0000000000b4"), cairn.ReplicaID("01990000-0000-7000-8000-0000000000b5")
	s.must(&fsm.CreateType{Type: cairn.ShareType{Name: "readable", Format: cairn.FormatFiles, Replication: cairn.ReplicationReadable, Failover: cairn.FailoverManual}})
	s.must(&fsm.CreateShare{
		Share:    cairn.Share{ID: docs, Project: "default", Name: "docs", Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "readable", Size: gib},
		Replicas: []fsm.Placement{{ID: active, Pool: s.pool("n1")}, {ID: standby, Pool: s.pool("n2")}},
	})
	s.must(&fsm.AllowAccess{Rule: cairn.AccessRule{ID: "r4", Share: docs, Kind: cairn.AccessIP, Who: "10.0.0.1", Level: cairn.AccessRW}})
	for _, id := range []cairn.ReplicaID{active, standby, active} { // the rule is new to it once the standby is in sync
		r := s.machine.View().Replica(id)
		have := cairn.ReplicaHave{Presence: cairn.Present, Size: gib, InSync: id == standby}
		s.must(&fsm.ReportReplica{Node: r.Node, Replica: id, Generation: r.Generation, Epoch: r.Epoch, Have: have})
	}
	s.live[standby] = live{status: ActorStatus{
		Attempts: 3, Next: s.now.Add(8 * time.Second),
		LastError: "replica: export snapshot sync-00000001-00000007-000000000001: clients cannot read what this standby holds now: root: too many open files",
	}}
	return standby
}

// gate says anew what the pool of a node can do.
func (s *scene) gate(node string, can bool) {
	row := *s.machine.View().Pool(s.pool(node))
	row.Protocols = []cairn.Protocol{cairn.ProtocolNFS, cairn.ProtocolWebDAV}
	row.Notes = []string{"shares over NFS cannot fail over by themselves: nft is not installed"}
	row.Capabilities = slices.DeleteFunc(slices.Clone(row.Capabilities), func(c cairn.Capability) bool { return c == cairn.CapFence })
	if can {
		row.Notes, row.Capabilities = nil, append(row.Capabilities, cairn.CapFence)
		slices.Sort(row.Capabilities)
	}
	s.must(&fsm.RegisterPools{Node: row.Node, Pools: []cairn.Pool{row}})
}

// gated makes share "docs" over NFS with failover, with a replica on each node, the first active.
func (s *scene) gated(address string, served bool, nodes ...string) string {
	const docs = cairn.ShareID("01990000-0000-7000-8000-0000000000a3")
	s.must(&fsm.CreateType{Type: cairn.ShareType{Name: "safe", Format: cairn.FormatFiles, Replication: cairn.ReplicationDR, Failover: cairn.FailoverAuto}})
	create := fsm.CreateShare{Share: cairn.Share{ID: docs, Project: "default", Name: "docs", Format: cairn.FormatFiles, Protocol: cairn.ProtocolNFS, Type: "safe", Size: gib}}
	for i, node := range nodes {
		s.gate(node, true)
		create.Replicas = append(create.Replicas, fsm.Placement{ID: cairn.ReplicaID(fmt.Sprintf("01990000-0000-7000-8000-0000000000e%d", i)), Pool: s.pool(node)})
	}
	s.must(&fsm.CreateFencedShare{Create: create, Address: address})
	for i, placed := range create.Replicas {
		r := s.machine.View().Replica(placed.ID)
		have := cairn.ReplicaHave{Presence: cairn.Present, Size: gib, InSync: i > 0}
		if i == 0 && served {
			have.Locations = []cairn.ExportLocation{{URL: "10.0.0.9:/srv/cairn/docs", Preferred: true}}
		}
		s.must(&fsm.ReportReplica{Node: r.Node, Replica: r.ID, Generation: r.Generation, Epoch: r.Epoch, Have: have})
	}
	return "share/docs"
}

// stories are the questions that operators ask on bad days. Each returns the resource that is asked about.
var stories = map[string]func(s *scene) string{
	"creating, failing": func(s *scene) string {
		s.report(cairn.Fault{Code: cairn.FaultNoSpace, Message: "the pool is full"})
		s.actor(ActorStatus{Step: "create", Attempts: 4, LastError: "mkdir: no space left on device", Next: s.now.Add(3 * time.Second)})
		return "share/backups"
	},
	"creating, at work": func(s *scene) string {
		s.actor(ActorStatus{Step: "copying files", Since: s.now.Add(-12 * time.Second)})
		return "share/backups"
	},
	"creating, queued": func(s *scene) string {
		s.actor(ActorStatus{Queued: true})
		return "share/backups"
	},
	"creating, not heard of": func(s *scene) string { return "share/backups" },
	"creating, node does not answer": func(s *scene) string {
		s.live[sceneReplica] = live{err: errors.New("connection refused")}
		return "share/backups"
	},
	"creating, node down": func(s *scene) string {
		s.after(25 * time.Second)
		s.must(&fsm.SetNodeState{Node: s.node("n1").id, State: cairn.NodeDown})
		return "share/backups"
	},
	"all is well": func(s *scene) string { s.report(cairn.Fault{}); return "share/backups" },
	"dataset missing": func(s *scene) string {
		s.report(cairn.Fault{})
		s.after(10 * time.Second)
		s.report(cairn.Fault{Code: cairn.FaultMissing, Message: "directory is gone"})
		return "share/backups"
	},
	"extending": func(s *scene) string {
		s.report(cairn.Fault{})
		s.after(5 * time.Second)
		s.must(&fsm.ResizeShare{ID: sceneShare, Size: 2 * gib, Task: sceneTask})
		return "task/backups"
	},
	"shrink refused": func(s *scene) string {
		s.report(cairn.Fault{})
		s.must(&fsm.ResizeShare{ID: sceneShare, Size: gib / 2, Task: sceneTask})
		s.after(5 * time.Second)
		s.report(cairn.Fault{Code: cairn.FaultDataLoss, Message: "700MiB are used"})
		s.report(cairn.Fault{})
		return "share/backups"
	},
	"deleting": func(s *scene) string {
		s.report(cairn.Fault{})
		s.must(&fsm.DeleteShare{ID: sceneShare})
		return "share/backups"
	},
	"snapshot creating":      func(s *scene) string { s.cutting(); return "snapshot/backups/s1" },
	"share waits for others": func(s *scene) string { s.cutting(); return "share/backups" },
	"replica":                func(s *scene) string { return "replica/" + string(sceneReplica) },
	"failover, left to an operator": func(s *scene) string {
		s.waits = "type copied leaves failover to an operator"
		return s.stranded(cairn.ShareType{Failover: cairn.FailoverManual}, SyncState{Lag: 72 * time.Second})
	},
	"failover, too much would be lost": func(s *scene) string {
		s.waits = "node n2 would take over without the last 1m30s of writes, and type copied allows 30s"
		return s.stranded(cairn.ShareType{Failover: cairn.FailoverAuto, MaxRPO: int64(30 * time.Second)}, SyncState{Lag: 150 * time.Second})
	},
	"failover, asked on another node": func(s *scene) string {
		return s.stranded(cairn.ShareType{Failover: cairn.FailoverAuto}, SyncState{Lag: -1, Error: "out of sync"})
	},
	"failover, nobody is left": func(s *scene) string {
		resource := s.stranded(cairn.ShareType{Failover: cairn.FailoverAuto}, SyncState{})
		s.waits = "no replica can take over: node n2 is down"
		s.must(&fsm.SetNodeState{Node: s.node("n2").id, State: cairn.NodeDown})
		return resource
	},
	"over NFS, behind a gate": func(s *scene) string { return s.gated("10.0.0.9/24", true, "n1", "n2") },
	"over NFS, not served":    func(s *scene) string { return s.gated("10.0.0.9/24", false, "n1", "n2") },
	"over NFS, one node lost its gate, no address": func(s *scene) string {
		resource := s.gated("", true, "n1", "n2")
		s.gate("n2", false)
		return resource
	},
	"standby that cannot be read":              func(s *scene) string { s.unreadable(); return "share/docs" },
	"standby that cannot be read, the replica": func(s *scene) string { return "replica/" + string(s.unreadable()) },
	"node up": func(s *scene) string { return "node/n1" },
	"node down": func(s *scene) string {
		s.after(2 * time.Minute)
		s.must(&fsm.SetNodeState{Node: s.node("n1").id, State: cairn.NodeDown})
		return "node/n1"
	},
	"node draining": func(s *scene) string {
		s.must(&fsm.DrainNode{Node: s.node("n2").id, Draining: true})
		return "node/n2"
	},
	"pool": func(s *scene) string { return "pool/n1/data" },
	"pool frozen": func(s *scene) string {
		s.must(&fsm.FreezePool{Pool: s.pool("n1"), Frozen: true})
		return "pool/n1/data"
	},
	"pool of a node that drains": func(s *scene) string {
		s.must(&fsm.DrainNode{Node: s.node("n2").id, Draining: true})
		return "pool/n2/data"
	},
}

// TestWhy compares each explanation with the golden text: whoever reads it must understand what is going on.
func TestWhy(t *testing.T) {
	told := map[string]bool{}
	datadriven.RunTest(t, "testdata/why", func(t *testing.T, d *datadriven.TestData) string {
		name := strings.TrimSpace(d.Input)
		story := stories[name]
		if story == nil {
			t.Fatalf("no story %q", name)
		}
		told[name] = true
		s := newScene(t)
		resource := story(s)
		v, admin := s.machine.View(), &caller{user: &cairn.User{Name: "admin", Role: cairn.UserAdmin}}
		about, err := admin.subject(v, resource, "")
		if err != nil {
			t.Fatal(err)
		}
		q := &question{view: v, now: s.now, raft: s.node("n1").Status(), live: s.live, sync: s.sync, waits: s.waits}
		return render(q.explain(about))
	})
	for name := range stories {
		if !told[name] {
			t.Errorf("story %q is in no golden text", name)
		}
	}
}

func render(answer *pb.WhyResponse) string {
	out := answer.GetSummary() + "\n"
	for _, line := range answer.GetLines() {
		out += fmt.Sprintf("  %s: %s\n", line.GetTopic(), line.GetText())
	}
	return out
}

// TestWhyAsksTheNode: over the API, the answer holds what the hosting node says.
func TestWhyAsksTheNode(t *testing.T) {
	c := newCluster(t, 1)
	api := c.admin()
	made, err := api.Shares().CreateShare(t.Context(), &pb.CreateShareRequest{Name: "a", Size: gib})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.node("n1").actors[cairn.ReplicaID(made.GetShare().GetReplicas()[0].GetId())] = live{status: ActorStatus{Attempts: 1, LastError: "disk on fire"}}
	c.mu.Unlock()
	why, err := api.Cluster().Why(t.Context(), &pb.WhyRequest{Resource: "share/a"})
	if err != nil || !strings.Contains(why.GetSummary(), "disk on fire") || !strings.Contains(why.GetSummary(), "n1") {
		t.Errorf("why: %v, %v", why, err)
	}
}
