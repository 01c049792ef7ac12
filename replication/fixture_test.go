package replication

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/cluster/identity/identitytest"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// patience is how long a condition may take on a machine that does much else.
const patience = 20 * time.Second

// lab is three nodes with real certificates, and one state that all of them see. Share s1 has its active replica on n1, and
// standbys on n2 and n3; s2 has its active replica on n3, and a standby on n2. A fourth node has a certificate and is in no row.
type lab struct {
	t       testing.TB
	machine *fsm.Machine
	nodes   map[cairn.NodeID]*identity.Identity
}

func newLab(t testing.TB) *lab {
	t.Helper()
	founder := identitytest.Found(t)
	l := &lab{t: t, machine: fsm.New(), nodes: make(map[cairn.NodeID]*identity.Identity)}
	l.apply(&fsm.InitCluster{Cluster: founder.Cluster, Admin: cairn.User{Name: "admin", Role: cairn.UserAdmin}})
	l.apply(&fsm.CreateType{Type: cairn.ShareType{Name: "twin", Format: cairn.FormatFiles, Replication: cairn.ReplicationReadable, Snapshots: true, Clone: true}})
	for _, node := range []cairn.NodeID{"n1", "n2", "n3"} {
		l.nodes[node] = identitytest.Member(t, founder, node)
		l.register(node)
	}
	l.nodes["n4"] = identitytest.Member(t, founder, "n4")
	l.share("s1", "n1", "n2", "n3")
	l.share("s2", "n3", "n2")
	return l
}

// register makes a node's rows.
func (l *lab) register(node cairn.NodeID) {
	l.t.Helper()
	l.apply(&fsm.CreateJoinToken{Token: cairn.JoinToken{ID: cairn.TokenID(node), Node: node, Name: string(node), SecretHash: make([]byte, 32), ExpiresAt: 2}})
	l.apply(&fsm.ConsumeJoinToken{ID: cairn.TokenID(node), SecretHash: make([]byte, 32), KeyHash: make([]byte, 32)})
	l.apply(&fsm.RegisterNode{Node: cairn.Node{ID: node, Name: string(node), Address: string(node) + ":1", CommandVersion: fsm.CurrentVersion}})
	l.apply(&fsm.RegisterPools{Node: node, Pools: []cairn.Pool{{
		ID: cairn.MakePoolID(node, "p"), Node: node, Name: "p", Driver: "dir", Total: 1 << 50, OverSubscriptionPercent: 100,
		Capabilities: []cairn.Capability{cairn.CapClone, cairn.CapReplicate, cairn.CapResize, cairn.CapRevert, cairn.CapSnapshot},
		Protocols:    []cairn.Protocol{cairn.ProtocolWebDAV},
	}}})
}

func (l *lab) apply(command fsm.Command) {
	l.t.Helper()
	data, err := fsm.Encode(fsm.Meta{At: 1}, command)
	must(l.t, err)
	must(l.t, l.machine.Apply(l.machine.View().Index()+1, data).Err)
}

// share makes a share with replicas "<share>-<node>", the first one active.
func (l *lab) share(id cairn.ShareID, nodes ...cairn.NodeID) {
	l.t.Helper()
	command := &fsm.CreateShare{Share: cairn.Share{
		ID: id, Project: "p", Name: string(id), Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "twin", Size: 1 << 30,
	}}
	for _, node := range nodes {
		command.Replicas = append(command.Replicas, fsm.Placement{ID: replicaOf(id, node), Pool: cairn.MakePoolID(node, "p")})
	}
	l.apply(command)
}

// copies asks for shares from snapshot p1 of s3, which is on n1, each with replica "<share>-n2".
func (l *lab) copies(ids ...cairn.ShareID) {
	l.t.Helper()
	l.share("s3", "n1")
	l.report("s3-n1")
	l.apply(&fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: "p1", Share: "s3", Name: "p1"}})
	l.report("s3-n1", fsm.SnapshotHave{Snapshot: "p1", Have: cairn.Present})
	for _, id := range ids {
		l.apply(&fsm.CreateFromSnapshot{From: "s3-n1", Create: fsm.CreateFencedShare{Create: fsm.CreateShare{
			Share: cairn.Share{
				ID: id, Project: "p", Name: string(id), Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "twin", Size: 1 << 30, Source: "p1",
			},
			Replicas: []fsm.Placement{{ID: replicaOf(id, "n2"), Pool: cairn.MakePoolID("n2", "p")}},
		}}})
	}
}

// report says that a replica is as wanted.
func (l *lab) report(id cairn.ReplicaID, snapshots ...fsm.SnapshotHave) {
	l.t.Helper()
	r := l.machine.View().Replica(id)
	l.apply(&fsm.ReportReplica{
		Node: r.Node, Replica: id, Generation: r.Generation, Epoch: r.Epoch, Snapshots: snapshots,
		Have: cairn.ReplicaHave{Presence: cairn.Present, Size: r.Want.Size},
	})
}

func replicaOf(share cairn.ShareID, node cairn.NodeID) cairn.ReplicaID {
	return cairn.ReplicaID(fmt.Sprintf("%s-%s", share, node))
}

// host is a node that serves.
type host struct {
	*Server
	hints   Hints
	address string
	grpc    *grpc.Server
	dial    func(context.Context) (net.Conn, error)
}

// serve runs a node's server on loopback.
func (l *lab) serve(node cairn.NodeID, source Source) *host {
	l.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(l.t, err)
	return l.serveOn(listener, node, source, ServerConfig{})
}

// serveOn runs a node's server on a listener, with what config says besides.
func (l *lab) serveOn(listener net.Listener, node cairn.NodeID, source Source, config ServerConfig) *host {
	h := &host{address: listener.Addr().String(), grpc: grpc.NewServer(ServerOption(), l.serverCredentials(node))}
	h.dial = func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", h.address)
	}
	config.Self, config.Viewer, config.Source, config.Hints, config.Caller = node, l.machine, source, &h.hints, caller
	h.Server = NewServer(config)
	peerv1.RegisterReplicationServiceServer(h.grpc, h.Server)
	l.background(func() { _ = h.grpc.Serve(listener) }, func() {
		h.Close()
		h.grpc.Stop()
	})
	return h
}

func (l *lab) serverCredentials(node cairn.NodeID) grpc.ServerOption {
	return grpc.Creds(credentials.NewTLS(l.nodes[node].ServerConfig(tls.RequireAndVerifyClientCert, identity.ProtocolGRPC)))
}

// background runs serve until the test ends, which stop brings about.
func (l *lab) background(serve, stop func()) {
	ended := make(chan struct{})
	go func() { defer close(ended); serve() }()
	l.t.Cleanup(func() { stop(); <-ended })
}

// caller is what a node makes of a call's certificate.
func caller(ctx context.Context) (cairn.NodeID, error) {
	p, _ := peer.FromContext(ctx)
	subject, err := identity.PeerOf(p.AuthInfo.(credentials.TLSInfo).State)
	if err != nil {
		return "", err
	}
	return subject.Node()
}

// dialer connects a node to hosts.
func (l *lab) dialer(from cairn.NodeID, to map[cairn.NodeID]*host) Dial {
	connections := &Connections{Dial: func(node cairn.NodeID, options ...grpc.DialOption) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+string(node), append(options,
			grpc.WithTransportCredentials(credentials.NewTLS(l.nodes[from].ClientConfig(identity.ProtocolGRPC, node))),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return to[node].dial(ctx) }))...)
	}}
	l.t.Cleanup(func() { _ = connections.Close() })
	return connections.Conn
}

func (l *lab) client(from, to cairn.NodeID, h *host) *Client {
	return NewClient(l.dialer(from, map[cairn.NodeID]*host{to: h}), 0)
}

// source is a Source that a test makes up.
type source struct {
	offer  func(context.Context, replica.PullRequest) (replica.Offer, replica.SendFunc, error)
	states func([]cairn.ReplicaID) []replica.SyncState
	read   func(context.Context, cairn.ReplicaID, cairn.SnapshotID) (replica.Content, error)
}

func (s source) Offer(ctx context.Context, request replica.PullRequest) (replica.Offer, replica.SendFunc, error) {
	return s.offer(ctx, request)
}

func (s source) SyncStates(ids []cairn.ReplicaID) []replica.SyncState { return s.states(ids) }

func (s source) Content(ctx context.Context, id cairn.ReplicaID, snap cairn.SnapshotID) (replica.Content, error) {
	return s.read(ctx, id, snap)
}

// sending offers snapshot "snap", and sends it with the function.
func sending(send replica.SendFunc) source {
	return source{offer: func(context.Context, replica.PullRequest) (replica.Offer, replica.SendFunc, error) {
		return replica.Offer{Snapshot: "snap"}, send, nil
	}}
}

// sendingBytes sends data in writes of odd sizes.
func sendingBytes(data []byte) source {
	return sending(func(_ context.Context, w io.Writer) error {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 100_003)
			if _, err := w.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
}

// request is what standby s1 on n2 asks with.
func request() replica.PullRequest {
	return replica.PullRequest{Share: "s1", Standby: "s1-n2", Epoch: 1}
}

func noise(n int) []byte {
	data := make([]byte, n)
	random := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

// taken is what came out of a stream.
type taken struct {
	called bool
	data   []byte
	whole  bool // its reader said io.EOF
}

func (t *taken) take(_ replica.Offer, r io.Reader) (err error) {
	t.called = true
	t.data, err = io.ReadAll(r)
	t.whole = err == nil
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await fails the test if nothing comes from the channel.
func await[T any](t testing.TB, what string, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(patience):
		t.Fatalf("not within %s: %s", patience, what)
	}
	return value
}
