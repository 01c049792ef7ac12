package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func TestPanicEndsOneCall(t *testing.T) {
	c := newCluster(t, 1)
	c.node("n1").server.cfg.PoolFree = func(cairn.PoolID) int64 { panic("a bug") }
	api := c.admin()
	_, err := api.Pools().ListPools(t.Context(), &pb.ListPoolsRequest{})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "a bug") {
		t.Errorf("got %v, want an internal error without details", err)
	}
	if line := c.awaitLog("panicked"); !strings.Contains(line, "a bug") || !strings.Contains(line, "interceptors_test.go") {
		t.Errorf("the log has no stack: %s", line)
	}
	if _, err := api.Types().ListTypes(t.Context(), &pb.ListTypesRequest{}); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
}

func TestFailedAndSlowCallsAreLogged(t *testing.T) {
	c := newCluster(t, 1)
	api := c.admin()
	api.Shares().GetShare(t.Context(), &pb.GetShareRequest{Share: "nothing"})
	if line := c.awaitLog("nothing"); !strings.Contains(line, "level=INFO") || !strings.Contains(line, "user/admin") || !strings.Contains(line, "GetShare") {
		t.Errorf("a failed call: %s", line)
	}
	c.node("n1").server.limits.slowCall = 0
	api.Types().ListTypes(t.Context(), &pb.ListTypesRequest{})
	if line := c.awaitLog("slow"); !strings.Contains(line, "ListTypes") {
		t.Errorf("a slow call: %s", line)
	}
}

// TestEveryCallHasADeadline: a handler that waits for a cluster which does not answer ends, also if the caller would wait for ever.
func TestEveryCallHasADeadline(t *testing.T) {
	s := New(Config{})
	s.limits.request = time.Millisecond
	_, err := s.deadline(context.Background(), nil, nil, func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	want, _ := ctx.Deadline()
	s.deadline(ctx, nil, nil, func(ctx context.Context, _ any) (any, error) {
		if got, _ := ctx.Deadline(); !got.Equal(want) {
			t.Errorf("the caller's deadline %v became %v", want, got)
		}
		return nil, nil
	})
}

func TestHealth(t *testing.T) {
	c := newCluster(t, 1)
	health := healthpb.NewHealthClient(c.raw(c.node("n1").cert, "n1"))
	stream, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := stream.Recv(); err != nil || got.GetStatus() != want {
			t.Errorf("watch: %v, %v; want %v", got, err, want)
		}
		if got, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || got.GetStatus() != want {
			t.Errorf("check: %v, %v; want %v", got, err, want)
		}
	}
	expect(healthpb.HealthCheckResponse_SERVING)
	c.mu.Lock()
	c.leader = ""
	c.mu.Unlock()
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
}

// TestPages: every share is listed once and in order, also when others come and go in between.
func TestPages(t *testing.T) {
	c := newCluster(t, 1)
	api := c.admin()
	const shares = 25
	for i := range shares {
		c.must(&fsm.CreateShare{
			Share: cairn.Share{ID: cairn.ShareID(newID7(500 + i)), Project: cairn.ProjectID(fmt.Sprintf("p%d", i%3)), Name: fmt.Sprintf("s%d", i),
				Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "default", Size: 1},
			Replicas: []fsm.Placement{{ID: cairn.ReplicaID(newID7(600 + i)), Pool: cairn.MakePoolID(c.node("n1").id, "data")}},
		})
	}
	seen := map[string]int{}
	last := ""
	for token, pages := "", 0; ; pages++ {
		list, err := api.Shares().ListShares(t.Context(), &pb.ListSharesRequest{Project: "*", PageSize: 7, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list.GetShares() {
			if key := s.GetProject() + "\x00" + s.GetName(); key > last {
				last = key
			} else {
				t.Errorf("%q comes after %q", key, last)
			}
			seen[s.GetId()]++
		}
		if pages == 1 { // a share that goes between two pages moves no other across the border
			c.must(&fsm.DeleteShare{ID: cairn.ShareID(list.GetShares()[6].GetId())})
			c.settleDeleted()
		}
		if token = list.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(seen) != shares {
		t.Errorf("%d of %d shares were listed", len(seen), shares)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("share %s was listed %d times", id, n)
		}
	}
}

// settleDeleted lets the nodes report what they have deleted.
func (c *testCluster) settleDeleted() {
	for r := range c.machine.View().Replicas() {
		if r.Want.Presence == cairn.Absent {
			c.must(&fsm.ReportReplica{Node: r.Node, Replica: r.ID, Generation: r.Generation, Epoch: r.Epoch, Have: cairn.ReplicaHave{Presence: cairn.Absent}})
		}
	}
}

func TestSpecsGoThereAndBack(t *testing.T) {
	asked := &pb.ShareType{Name: "t", Description: "d", Format: "files", Specs: map[string]string{
		"driver": "zfs", "replication_type": "dr", "failover": "auto", "snapshot_support": "<is> True", "create_share_from_snapshot_support": "true",
		"revert_to_snapshot_support": "1", "mount_snapshot_support": "false", "zfs:compression": "lz4",
	}}
	row, err := parseType(asked)
	if err != nil {
		t.Fatal(err)
	}
	if !row.Snapshots || !row.Clone || !row.Revert || row.MountSnapshots || row.Driver != "zfs" || row.Replication != cairn.ReplicationDR ||
		row.Failover != cairn.FailoverAuto || len(row.Specs) != 1 {
		t.Errorf("parsed as %+v", row)
	}
	again, err := parseType(typePB(&row))
	if err != nil || fmt.Sprint(again) != fmt.Sprint(row) {
		t.Errorf("rendered and parsed again: %+v, %v; want %+v", again, err, row)
	}
}

// TestEveryServiceIsRegistered catches a service that has a proto file and no code.
func TestEveryServiceIsRegistered(t *testing.T) {
	g := grpc.NewServer()
	New(Config{}).Register(g)
	if n := len(g.GetServiceInfo()); n != 12+1+2 {
		t.Errorf("%d services, want twelve of the API, health and two of reflection", n)
	}
}
