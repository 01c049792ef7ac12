// Package clustertest runs real nodes in one process, over real TLS on loopback and real stores in a temporary directory,
// for the tests of package cluster and of what stands on it.
//
// It waits for conditions and never for time. A node that is killed is cut from the network first, so it cannot say farewell.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/lease"
	"github.com/cairn-storage/cairn/fsm"
)

// patience is how long a condition may take on a machine that does much else.
const patience = 20 * time.Second

// Cluster is a set of nodes, some of which may be down.
type Cluster struct {
	Nodes []*Server
	// Timing is what nodes are started with; Configure, if set, may change more.
	Timing    cluster.Timing
	Configure func(index int, config *cluster.Config)

	t   *testing.T
	dir string
}

// Server is one node with the gRPC server that serves its peers. Node is nil while it is down.
type Server struct {
	*cluster.Node
	Name    string
	DataDir string
	Address string

	grpc   *grpc.Server
	served chan struct{}
}

// Patience is what clusters are made with. It changes nothing, since they have a Timing.
const Patience = 7

// Timing is short, and long enough for a busy machine with the race detector.
func Timing() cluster.Timing {
	timing := cluster.DefaultTiming()
	timing.Raft.Heartbeat = 200 * time.Millisecond
	timing.Raft.Commit = 10 * time.Millisecond
	timing.Lease = lease.Terms{TTL: time.Second, Margin: 250 * time.Millisecond}
	timing.Heartbeat = 50 * time.Millisecond
	timing.Stable, timing.Pilot = 100*time.Millisecond, 100*time.Millisecond
	return timing
}

// New prepares a cluster without nodes.
func New(t *testing.T) *Cluster { return &Cluster{Timing: Timing(), t: t, dir: t.TempDir()} }

// Start runs a cluster of n nodes and waits until all are members and the voters are chosen.
func Start(t *testing.T, n int) *Cluster {
	t.Helper()
	c := New(t)
	c.Grow(n)
	return c
}

// Grow founds the cluster if it is empty, lets nodes join until it has n, and waits until the voters are chosen.
func (c *Cluster) Grow(n int) {
	c.t.Helper()
	for len(c.Nodes) < n {
		c.add()
	}
	c.Settle()
}

// Settle waits until every node is a member, as many vote as should, and every node that is up knows it.
func (c *Cluster) Settle() {
	c.t.Helper()
	want := len(c.Nodes)
	c.WaitFor("all are members and the voters are chosen", func() bool {
		if c.FindLeader() == nil {
			return false
		}
		for _, s := range c.Nodes {
			if s.Node != nil && !s.settled(want) {
				return false
			}
		}
		return true
	})
}

// settled reports whether the node knows of so many members and their voters. What only the leader has in its log does not
// count: it may not be committed.
func (s *Server) settled(want int) bool {
	members, voters := 0, 0
	status := s.Status()
	for _, m := range status.Members {
		if m.InRaft && (m.Heard || status.Leader != status.Node) {
			members++
		}
		if m.Votes {
			voters++
		}
	}
	return members == want && voters == Voters(want)
}

// Voters is how many of n healthy nodes vote.
func Voters(n int) int {
	switch {
	case n >= 5:
		return 5
	case n > 2 && n%2 == 0:
		return n - 1
	}
	return n
}

func (c *Cluster) add() {
	c.t.Helper()
	index := len(c.Nodes)
	s := &Server{Name: fmt.Sprintf("n%d", index+1), DataDir: filepath.Join(c.dir, fmt.Sprintf("n%d", index+1))}
	if index == 0 {
		if _, err := cluster.Init(cluster.InitConfig{
			DataDir: s.DataDir, NodeName: s.Name, ClusterName: "test", Hosts: []string{"127.0.0.1"}, Patience: Patience,
		}); err != nil {
			c.t.Fatal(err)
		}
	} else if _, err := cluster.Join(c.t.Context(), cluster.JoinConfig{
		DataDir: s.DataDir, Token: c.Token(s.Name), Hosts: []string{"127.0.0.1"},
	}); err != nil {
		c.t.Fatal(err)
	}
	c.Nodes = append(c.Nodes, s)
	c.t.Cleanup(func() { c.Kill(index) })
	c.Open(index)
	c.Announce(index)
}

// Token makes a join token at the leader.
func (c *Cluster) Token(name string) string {
	c.t.Helper()
	var token string
	c.WaitFor("a join token", func() bool {
		text, _, err := c.Leader().CreateToken(c.t.Context(), Meta(), name, 0)
		if err != nil && !errors.Is(err, cairn.ErrUnavailable) {
			c.t.Fatal(err)
		}
		token = text
		return err == nil
	})
	return token
}

// Open starts a node that is down, at the address that it had, and does not announce it.
func (c *Cluster) Open(index int) {
	c.t.Helper()
	s := c.Nodes[index]
	address := s.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		c.t.Fatal(err)
	}
	s.Address = listener.Addr().String()
	config := cluster.Config{
		DataDir: s.DataDir, Listener: listener, Advertise: s.Address, Timing: c.Timing, Logger: c.logger(s.Name),
	}
	if c.Configure != nil {
		c.Configure(index, &config)
	}
	if s.Node, err = cluster.Open(c.t.Context(), config); err != nil {
		c.t.Fatal(err)
	}
	s.grpc, s.served = grpc.NewServer(grpc.Creds(s.ServerCredentials())), make(chan struct{})
	s.RegisterPeer(s.grpc)
	go func() {
		defer close(s.served)
		_ = s.grpc.Serve(s.APIListener()) // until it is stopped
	}()
}

// logger writes to the test's log what an operator would see.
func (c *Cluster) logger(name string) *slog.Logger {
	handler := slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})
	return slog.New(handler).With("on", name)
}

// Announce registers a node with one pool.
func (c *Cluster) Announce(index int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	s := c.Nodes[index]
	pool := cairn.Pool{
		ID: cairn.MakePoolID(s.Identity().Node, "p"), Node: s.Identity().Node, Name: "p", Driver: "dir", Total: 1 << 40,
		Protocols: []cairn.Protocol{cairn.ProtocolWebDAV}, OverSubscriptionPercent: 100,
	}
	if err := s.Node.Announce(ctx, cairn.Node{HTTPAddress: "127.0.0.1:1"}, []cairn.Pool{pool}); err != nil {
		c.t.Fatalf("announce %s: %v", s.Name, err)
	}
}

// Kill takes a node away as a crash would: its connections break first, and it tells nobody. Killing a dead node does nothing.
func (c *Cluster) Kill(index int) {
	c.t.Helper()
	s := c.Nodes[index]
	if s.Node == nil {
		return
	}
	s.grpc.Stop()
	<-s.served
	if err := s.Close(); err != nil {
		c.t.Logf("close %s: %v", s.Name, err)
	}
	s.Node = nil
}

// Restart starts a dead node again and lets it announce itself.
func (c *Cluster) Restart(index int) {
	c.t.Helper()
	c.Kill(index)
	c.Open(index)
	c.Announce(index)
}

// FindLeader returns the node that is the leader of a begun term now, or nil.
func (c *Cluster) FindLeader() *Server {
	for _, s := range c.Nodes {
		if s.Node != nil && s.IsLeader() {
			return s
		}
	}
	return nil
}

// Leader waits for a leader.
func (c *Cluster) Leader() *Server {
	c.t.Helper()
	var leader *Server
	c.WaitFor("a leader", func() bool { leader = c.FindLeader(); return leader != nil })
	return leader
}

// Index of a node.
func (c *Cluster) Index(s *Server) int {
	for i := range c.Nodes {
		if c.Nodes[i] == s {
			return i
		}
	}
	return -1
}

// WaitFor waits until the condition holds, and fails the test if that takes too long.
func (c *Cluster) WaitFor(what string, holds func() bool) {
	c.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-ticker.C {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %s: %s\n%s", patience, what, c.describe())
		}
	}
}

func (c *Cluster) describe() string {
	text := ""
	for _, s := range c.Nodes {
		if s.Node == nil {
			text += s.Name + ": down\n"
			continue
		}
		status := s.Status()
		text += fmt.Sprintf("%s: leads %v, leader %s, term %d, applied %d\n", s.Name, s.IsLeader(), status.Leader, status.Term, status.Applied)
		for _, m := range status.Members {
			text += fmt.Sprintf("  %s %s: votes %v, in raft %v, answers %v, heard %v, silent %s\n", m.Node.Name, m.Node.State, m.Votes, m.InRaft, m.Answers, m.Heard, m.Silent)
		}
	}
	return text
}

// Meta stamps a command of a test.
func Meta() fsm.Meta { return fsm.Meta{At: time.Now().UnixNano(), Actor: "user/test"} }

// Write commits a share type of that name through a node: the smallest command that leaves a row behind.
func Write(ctx context.Context, s *Server, name string) error {
	result, err := s.Apply(ctx, Meta(), &fsm.CreateType{Type: cairn.ShareType{Name: name, Format: cairn.FormatFiles}})
	if err == nil {
		err = result.Err
	}
	return err
}
