package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// writeAnywhere writes at whoever leads, also while that changes.
func writeAnywhere(t *testing.T, c *clustertest.Cluster, name string) {
	t.Helper()
	c.WaitFor("a write", func() bool {
		err := clustertest.Write(t.Context(), c.Leader(), name)
		return err == nil || errors.Is(err, cairn.ErrExists)
	})
}

func mustRead(t *testing.T, c *clustertest.Cluster, s *clustertest.Server, name string) {
	t.Helper()
	c.WaitFor("a read at "+s.Name, func() bool {
		view, err := s.ReadView(t.Context())
		if errors.Is(err, cairn.ErrUnavailable) {
			return false // an election
		}
		if err != nil || view.Type(name) == nil {
			t.Fatalf("%s does not see %s: stale, or %v", s.Name, name, err)
		}
		return true
	})
}

func TestEveryNodeReadsWhatWasWritten(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	for i := range 20 {
		name := fmt.Sprintf("t%d", i)
		writeAnywhere(t, c, name)
		for _, s := range c.Nodes {
			mustRead(t, c, s, name)
		}
	}
	for _, s := range c.Nodes {
		if cl := s.View().Cluster(); cl == nil || cl.ID != s.Identity().Cluster.ID {
			t.Errorf("%s: cluster row %+v", s.Name, cl)
		}
	}
}

// TestLeaderDies: another one leads and writes, the dead one is committed as down, and as up again when it is back.
func TestLeaderDies(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	writeAnywhere(t, c, "before")
	old := c.Leader()
	id, index := old.Identity().Node, c.Index(old)
	c.Kill(index)
	writeAnywhere(t, c, "after")
	c.WaitFor("the dead node is committed as down", func() bool {
		return c.Leader().View().Node(id).State == cairn.NodeDown
	})
	c.Restart(index)
	mustRead(t, c, c.Nodes[index], "after")
	c.WaitFor("it is up and holds a lease", func() bool {
		return c.Leader().View().Node(id).State == cairn.NodeUp && c.Nodes[index].LeaseValid()
	})
}

func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t)
	c.Timing.Election = 500 * time.Millisecond
	c.Grow(3)
	writeAnywhere(t, c, "before")
	leader := c.Leader()
	for i, s := range c.Nodes {
		if s != leader {
			c.Kill(i)
		}
	}
	c.WaitFor("the leader steps down", func() bool { return !leader.IsLeader() })
	began := time.Now()
	err := clustertest.Write(t.Context(), leader, "lost")
	if !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("write: %v, want %v", err, cairn.ErrUnavailable)
	}
	if !strings.Contains(err.Error(), "of 3 voters seem to answer") {
		t.Errorf("the message does not say how many voters answer: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s to say so", took)
	}
	if _, err := leader.ReadView(t.Context()); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("read: %v, want %v", err, cairn.ErrUnavailable)
	}
	if leader.View().Type("before") == nil {
		t.Error("a stale read does not work without a quorum")
	}
}

// TestReadsDuringTransfers moves leadership around while writes go on. Whatever was acknowledged, every node must see at
// once.
func TestReadsDuringTransfers(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	for round := range 8 {
		name := fmt.Sprintf("t%d", round)
		leader := c.Leader()
		transferred := make(chan error, 1)
		go func() { transferred <- leader.TransferLeadership(t.Context(), "") }()
		writeAnywhere(t, c, name)
		for _, s := range c.Nodes {
			mustRead(t, c, s, name)
		}
		if err := <-transferred; err != nil && !errors.Is(err, cairn.ErrUnavailable) {
			t.Error(err)
		}
	}
}

func TestFiveVoteAndTwoStandBy(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 7)
	standby := make(map[cairn.NodeID]bool)
	for _, m := range c.Leader().Status().Members {
		if !m.Votes {
			standby[m.Node.ID] = true
		}
	}
	if len(standby) != 2 {
		t.Fatalf("%d nodes do not vote, want 2", len(standby))
	}
	victim := 0
	for i, s := range c.Nodes {
		if !s.IsLeader() && !standby[s.Identity().Node] {
			victim = i
		}
	}
	dead := c.Nodes[victim].Identity().Node
	c.Kill(victim)
	c.WaitFor("a standby votes in place of the dead voter", func() bool {
		voters, replaced := 0, false
		for _, m := range c.Leader().Status().Members {
			if m.Votes {
				voters++
				replaced = replaced || standby[m.Node.ID]
			}
			if m.Node.ID == dead && m.Votes {
				return false
			}
		}
		return voters == 5 && replaced
	})
	writeAnywhere(t, c, "after")
	for i, s := range c.Nodes {
		if i != victim {
			mustRead(t, c, s, "after")
		}
	}
}

// TestLongAbsence takes a node away until the others have truncated the log that it needs, and takes snapshots all the
// while; then everybody is restarted from snapshots.
func TestLongAbsence(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t)
	c.Timing.Raft.SnapshotEvery, c.Timing.Raft.SnapshotCheck, c.Timing.Raft.TrailingLogs = 20, 20*time.Millisecond, 5
	c.Grow(3)
	away := 0
	if c.Nodes[away].IsLeader() {
		away = 1
	}
	c.Kill(away)
	for i := range 100 {
		writeAnywhere(t, c, fmt.Sprintf("t%d", i))
	}
	c.Restart(away)
	mustRead(t, c, c.Nodes[away], "t0")
	mustRead(t, c, c.Nodes[away], "t99")
	for i := range c.Nodes {
		c.Kill(i)
	}
	for i := range c.Nodes {
		c.Open(i)
	}
	c.Settle()
	want := c.Leader()
	view, err := want.ReadView(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if view.Type("t0") == nil || view.Type("t99") == nil {
		t.Error("a restart lost what was committed")
	}
	c.WaitFor("all states are equal", func() bool {
		for _, s := range c.Nodes {
			if s.View().Index() != want.View().Index() || s.View().Digest() != want.View().Digest() {
				return false
			}
		}
		return true
	})
}

// TestMovedNode starts a node at another address: it is found there without anybody being told by hand.
func TestMovedNode(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	moved := 0
	if c.Nodes[moved].IsLeader() {
		moved = 1
	}
	old := c.Nodes[moved].Address
	c.Kill(moved)
	c.Nodes[moved].Address = ""
	c.Restart(moved)
	if c.Nodes[moved].Address == old {
		t.Fatal("the same port again")
	}
	writeAnywhere(t, c, "after")
	mustRead(t, c, c.Nodes[moved], "after")
	c.Settle()
}

func TestRemovedNodeStops(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	var victim *clustertest.Server
	for _, s := range c.Nodes {
		if s != leader {
			victim = s
		}
	}
	result, err := leader.RemoveMember(t.Context(), clustertest.Meta(), victim.Identity().Node, false)
	if err != nil || result.Err != nil {
		t.Fatal(err, result.Err)
	}
	for _, m := range leader.Status().Members {
		if m.Node.ID == victim.Identity().Node {
			t.Error("it is still a member")
		}
	}
	expectRemoved(t, victim)
	conn, err := victim.Conn(t.Context(), leader.Identity().Node)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peerv1.NewPeerServiceClient(conn).ReadIndex(t.Context(), &peerv1.ReadIndexRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("it is still answered: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := victim.Announce(ctx, cairn.Node{}, nil); !errors.Is(err, cairn.ErrDenied) {
		t.Errorf("it announced itself again: %v", err)
	}
	writeAnywhere(t, c, "after")
}

func expectRemoved(t *testing.T, s *clustertest.Server) {
	t.Helper()
	select {
	case err := <-s.Stopped():
		if !errors.Is(err, cairn.ErrDenied) || !strings.Contains(err.Error(), "was removed from cluster test") {
			t.Errorf("it stops because %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it does not stop")
	}
}

// TestRemovedWhileAway removes a node that is down. When it comes back it is told so.
func TestRemovedWhileAway(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	away := 0
	if c.Nodes[away].IsLeader() {
		away = 1
	}
	id := c.Nodes[away].Identity().Node
	c.Kill(away)
	if result, err := c.Leader().RemoveMember(t.Context(), clustertest.Meta(), id, false); err != nil || result.Err != nil {
		t.Fatal(err, result.Err)
	}
	c.Open(away)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.Nodes[away].Node.Announce(ctx, cairn.Node{}, nil); !errors.Is(err, cairn.ErrDenied) {
		t.Errorf("got %v, want %v", err, cairn.ErrDenied)
	}
}

// TestLeaderRemovesItself: a successor takes it out of Raft.
func TestLeaderRemovesItself(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	old := c.Leader()
	result, err := old.RemoveMember(t.Context(), clustertest.Meta(), old.Identity().Node, false)
	if err != nil || result.Err != nil {
		t.Fatal(err, result.Err)
	}
	expectRemoved(t, old)
	c.Kill(c.Index(old))
	c.WaitFor("the successor has taken it out", func() bool {
		leader := c.Leader()
		return len(leader.Status().Members) == 2 && clustertest.Write(t.Context(), leader, "after") == nil
	})
}

func TestNodesSpeakForThemselvesOnly(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	var follower *clustertest.Server
	for _, s := range c.Nodes {
		if s != leader {
			follower = s
		}
	}
	own, other := follower.Identity().Node, leader.Identity().Node
	meta := func(id cairn.NodeID) fsm.Meta {
		return fsm.Meta{At: time.Now().UnixNano(), Actor: "node/" + string(id)}
	}
	node := *follower.View().Node(own)
	impostor := *follower.View().Node(other)
	conn, err := follower.Conn(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	// Under load, other elections may come between.
	inOneTerm := func(do func()) {
		t.Helper()
		c.WaitFor("a whole call in one term of the leader", func() bool {
			for _, s := range c.Nodes {
				if s != leader && s.IsLeader() {
					_ = s.TransferLeadership(t.Context(), other)
				}
			}
			term := leader.Status().Term
			if !leader.IsLeader() {
				return false
			}
			do()
			return leader.IsLeader() && leader.Status().Term == term
		})
	}
	for _, test := range []struct {
		name    string
		meta    fsm.Meta
		command fsm.Command
		want    codes.Code
	}{
		{"its own row", meta(own), &fsm.RegisterNode{Node: node}, codes.OK},
		{"its own pools", meta(own), &fsm.RegisterPools{Node: own}, codes.OK},
		{"another's row", meta(own), &fsm.RegisterNode{Node: impostor}, codes.PermissionDenied},
		{"another's row in another's name", meta(other), &fsm.RegisterNode{Node: impostor}, codes.PermissionDenied},
		{"another's pools", meta(own), &fsm.RegisterPools{Node: other}, codes.PermissionDenied},
		{"another's report", meta(own), &fsm.ReportReplica{Node: other}, codes.PermissionDenied},
		{"another's reports", meta(own), &fsm.ReportReplicas{Node: other}, codes.PermissionDenied},
		{"an administrator's command", meta(own), &fsm.DeleteType{Name: "default"}, codes.PermissionDenied},
		{"in a user's name", fsm.Meta{At: 1, Actor: "user/admin"}, &fsm.RegisterPools{Node: own}, codes.PermissionDenied},
	} {
		t.Run(test.name, func(t *testing.T) {
			data, err := fsm.Encode(test.meta, test.command)
			if err != nil {
				t.Fatal(err)
			}
			var answer *peerv1.ApplyResponse
			inOneTerm(func() {
				answer, err = peerv1.NewPeerServiceClient(conn).Apply(t.Context(), &peerv1.ApplyRequest{Command: data})
			})
			if status.Code(err) != test.want || err == nil && (answer.GetRefused() != nil || answer.GetUndecided() != nil) {
				t.Errorf("got %v, %v, want %v", answer, err, test.want)
			}
		})
	}
	pools, err := fsm.Encode(meta(own), &fsm.RegisterPools{Node: own})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peerv1.NewPeerServiceClient(conn).Apply(t.Context(), &peerv1.ApplyRequest{Command: fsm.Bundle([][]byte{pools, pools})}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bundle: got %v, want %v", err, codes.InvalidArgument)
	}
	// The same through the front door: forwarded once, and what is not the node's own is not sent at all.
	var result fsm.Result
	inOneTerm(func() { result, err = follower.Apply(t.Context(), meta(own), &fsm.RegisterNode{Node: node}) })
	if err != nil || result.Err != nil {
		t.Error(err, result.Err)
	}
	inOneTerm(func() { _, err = follower.Apply(t.Context(), clustertest.Meta(), &fsm.DeleteType{Name: "default"}) })
	if !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, cairn.ErrUnavailable)
	}
}

func TestCheckpointsAreTaken(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t)
	c.Timing.Checkpoint = 50 * time.Millisecond
	c.Grow(3)
	writeAnywhere(t, c, "x")
	for _, s := range c.Nodes {
		c.WaitFor("a checkpoint on "+s.Name, func() bool { index, _ := s.Machine().LastCheckpoint(); return index > 0 })
		if at, diverged := s.Machine().Divergence(); diverged {
			t.Errorf("%s: diverged at %d", s.Name, at)
		}
	}
	// An idle cluster takes none: two in a row without a change between would go on for ever.
	leader := c.Leader()
	last, _ := leader.Machine().LastCheckpoint()
	c.WaitFor("the log is quiet", func() bool {
		now, _ := leader.Machine().LastCheckpoint()
		quiet := now == last && leader.View().Index() == now
		last = now
		return quiet
	})
}

func TestOpenRefusesAnEmptyDirectory(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Open(t.Context(), cluster.Config{DataDir: t.TempDir(), Listener: listener, Advertise: "127.0.0.1:1"}); !errors.Is(err, cairn.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// TestCertificateIsRenewed starts a node on a day when a third of its certificate's time is used.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	node := 0
	if c.Nodes[node].IsLeader() {
		node = 1
	}
	old := c.Nodes[node].Identity().Credential().Leaf.SerialNumber
	c.Kill(node)
	c.Configure = func(_ int, config *cluster.Config) {
		config.Now = func() time.Time { return time.Now().Add(130 * 24 * time.Hour) }
	}
	c.Open(node)
	c.WaitFor("a new certificate", func() bool {
		return c.Nodes[node].Identity().Credential().Leaf.SerialNumber.Cmp(old) != 0
	})
	c.Configure = nil
	c.Restart(node) // with what is on disk
	writeAnywhere(t, c, "after")
	mustRead(t, c, c.Nodes[node], "after")
}
