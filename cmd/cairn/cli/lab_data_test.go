package cli

import (
	"fmt"
	"time"

	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// ago is a time before now, as the API writes it.
func ago(d time.Duration) string { return now.Add(-d).Format(time.RFC3339Nano) }

const (
	docsID   = "01990000-0000-7000-8000-000000000001"
	mediaID  = "01990000-0000-7000-8000-000000000002"
	beforeID = "01990000-0000-7000-8000-000000000003"
	aliceID  = "01990000-0000-7000-8000-000000000004"
	lanID    = "01990000-0000-7000-8000-000000000005"
	taskID   = "01990000-0000-7000-8000-000000000006"
	tokenID  = "01990000-0000-7000-8000-000000000007"
	n1ID     = "01990000-0000-7000-8000-0000000000a1"
	n2ID     = "01990000-0000-7000-8000-0000000000a2"
)

func fixedData() data {
	return data{
		shares: []*pb.Share{docsShare(), mediaShare()},
		snapshots: []*pb.Snapshot{{
			Id: beforeID, Share: docsID, ShareName: "docs", Project: "default", Name: "before", Description: "before\nthe move",
			Size: 1 << 30, Status: "available", Metadata: map[string]string{"by": "ann"}, CreatedAt: ago(90 * time.Minute),
			Locations: []*pb.ExportLocation{{Url: "https://10.0.0.1:7452/snapshots/" + beforeID + "/", Preferred: true, ReadOnly: true}},
		}},
		rules: []*pb.AccessRule{
			{Id: lanID, Kind: "ip", Who: "10.0.0.0/8", Level: "ro", State: "active", CreatedAt: ago(3 * time.Hour)},
			{Id: aliceID, Kind: "user", Who: "alice", Level: "rw", State: "active", CreatedAt: ago(10 * time.Second)},
		},
		nodes: []*pb.Node{
			{
				Id: n1ID, Name: "n1", Address: "10.0.0.1:7450", HttpAddress: "10.0.0.1:7452", Zone: "a", State: "up", RaftRole: "leader",
				Replicas: 2, CommandVersion: 1, JoinedAt: ago(400 * 24 * time.Hour), Labels: map[string]string{"rack": "r1", "disk": "ssd"},
			},
			{
				Id: n2ID, Name: "n2", Address: "10.0.0.2:7450", HttpAddress: "10.0.0.2:7452", Zone: "b", State: "down", Draining: true,
				RaftRole: "voter", CommandVersion: 1, JoinedAt: ago(5 * 24 * time.Hour),
			},
		},
		pools: []*pb.Pool{
			{
				Name: "n1/data", Node: "n1", Driver: "dir", Capabilities: []string{"snapshot", "revert", "clone"}, Protocols: []string{"webdav"},
				Total: 100 << 30, Free: 73<<30 + 1, Provisioned: 3 << 30, Provisionable: 180 << 30, ReservedPercent: 10, Notes: []string{"sizes are enforced by the exporter"},
				OverSubscriptionPercent: 200, Replicas: 2,
			},
			{
				Name: "n2/data", Node: "n2", Driver: "dir", Total: 100 << 30, Free: -1, Provisionable: 100 << 30,
				OverSubscriptionPercent: 100, Frozen: true,
				Fault: &pb.Fault{Code: "node_down", Message: "node n2 holds no lease", At: ago(time.Minute)},
			},
		},
	}
}

func docsShare() *pb.Share {
	return &pb.Share{
		Id: docsID, Project: "default", Name: "docs", Description: "the team's documents", Format: "files", Protocol: "webdav", Type: "default",
		Size: 1 << 30, Status: "available", ManilaStatus: "available", Metadata: map[string]string{"owner": "ann", "site": "ber"},
		Locations: []*pb.ExportLocation{
			{Url: "https://10.0.0.9:7452/shares/" + docsID + "/"},
			{Url: "https://10.0.0.1:7452/shares/" + docsID + "/", Preferred: true},
		},
		Replicas:  []*pb.Replica{{Id: "r1", Node: "n1", Pool: "data", State: "active", Epoch: 1, Settled: true}},
		CreatedAt: ago(26 * time.Hour),
	}
}

func mediaShare() *pb.Share {
	unwell := &pb.Fault{Code: "no_space", Message: "pool n1/data is full:\n0 bytes are left", At: ago(time.Minute)}
	return &pb.Share{
		Id: mediaID, Project: "default", Name: "media", Format: "files", Protocol: "webdav", Type: "fast",
		Size: 1536 << 20, Status: "available", ManilaStatus: "extending_error", Fault: unwell,
		Task: &pb.Task{
			Id: taskID, Share: mediaID, Kind: "extend", State: "running", Size: 2 << 30, Fault: unwell, StartedAt: ago(3 * time.Minute),
		},
		Replicas:  []*pb.Replica{{Id: "r2", Node: "n1", Pool: "data", State: "active", Epoch: 1}},
		CreatedAt: ago(5 * time.Minute),
	}
}

// fixedJournal is three events of different resources.
func fixedJournal() []*pb.Event {
	var journal []*pb.Event
	for i, e := range []struct{ kind, resource, id, message string }{
		{"share.creating", "share/docs", docsID, "share docs (1GiB) is created in pool n1/data"},
		{"share.created", "share/docs", docsID, "share docs is available"},
		{"node.down", "node/n2", n2ID, "node n2 is down"},
	} {
		journal = append(journal, &pb.Event{
			Seq: uint64(i + 1), Index: uint64(10 * (i + 1)), At: ago(time.Duration(3-i) * time.Hour), Kind: e.kind, Project: "default",
			Resource: e.resource, Id: e.id, Message: e.message,
		})
	}
	return journal
}

// then says what happens next, one step at each look.
func (l *lab) then(steps ...func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coming = append(l.coming, steps...)
}

// step lets the next thing happen, and tells it as an event of the resource. The caller holds the lock.
func (l *lab) step(id string) {
	if len(l.coming) == 0 || l.stuck {
		return
	}
	l.coming[0]()
	l.coming = l.coming[1:]
	l.tell(id, "changed")
}

func (l *lab) tell(id, message string) {
	seq := uint64(len(l.journal) + 1)
	l.journal = append(l.journal, &pb.Event{
		Seq: seq, Index: 10 * seq, At: ago(0), Kind: "test.event", Project: "default", Resource: "share/docs", Id: id, Message: fmt.Sprintf("%s %d", message, seq),
	})
	l.changed.Broadcast()
}
