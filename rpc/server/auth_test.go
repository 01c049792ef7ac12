package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/rpc/errs"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// served returns every method that a server with the whole API serves.
func served(t *testing.T) []string {
	t.Helper()
	g := grpc.NewServer()
	New(Config{}).Register(g)
	var all []string
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			all = append(all, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(all)
	return all
}

func describe(t *testing.T, method string) protoreflect.MethodDescriptor {
	t.Helper()
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(method[1:], "/", ".")))
	if err != nil {
		t.Fatal(err)
	}
	return found.(protoreflect.MethodDescriptor)
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return kind.New().Interface()
}

// TestMethodTableIsComplete holds the table against what is served, and its column "leader" against the requests: whatever
// carries a Mutation runs on the leader, and so do these few.
func TestMethodTableIsComplete(t *testing.T) {
	telemetry := []string{
		pb.ClusterService_ExplainPlacement_FullMethodName, pb.PoolService_ListPools_FullMethodName, pb.PoolService_GetPool_FullMethodName,
		pb.ReplicaService_ListReplicas_FullMethodName,
	}
	all := served(t)
	for _, method := range all {
		rule, known := methods[method]
		if !known {
			t.Errorf("%s is not in the table", method)
			continue
		}
		changes := describe(t, method).Input().Fields().ByName("mutation") != nil
		if want := changes || slices.Contains(telemetry, method); rule.leader != want {
			t.Errorf("%s: leader is %v, want %v", method, rule.leader, want)
		}
		if changes && rank[rule.least] <= rank[cairn.UserReader] {
			t.Errorf("%s changes something and is open to readers", method)
		}
	}
	for method := range methods {
		if !slices.Contains(all, method) {
			t.Errorf("%s is in the table and not served", method)
		}
	}
}

// probe calls a method with an empty request and returns what becomes of it.
func probe(t *testing.T, conn *grpc.ClientConn, method string) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d := describe(t, method)
	req, answer := newMessage(t, d.Input()), newMessage(t, d.Output())
	if !d.IsStreamingServer() {
		return status.Code(conn.Invoke(ctx, method, req, answer))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: d.IsStreamingClient()}, method)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) { // io.EOF: RecvMsg has the status
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return status.Code(stream.RecvMsg(answer))
}

// TestAuthorisation calls every method in every role and compares who gets past authorisation with the golden table.
func TestAuthorisation(t *testing.T) {
	c := newCluster(t, 1)
	roles := []struct {
		name string
		user cairn.User
	}{
		{"admin", cairn.User{Name: "admin", Role: cairn.UserAdmin}},
		{"operator", cairn.User{Name: "op", Role: cairn.UserOperator}},
		{"reader", cairn.User{Name: "all", Role: cairn.UserReader}},
		{"member@p", cairn.User{Name: "ann", Role: cairn.UserMember, Project: "p"}},
		{"reader@p", cairn.User{Name: "bob", Role: cairn.UserReader, Project: "p"}},
	}
	conns := map[string]*grpc.ClientConn{"node": c.raw(c.node("n1").cert, "n1")}
	order := []string{}
	for _, role := range roles {
		order = append(order, role.name)
		if role.user.Name != "admin" {
			row := role.user
			row.Serial, row.ExpiresAt = serialOf(row.Name), time.Now().Add(day).UnixNano()
			c.must(&fsm.CreateUser{User: row})
		}
		conns[role.name] = c.raw(c.ca.issue(t, "user", role.user.Name, serialOf(role.user.Name)), "n1")
	}
	// An event that each of them may see, so that FollowEvents has something to say.
	for _, project := range []cairn.ProjectID{cairn.DefaultProject, "p"} {
		c.must(&fsm.SetQuota{Quota: cairn.Quota{Project: project}})
	}
	datadriven.RunTest(t, "testdata/authorisation", func(t *testing.T, _ *datadriven.TestData) string {
		var out strings.Builder
		for _, method := range served(t) {
			var may []string
			for _, role := range append(order, "node") {
				switch probe(t, conns[role], method) {
				case codes.PermissionDenied, codes.Unauthenticated:
				default:
					may = append(may, role)
				}
			}
			fmt.Fprintf(&out, "%-55s %s\n", strings.TrimPrefix(method, "/"), strings.Join(may, " "))
		}
		return out.String()
	})
}

// raw is a connection without Cairn's client, which sends exactly what it is told to.
func (c *testCluster) raw(cert tls.Certificate, node string, opts ...grpc.DialOption) *grpc.ClientConn {
	c.t.Helper()
	conn, err := grpc.NewClient(c.node(node).address, append(opts, grpc.WithTransportCredentials(credentials.NewTLS(c.ca.clientTLS(cert))))...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

// get calls a harmless method and returns its error as a client sees it.
func get(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := pb.NewTypeServiceClient(conn).ListTypes(ctx, &pb.ListTypesRequest{})
	return errs.FromStatus(err)
}

func TestAuthentication(t *testing.T) {
	c := newCluster(t, 1)
	c.must(&fsm.CreateUser{User: cairn.User{Name: "old", Role: cairn.UserReader, Serial: serialOf("old"), ExpiresAt: time.Now().Add(-time.Second).UnixNano()}})
	for name, test := range map[string]struct {
		cert tls.Certificate
		want error
		text string
	}{
		"known":          {c.ca.issue(t, "user", "admin", serialOf("admin")), nil, ""},
		"replaced":       {c.ca.issue(t, "user", "admin", "abc"), cairn.ErrUnauthenticated, "replaced by a newer one"},
		"never a user":   {c.ca.issue(t, "user", "eve", serialOf("eve")), cairn.ErrUnauthenticated, "not a user of this cluster"},
		"expired row":    {c.ca.issue(t, "user", "old", serialOf("old")), cairn.ErrUnauthenticated, "expired"},
		"node":           {c.node("n1").cert, cairn.ErrDenied, "in its own name"},
		"removed node":   {c.ca.issue(t, "node", newID7(999), "ff"), cairn.ErrUnauthenticated, "not a node of this cluster"},
		"neither":        {c.ca.issue(t, "printer", "lp0", "ff"), cairn.ErrUnauthenticated, "neither a user nor a node"},
		"name with path": {c.ca.issue(t, "user", "admin/x", serialOf("admin")), cairn.ErrUnauthenticated, "neither a user nor a node"},
	} {
		t.Run(name, func(t *testing.T) {
			err := get(t.Context(), c.raw(test.cert, "n1"))
			if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.text)
			}
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		if err := get(t.Context(), c.raw(tls.Certificate{}, "n1")); err == nil {
			t.Error("was let in")
		}
	})
	t.Run("other CA", func(t *testing.T) {
		if err := get(t.Context(), c.raw(newAuthority(t).issue(t, "user", "admin", serialOf("admin")), "n1")); err == nil {
			t.Error("was let in")
		}
	})
}

// TestRevocation: a deleted user is refused on a connection that is open, in a stream that runs, and a user whom this node does not
// know is never refused without asking the cluster.
func TestRevocation(t *testing.T) {
	c := newCluster(t, 1)
	bob := c.user("bob", cairn.UserReader, "")
	if _, err := bob.Types().ListTypes(t.Context(), &pb.ListTypesRequest{}); err != nil {
		t.Fatal(err)
	}
	stream, err := bob.Events().FollowEvents(t.Context(), &pb.FollowEventsRequest{Project: allProjects})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin().Users().DeleteUser(t.Context(), &pb.DeleteUserRequest{Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Types().ListTypes(t.Context(), &pb.ListTypesRequest{Read: &pb.Read{Stale: true}}); !errors.Is(err, cairn.ErrUnauthenticated) {
		t.Errorf("after the deletion: %v", err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, cairn.ErrUnauthenticated) {
		t.Errorf("the stream ended with %v", err)
	}
	c.fail(fmt.Errorf("no quorum: %w", cairn.ErrUnavailable))
	eve := c.raw(c.ca.issue(t, "user", "eve", serialOf("eve")), "n1")
	if err := get(t.Context(), eve); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("a user whom an old copy does not know: %v, want that it cannot be checked", err)
	}
}

// TestForwardedForIsForNodes: only a node may speak for a user, only for one that exists with that certificate, and only where a
// request belongs on the leader.
func TestForwardedForIsForNodes(t *testing.T) {
	c := newCluster(t, 1)
	c.user("ann", cairn.UserMember, "p")
	node, ann := c.raw(c.node("n1").cert, "n1"), c.raw(c.ca.issue(t, "user", "ann", serialOf("ann")), "n1")
	as := func(name, serial string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), forwardedFor, name, forwardedSerial, serial)
	}
	drain := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewPoolServiceClient(conn).FreezePool(ctx, &pb.FreezePoolRequest{Pool: "n1/data"})
		return errs.FromStatus(err)
	}
	for name, test := range map[string]struct {
		got, want error
	}{
		"node for the administrator": {drain(as("admin", serialOf("admin")), node), nil},
		"node for a member":          {drain(as("ann", serialOf("ann")), node), cairn.ErrDenied},
		"node with an old serial":    {drain(as("admin", "abc"), node), cairn.ErrUnauthenticated},
		"node for nobody":            {drain(as("eve", serialOf("eve")), node), cairn.ErrUnauthenticated},
		"node without a user":        {drain(t.Context(), node), cairn.ErrDenied},
		"node where it may not":      {get(as("admin", serialOf("admin")), node), cairn.ErrDenied},
		"user for the administrator": {drain(as("admin", serialOf("admin")), ann), cairn.ErrDenied},
	} {
		if !errors.Is(test.got, test.want) {
			t.Errorf("%s: %v, want %v", name, test.got, test.want)
		}
	}
}

// TestMembersSeeTheirProjectOnly: for somebody who is bound to a project, the things of others are not there.
func TestMembersSeeTheirProjectOnly(t *testing.T) {
	c := newCluster(t, 1)
	admin, ann := c.admin(), c.user("ann", cairn.UserMember, "p")
	foreign := c.share(admin, "backups", gib)
	snap := c.snapshot(admin, "backups", "s1")
	own := c.share(ann, "mine", gib)
	if own.GetProject() != "p" {
		t.Fatalf("a member's share is in project %s", own.GetProject())
	}
	ctx := t.Context()
	calls := map[string]func() error{
		"get by ID": func() error {
			_, err := ann.Shares().GetShare(ctx, &pb.GetShareRequest{Share: foreign.GetId()})
			return err
		},
		"get by name": func() error { _, err := ann.Shares().GetShare(ctx, &pb.GetShareRequest{Share: "backups"}); return err },
		"delete": func() error {
			_, err := ann.Shares().DeleteShare(ctx, &pb.DeleteShareRequest{Share: foreign.GetId()})
			return err
		},
		"snapshot": func() error {
			_, err := ann.Snapshots().GetSnapshot(ctx, &pb.GetSnapshotRequest{Snapshot: snap.GetId()})
			return err
		},
		"clone": func() error {
			_, err := ann.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "stolen", SourceSnapshot: snap.GetId()})
			return err
		},
		"access": func() error {
			_, err := ann.Access().ListAccess(ctx, &pb.ListAccessRequest{Target: &pb.AccessTarget{Share: foreign.GetId()}})
			return err
		},
		"why": func() error {
			_, err := ann.Cluster().Why(ctx, &pb.WhyRequest{Resource: "share/" + foreign.GetId()})
			return err
		},
		"task": func() error {
			_, err := ann.Tasks().GetTask(ctx, &pb.GetTaskRequest{Share: foreign.GetId()})
			return err
		},
		"replica": func() error {
			_, err := ann.Cluster().Why(ctx, &pb.WhyRequest{Resource: "replica/" + foreign.GetReplicas()[0].GetId()})
			return err
		},
	}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		if err := calls[name](); !errors.Is(err, cairn.ErrNotFound) {
			t.Errorf("%s: %v, want not found", name, err)
		}
	}
	for name, call := range map[string]func() error{
		"all projects": func() error { _, err := ann.Shares().ListShares(ctx, &pb.ListSharesRequest{Project: "*"}); return err },
		"other project": func() error {
			_, err := ann.Shares().ListShares(ctx, &pb.ListSharesRequest{Project: "default"})
			return err
		},
		"node": func() error { _, err := ann.Cluster().Why(ctx, &pb.WhyRequest{Resource: "node/n1"}); return err },
	} {
		if err := call(); !errors.Is(err, cairn.ErrDenied) {
			t.Errorf("%s: %v, want denied", name, err)
		}
	}
	list, err := ann.Shares().ListShares(ctx, &pb.ListSharesRequest{})
	if err != nil || len(list.GetShares()) != 1 || list.GetShares()[0].GetName() != "mine" {
		t.Errorf("list: %v, %v", list, err)
	}
	events, err := ann.Events().ListEvents(ctx, &pb.ListEventsRequest{Id: foreign.GetId()})
	if err != nil || len(events.GetEvents()) != 0 {
		t.Errorf("events of a foreign share: %v, %v", events, err)
	}
	if all, err := admin.Shares().ListShares(ctx, &pb.ListSharesRequest{Project: "*"}); err != nil || len(all.GetShares()) != 2 {
		t.Errorf("the administrator's list: %v, %v", all, err)
	}
}

func TestClaimIn(t *testing.T) {
	ca := newAuthority(t)
	serial := "00ab"
	cert := ca.issue(t, "user", "ann", serial)
	leaf, err := parseLeaf(cert)
	if err != nil {
		t.Fatal(err)
	}
	who, err := claimIn(leaf)
	if err != nil || who.user != "ann" || who.serial != "ab" {
		t.Errorf("claim %+v, %v", who, err)
	}
	leaf.URIs = append(leaf.URIs, leaf.URIs[0])
	if _, err := claimIn(leaf); !errors.Is(err, cairn.ErrUnauthenticated) {
		t.Errorf("two identities: %v", err)
	}
}
