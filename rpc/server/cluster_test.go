package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/rpc/client"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

const gib = int64(1) << 30

// testCluster is a cluster without Raft: one real state machine, to which commands are applied directly, and a real gRPC
// server with real TLS for each node.
type testCluster struct {
	t       *testing.T
	ca      *authority
	machine *fsm.Machine

	mu      sync.Mutex
	index   uint64
	leader  cairn.NodeID
	broken  []error // what Apply and ReadView answer, one after the other; the last one stays
	logged  chan string
	at      time.Time // of commands; now if zero
	nodes   map[cairn.NodeID]*testNode
	removed []cairn.NodeID
}

// testNode is one node: what the server needs of a cluster.
type testNode struct {
	*testCluster
	id      cairn.NodeID
	leads   func() bool // overrides who leads, in the eyes of this node
	server  *Server
	address string
	cert    tls.Certificate
	actors  map[cairn.ReplicaID]live
	old     *fsm.View // the node's own copy, if it is behind
}

func newID7(n int) string { return fmt.Sprintf("01990000-0000-7000-8000-%012d", n) }

// newCluster starts a cluster with an administrator, and that many nodes n1, n2, … of which n1 leads; each has a pool "data".
func newCluster(t *testing.T, nodes int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, ca: newAuthority(t), machine: fsm.New(), nodes: map[cairn.NodeID]*testNode{}, broken: []error{nil}, logged: make(chan string, 1024)}
	c.must(&fsm.InitCluster{
		Cluster: cairn.Cluster{ID: cairn.ClusterID(newID7(1)), Name: "test", CAFingerprint: "00"},
		Admin:   cairn.User{Name: "admin", Role: cairn.UserAdmin, Serial: serialOf("admin"), ExpiresAt: time.Now().Add(day).UnixNano()},
	})
	for i := 1; i <= nodes; i++ {
		c.addNode(i)
	}
	c.leader = cairn.NodeID(newID7(101))
	return c
}

func (c *testCluster) addNode(i int) {
	c.t.Helper()
	id, name := cairn.NodeID(newID7(100+i)), fmt.Sprintf("n%d", i)
	if i > 1 {
		hash := make([]byte, sha256.Size)
		token := cairn.JoinToken{ID: cairn.TokenID(newID7(200 + i)), Node: id, Name: name, SecretHash: hash, ExpiresAt: time.Now().Add(day).UnixNano()}
		c.must(&fsm.CreateJoinToken{Token: token})
		c.must(&fsm.ConsumeJoinToken{ID: token.ID, SecretHash: hash, KeyHash: hash})
	}
	n := &testNode{testCluster: c, id: id, actors: map[cairn.ReplicaID]live{}}
	n.cert = c.ca.issue(c.t, "node", string(id), "ff")
	c.nodes[id] = n
	n.start()
	c.must(&fsm.RegisterNode{Node: cairn.Node{ID: id, Name: name, Address: n.address, Zone: "z" + name[1:], CommandVersion: fsm.CurrentVersion}})
	c.must(&fsm.RegisterPools{Node: id, Pools: []cairn.Pool{{
		ID: cairn.MakePoolID(id, "data"), Node: id, Name: "data", Driver: "dir", Total: 100 * gib, OverSubscriptionPercent: 100,
		Capabilities: []cairn.Capability{cairn.CapAdopt, cairn.CapClone, cairn.CapReplicate, cairn.CapResize, cairn.CapRevert, cairn.CapSnapshot, cairn.CapUsage},
		Protocols:    []cairn.Protocol{cairn.ProtocolWebDAV},
	}}})
}

// start serves the node's API on loopback.
func (n *testNode) start() {
	n.t.Helper()
	n.server = New(Config{
		Self: n.id, State: n, Leadership: n, Membership: n, Authority: n, PasswordKey: []byte("key of the cluster"), CA: n.ca.pem,
		Explain: func(_ context.Context, _ cairn.NodeID, r cairn.ReplicaID) (ActorStatus, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.actors[r].status, n.actors[r].err
		},
		PoolFree: func(cairn.PoolID) int64 { return 90 * gib },
		Logger:   slog.New(slog.NewTextHandler(n.testCluster, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.address = listener.Addr().String()
	g := grpc.NewServer(n.server.Options(credentials.NewTLS(n.ca.serverTLS(n.cert)))...)
	n.server.Register(g)
	go func() {
		if err := g.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			panic(err)
		}
	}()
	n.t.Cleanup(g.Stop)
}

func (c *testCluster) node(name string) *testNode {
	return c.nodes[c.machine.View().NodeByName(name).ID]
}

// apply is the log: one entry after the other. It returns what the last command of the entry came to, or the first that was
// refused.
func (c *testCluster) apply(meta fsm.Meta, commands ...fsm.Command) fsm.Result {
	var encoded [][]byte
	for _, cmd := range commands {
		data, err := fsm.Encode(meta, cmd)
		if err != nil {
			return fsm.Result{Err: err}
		}
		encoded = append(encoded, data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	if len(encoded) == 1 {
		return c.machine.Apply(c.index, encoded[0])
	}
	result := c.machine.Apply(c.index, fsm.Bundle(encoded))
	for _, result = range result.Bundle {
		if result.Err != nil {
			break
		}
	}
	return result
}

// must applies commands, as one entry, of which none may be refused.
func (c *testCluster) must(commands ...fsm.Command) fsm.Result {
	c.t.Helper()
	at := c.at
	if at.IsZero() {
		at = time.Now()
	}
	result := c.apply(fsm.Meta{At: at.UnixNano(), Actor: "cluster"}, commands...)
	if result.Err != nil {
		c.t.Fatalf("%T: %v", commands[0], result.Err)
	}
	return result
}

// fail lets Apply and ReadView fail with these errors, one after the other; the last one stays.
func (c *testCluster) fail(errs ...error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = errs
}

func (c *testCluster) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.broken[0]
	if len(c.broken) > 1 {
		c.broken = c.broken[1:]
	}
	return err
}

// Write is the log of all nodes; what nobody reads is lost.
func (c *testCluster) Write(line []byte) (int, error) {
	select {
	case c.logged <- string(line):
	default:
	}
	return len(line), nil
}

// awaitLog waits for a log line with the text.
func (c *testCluster) awaitLog(text string) string {
	c.t.Helper()
	for {
		select {
		case line := <-c.logged:
			if strings.Contains(line, text) {
				return line
			}
		case <-time.After(10 * time.Second):
			c.t.Fatalf("nothing was logged with %q", text)
		}
	}
}

// Apply is of State.
func (n *testNode) Apply(_ context.Context, meta fsm.Meta, cmd fsm.Command) (fsm.Result, error) {
	if err := n.failure(); err != nil {
		return fsm.Result{}, err
	}
	return n.apply(meta, cmd), nil
}

// ReadView is of State.
func (n *testNode) ReadView(context.Context) (*fsm.View, error) { return n.machine.View(), n.failure() }

// View is of State.
func (n *testNode) View() *fsm.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.old != nil {
		return n.old
	}
	return n.machine.View()
}

// Machine is of State.
func (n *testNode) Machine() *fsm.Machine { return n.machine }

// Leader is of Leadership.
func (n *testNode) Leader() (cairn.NodeID, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if leader := n.nodes[n.leader]; leader != nil {
		return n.leader, leader.address
	}
	return "", ""
}

// AwaitLeader is of Leadership.
func (n *testNode) AwaitLeader(context.Context) (cairn.NodeID, string, error) {
	leader, address := n.Leader()
	if leader == "" {
		return "", "", fmt.Errorf("cluster: has no leader: %w", cairn.ErrUnavailable)
	}
	return leader, address, nil
}

// IsLeader is of Leadership.
func (n *testNode) IsLeader() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leads != nil {
		return n.leads()
	}
	return n.leader == n.id
}

// Conn is of Leadership.
func (n *testNode) Conn(_ context.Context, id cairn.NodeID) (*grpc.ClientConn, error) {
	n.mu.Lock()
	address := n.nodes[id].address
	n.mu.Unlock()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(n.ca.clientTLS(n.cert))))
	if err == nil {
		n.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// TransferLeadership is of Leadership.
func (n *testNode) TransferLeadership(_ context.Context, to cairn.NodeID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if to != "" {
		n.leader = to
	}
	return nil
}

// Status is of Membership.
func (n *testNode) Status() Status {
	leader, _ := n.Leader()
	n.mu.Lock()
	defer n.mu.Unlock()
	status := Status{Leader: leader, Term: 7}
	for id, other := range n.nodes {
		if !slices.Contains(n.removed, id) {
			status.Members = append(status.Members, Member{Node: id, Address: other.address, Voter: true, LastIndex: n.index})
		}
	}
	return status
}

// RemoveMember is of Membership.
func (n *testNode) RemoveMember(ctx context.Context, meta fsm.Meta, id cairn.NodeID, force bool) error {
	result, err := n.Apply(ctx, meta, &fsm.RemoveNode{Node: id, Force: force})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = append(n.removed, id)
	return result.Err
}

// IssueUser is of Authority.
func (n *testNode) IssueUser(ctx context.Context, meta fsm.Meta, name string, role cairn.UserRole, project cairn.ProjectID, csrDER []byte, ttl time.Duration) ([]byte, error) {
	user := cairn.User{Name: name, Role: role, Project: project, Serial: serialOf(name + meta.Token), ExpiresAt: time.Now().Add(ttl).UnixNano()}
	result, err := n.Apply(ctx, meta, &fsm.CreateUser{User: user})
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, err
	}
	return n.ca.sign(n.t, csr.PublicKey, "user", name, user.Serial), result.Err
}

// CreateToken is of Authority.
func (n *testNode) CreateToken(ctx context.Context, meta fsm.Meta, name string, ttl time.Duration) (string, cairn.NodeID, error) {
	secret := hmac.New(sha256.New, []byte(meta.Token)).Sum(nil)
	token := cairn.JoinToken{ID: cairn.TokenID(newID()), Node: cairn.NodeID(newID()), Name: name, SecretHash: secret, ExpiresAt: time.Now().Add(ttl).UnixNano()}
	result, err := n.Apply(ctx, meta, &fsm.CreateJoinToken{Token: token})
	if err != nil {
		return "", "", err
	}
	if result.Err != nil {
		return "", "", result.Err
	}
	row := n.machine.View().Token(cairn.TokenID(result.ID))
	return "token of " + name, row.Node, nil
}

// settle lets every node do what is wanted of its replicas, and report it.
func (c *testCluster) settle() {
	c.t.Helper()
	for range 8 {
		v, idle := c.machine.View(), true
		for r := range v.Replicas() {
			if r.Settled() {
				continue
			}
			idle = false
			report := &fsm.ReportReplica{Node: r.Node, Replica: r.ID, Generation: r.Generation, Epoch: r.Epoch,
				Have: cairn.ReplicaHave{Presence: r.Want.Presence, Size: r.Want.Size, Locations: []cairn.ExportLocation{{URL: "https://n/" + string(r.Share), Preferred: true}}}}
			for i := range v.InstancesOn(r.ID) {
				report.Snapshots = append(report.Snapshots, fsm.SnapshotHave{Snapshot: i.Snapshot, Have: i.Want})
			}
			c.must(report)
		}
		if idle {
			return
		}
	}
	c.t.Fatal("the replicas do not settle")
}

// user makes a user and returns a client for it over the nodes, n1 if none is named.
func (c *testCluster) user(name string, role cairn.UserRole, project cairn.ProjectID, nodes ...string) *client.Client {
	c.t.Helper()
	if name != "admin" {
		c.must(&fsm.CreateUser{User: cairn.User{Name: name, Role: role, Project: project, Serial: serialOf(name), ExpiresAt: time.Now().Add(day).UnixNano()}})
	}
	return c.dial(c.ca.issue(c.t, "user", name, serialOf(name)), nodes...)
}

// admin returns a client for the administrator.
func (c *testCluster) admin(nodes ...string) *client.Client {
	return c.user("admin", cairn.UserAdmin, "", nodes...)
}

func (c *testCluster) dial(cert tls.Certificate, nodes ...string) *client.Client {
	c.t.Helper()
	if len(nodes) == 0 {
		nodes = []string{"n1"}
	}
	cfg := client.Config{CA: c.ca.pem, Certificate: certPEM(cert), Key: keyPEM(c.t, cert)}
	for _, name := range nodes {
		cfg.Addresses = append(cfg.Addresses, c.node(name).address)
	}
	api, err := client.Dial(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { api.Close() })
	return api
}

// share makes a share that is available.
func (c *testCluster) share(api *client.Client, name string, size int64) *pb.Share {
	c.t.Helper()
	answer, err := api.Shares().CreateShare(c.t.Context(), &pb.CreateShareRequest{Name: name, Size: size})
	if err != nil {
		c.t.Fatal(err)
	}
	c.settle()
	return answer.GetShare()
}

func (c *testCluster) snapshot(api *client.Client, share, name string) *pb.Snapshot {
	c.t.Helper()
	answer, err := api.Snapshots().CreateSnapshot(c.t.Context(), &pb.CreateSnapshotRequest{Share: share, Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	c.settle()
	return answer.GetSnapshot()
}
