package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// TestForwarding: a change that reaches a follower is made by the leader, in the name of the user and with that user's rights.
func TestForwarding(t *testing.T) {
	c := newCluster(t, 2)
	ctx := t.Context()
	admin, ann := c.admin("n2"), c.user("ann", cairn.UserMember, "p", "n2")
	answer, err := ann.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "a", Size: gib})
	if err != nil || answer.GetShare().GetProject() != "p" {
		t.Fatal(answer, err)
	}
	if _, err := ann.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "b", Size: gib, Project: "default"}); !errors.Is(err, cairn.ErrDenied) {
		t.Errorf("beyond her project: %v", err)
	}
	if _, err := admin.Shares().DeleteShare(ctx, &pb.DeleteShareRequest{Share: "none"}); !errors.Is(err, cairn.ErrNotFound) || !strings.Contains(err.Error(), "none") {
		t.Errorf("the leader's refusal arrives as %v", err)
	}
	pools, err := admin.Pools().ListPools(ctx, &pb.ListPoolsRequest{})
	if err != nil || len(pools.GetPools()) != 2 || pools.GetPools()[0].GetFree() != 90*gib {
		t.Errorf("pools: %v, %v", pools, err)
	}
}

// TestForwardingHappensOnce: two nodes that take each other for the leader do not send a request to and fro.
func TestForwardingHappensOnce(t *testing.T) {
	c := newCluster(t, 2)
	no := func() bool { return false }
	c.node("n1").leads, c.node("n2").leads = no, no
	conn := c.raw(c.ca.issue(t, "user", "admin", serialOf("admin")), "n2")
	_, err := pb.NewPoolServiceClient(conn).FreezePool(t.Context(), &pb.FreezePoolRequest{Pool: "n1/data"})
	if err == nil || !strings.Contains(err.Error(), "not the leader any more") {
		t.Errorf("got %v", err)
	}
}

// TestNoQuorum: without one, writes fail at once and say so, reads say how to go on, and stale reads, status and why still answer.
func TestNoQuorum(t *testing.T) {
	c := newCluster(t, 2)
	api := c.admin("n2")
	c.share(api, "a", gib)
	c.mu.Lock()
	c.leader = ""
	c.mu.Unlock()
	c.fail(fmt.Errorf("no leader: %w", cairn.ErrUnavailable))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "b", Size: gib})
	if !errors.Is(err, cairn.ErrUnavailable) || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("write: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := api.Shares().GetShare(ctx, &pb.GetShareRequest{Share: "a"}); !errors.Is(err, cairn.ErrUnavailable) || !strings.Contains(err.Error(), "--stale") {
		t.Errorf("read: %v", err)
	}
	ctx = t.Context()
	if got, err := api.Shares().GetShare(ctx, &pb.GetShareRequest{Share: "a", Read: &pb.Read{Stale: true}}); err != nil || got.GetShare().GetName() != "a" {
		t.Errorf("stale read: %v, %v", got, err)
	}
	if got, err := api.Pools().ListPools(ctx, &pb.ListPoolsRequest{Read: &pb.Read{Stale: true}}); err != nil || len(got.GetPools()) != 2 {
		t.Errorf("stale pools: %v, %v", got, err)
	}
	status, err := api.Cluster().GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
	if err != nil || status.GetLeader() != "" || status.GetAnsweredBy() != "n2" || len(status.GetMembers()) != 2 {
		t.Errorf("status: %v, %v", status, err)
	}
	why, err := api.Cluster().Why(ctx, &pb.WhyRequest{Resource: "share/a"})
	if err != nil || !strings.Contains(why.GetLines()[len(why.GetLines())-1].GetText(), "may be old") {
		t.Errorf("why: %v, %v", why, err)
	}
	health := healthpb.NewHealthClient(c.raw(c.node("n1").cert, "n1"))
	if got, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: %v, %v", got, err)
	}
}

// TestUnknownOutcome: what may have been committed is never reported as unchanged, also if later attempts find no leader.
func TestUnknownOutcome(t *testing.T) {
	c := newCluster(t, 1)
	api := c.admin()
	c.fail(fmt.Errorf("leadership lost: %w", cairn.ErrUnknownOutcome), fmt.Errorf("no leader: %w", cairn.ErrUnavailable))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "a", Size: gib})
	if !errors.Is(err, cairn.ErrUnknownOutcome) || errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("got %v, want an open outcome", err)
	}
}

// TestLeaderComesBack: a client sits out a change of leader, with one token for all attempts.
func TestLeaderComesBack(t *testing.T) {
	c := newCluster(t, 2)
	api := c.admin("n1", "n2")
	election := fmt.Errorf("election: %w", cairn.ErrUnavailable)
	c.fail(election, election, election, nil)
	answer, err := api.Shares().CreateShare(t.Context(), &pb.CreateShareRequest{Name: "a", Size: gib})
	if err != nil || answer.GetExisted() {
		t.Errorf("got %v, %v", answer, err)
	}
}
