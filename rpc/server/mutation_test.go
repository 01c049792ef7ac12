package server

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/rpc/client"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func with(token string) *pb.Mutation { return &pb.Mutation{Token: token} }

// TestRepeatedRequestsGetTheFirstAnswer sends requests again after what they named is gone, renamed or used up, as a client does that
// has lost the first answer.
func TestRepeatedRequestsGetTheFirstAnswer(t *testing.T) {
	c := newCluster(t, 1)
	api, ctx := c.admin(), t.Context()

	req := &pb.CreateShareRequest{Mutation: with("create"), Name: "a", Size: 80 * gib}
	first, err := api.Shares().CreateShare(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	c.settle()
	again, err := api.Shares().CreateShare(ctx, req) // by now no pool has room for it
	if err != nil || again.GetShare().GetId() != first.GetShare().GetId() || again.GetExisted() {
		t.Fatalf("create again: %v, %v", again, err)
	}
	other, err := api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "a", Size: 80 * gib})
	if err != nil || other.GetShare().GetId() != first.GetShare().GetId() || !other.GetExisted() {
		t.Fatalf("another request for the same share: %v, %v", other, err)
	}

	grow := &pb.ResizeShareRequest{Mutation: with("grow"), Share: "a", Size: 90 * gib}
	if _, err := api.Shares().ResizeShare(ctx, grow); err != nil {
		t.Fatal(err)
	}
	c.settle()
	if done, err := api.Shares().ResizeShare(ctx, grow); err != nil || done.GetShare().GetSize() != 90*gib {
		t.Fatalf("extend again: %v, %v", done, err)
	}

	target := &pb.AccessTarget{Share: "a"}
	rule, err := api.Access().AllowAccess(ctx, &pb.AllowAccessRequest{Target: target, Kind: "ip", Who: "10.0.0.7", Level: "rw"})
	if err != nil {
		t.Fatal(err)
	}
	deny := &pb.DenyAccessRequest{Mutation: with("deny"), Target: target, Kind: "ip", Who: "10.0.0.7"}
	for range 2 {
		if answer, err := api.Access().DenyAccess(ctx, deny); err != nil || answer.GetId() != rule.GetRule().GetId() {
			t.Fatalf("deny: %v, %v", answer, err)
		}
		c.settle()
	}

	name := "b"
	rename := &pb.UpdateShareRequest{Mutation: with("rename"), Share: "a", Name: &name}
	for range 2 {
		if answer, err := api.Shares().UpdateShare(ctx, rename); err != nil || answer.GetShare().GetName() != "b" {
			t.Fatalf("rename: %v, %v", answer, err)
		}
	}

	drop := &pb.DeleteShareRequest{Mutation: with("delete"), Share: "b"}
	for range 2 {
		if answer, err := api.Shares().DeleteShare(ctx, drop); err != nil || answer.GetId() != first.GetShare().GetId() {
			t.Fatalf("delete: %v, %v", answer, err)
		}
		c.settle()
	}
	if _, err := api.Shares().CreateShare(ctx, req); !errors.Is(err, cairn.ErrNotFound) {
		t.Errorf("create again after the deletion: %v, want that it is gone", err)
	}
	if n := len(c.shares()); n != 0 {
		t.Errorf("%d shares are left", n)
	}
	if _, err := api.Shares().DeleteShare(ctx, &pb.DeleteShareRequest{Mutation: with("create"), Share: "b"}); !errors.Is(err, cairn.ErrNotFound) {
		t.Errorf("another operation under a used token: %v", err)
	}
}

// TestOldCopyDecidesNothing: the leader's own copy of the state is behind. What it shows to be there may be gone, and sizes
// that it shows may be older than what was agreed on since.
func TestOldCopyDecidesNothing(t *testing.T) {
	c := newCluster(t, 1)
	api, ctx := c.admin(), t.Context()
	c.share(api, "a", gib)
	c.settle()
	node := c.node("n1")
	c.mu.Lock()
	node.old = c.machine.View()
	c.mu.Unlock()
	first := c.machine.View().ShareByName(cairn.DefaultProject, cairn.FormatFiles, "a")

	c.must(&fsm.SetSize{ID: first.ID, Kind: cairn.TaskExtend, Size: 3 * gib, Task: "t-1"})
	c.settle()
	_, err := api.Shares().ResizeShare(ctx, &pb.ResizeShareRequest{Share: "a", Size: 2 * gib})
	if !errors.Is(err, cairn.ErrInvalid) || !strings.Contains(err.Error(), "cannot be extended to 2GiB") {
		t.Errorf("extend to less than the share has by now: %v", err)
	}
	if size := c.machine.View().Replica(first.Active).Want.Size; size != 3*gib {
		t.Errorf("an extend made the share want %s", cairn.FormatSize(size))
	}

	c.must(&fsm.DeleteShare{ID: first.ID})
	c.settle()
	made, err := api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "a", Size: gib})
	if err != nil || made.GetExisted() || made.GetShare().GetId() == string(first.ID) {
		t.Errorf("create where a share of that name is gone: %v, %v", made, err)
	}
}

func (c *testCluster) shares() (names []string) {
	for s := range c.machine.View().Shares("") {
		names = append(names, s.Name)
	}
	return names
}

// TestPasswords: a password is shown once, to the request that made it and to its retries, on every node the same; what is stored
// matches it, and it is of no use for anything else.
func TestPasswords(t *testing.T) {
	c := newCluster(t, 2)
	ctx, on := t.Context(), &pb.AccessTarget{Share: "a"}
	n1, n2 := c.admin("n1"), c.admin("n2")
	share := c.share(n1, "a", gib)
	ask := func(api *client.Client, token, who string) *pb.AllowAccessResponse {
		t.Helper()
		answer, err := api.Access().AllowAccess(ctx, &pb.AllowAccessRequest{Mutation: with(token), Target: on, Kind: "user", Who: who, Level: "rw"})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	first := ask(n1, "t1", "ann")
	password := first.GetPassword().GetPassword()
	if len(password) != 32 || first.GetPassword().GetWho() != "ann" {
		t.Fatalf("password %q", password)
	}
	if again := ask(n2, "t1", "ann"); again.GetPassword().GetPassword() != password || again.GetRule().GetId() != first.GetRule().GetId() {
		t.Errorf("the retry got %v", again)
	}
	if later := ask(n1, "t2", "ann"); later.GetPassword() != nil || later.GetRule().GetId() != first.GetRule().GetId() {
		t.Errorf("another request saw %v", later)
	}
	if bob := ask(n1, "t3", "bob"); bob.GetPassword().GetPassword() == password {
		t.Error("two users have one password")
	}
	row := c.machine.View().Rule(cairn.RuleID(first.GetRule().GetId()))
	if !row.Secret.Matches(password) || row.Secret.Matches(strings.ToLower(password)) {
		t.Error("the stored secret is not that of the password")
	}

	set := &pb.SetAccessRequest{Mutation: with("t4"), Target: on, Rules: []*pb.AccessRule{
		{Kind: "user", Who: "ann", Level: "ro"}, {Kind: "user", Who: "eve", Level: "ro"}, {Kind: "ip", Who: "10.0.0.1/32", Level: "rw"},
	}}
	var shown []*pb.NewPassword
	for range 2 {
		answer, err := n2.Access().SetAccess(ctx, set)
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.GetPasswords()) != 1 || answer.GetPasswords()[0].GetWho() != "eve" || len(answer.GetRules()) != 4 {
			t.Fatalf("set: %v", answer)
		}
		shown = append(shown, answer.GetPasswords()...)
	}
	if shown[0].GetPassword() != shown[1].GetPassword() {
		t.Error("the retry showed another password")
	}
	c.settle()
	rules, err := n1.Access().ListAccess(ctx, &pb.ListAccessRequest{Target: &pb.AccessTarget{Share: share.GetId()}})
	if err != nil || len(rules.GetRules()) != 3 || rules.GetRules()[0].GetWho() != "10.0.0.1" {
		t.Errorf("rules: %v, %v", rules, err)
	}
	for _, token := range []string{"", ""} {
		n1.Access().DenyAccess(ctx, &pb.DenyAccessRequest{Target: on, Kind: "user", Who: "eve"})
		c.settle()
		shown = append(shown, ask(n1, token, "eve").GetPassword())
	}
	if shown[2].GetPassword() == shown[3].GetPassword() || shown[2] == nil {
		t.Error("without a token of its own, a new grant got the old password")
	}
}

// TestDryRun: what would be is shown, and nothing is.
func TestDryRun(t *testing.T) {
	c := newCluster(t, 2)
	api, ctx, dry := c.admin(), t.Context(), &pb.Mutation{DryRun: true}
	c.share(api, "a", gib)
	c.snapshot(api, "a", "s")
	before := c.machine.View().Digest()
	name := "b"
	calls := map[string]func() (proto.Message, error){
		`status:"creating"`: func() (proto.Message, error) {
			return api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Mutation: dry, Name: "new", Size: gib})
		},
		`manila_status:"manage_starting"`: func() (proto.Message, error) {
			return api.Shares().ManageShare(ctx, &pb.ManageShareRequest{Mutation: dry, Name: "new", Size: gib, Node: "n1", Pool: "data", Object: "x"})
		},
		`manila_status:"extending"`: func() (proto.Message, error) {
			return api.Shares().ResizeShare(ctx, &pb.ResizeShareRequest{Mutation: dry, Share: "a", Size: 2 * gib})
		},
		`manila_status:"reverting"`: func() (proto.Message, error) {
			return api.Shares().RevertShare(ctx, &pb.RevertShareRequest{Mutation: dry, Share: "a", Snapshot: "s"})
		},
		`name:"b"`: func() (proto.Message, error) {
			return api.Shares().UpdateShare(ctx, &pb.UpdateShareRequest{Mutation: dry, Share: "a", Name: &name, SetMetadata: map[string]string{"k": "v"}})
		},
		`name:"s2"`: func() (proto.Message, error) {
			return api.Snapshots().CreateSnapshot(ctx, &pb.CreateSnapshotRequest{Mutation: dry, Share: "a", Name: "s2"})
		},
		`id:`: func() (proto.Message, error) {
			return api.Snapshots().DeleteSnapshot(ctx, &pb.DeleteSnapshotRequest{Mutation: dry, Share: "a", Snapshot: "s"})
		},
		`who:"ann"`: func() (proto.Message, error) {
			return api.Access().AllowAccess(ctx, &pb.AllowAccessRequest{Mutation: dry, Target: &pb.AccessTarget{Share: "a"}, Kind: "user", Who: "ann", Level: "rw"})
		},
		`draining:true`: func() (proto.Message, error) {
			return api.Nodes().DrainNode(ctx, &pb.DrainNodeRequest{Mutation: dry, Node: "n1"})
		},
		`lost_shares:"default/a"`: func() (proto.Message, error) {
			return api.Nodes().RemoveNode(ctx, &pb.RemoveNodeRequest{Mutation: dry, Node: "n1", Force: true})
		},
		`frozen:true`: func() (proto.Message, error) {
			return api.Pools().FreezePool(ctx, &pb.FreezePoolRequest{Mutation: dry, Pool: "n1/data"})
		},
		`name:"gold"`: func() (proto.Message, error) {
			return api.Types().CreateType(ctx, &pb.CreateTypeRequest{Mutation: dry, Type: &pb.ShareType{Name: "gold"}})
		},
		`shares:5`: func() (proto.Message, error) {
			five := int64(5)
			return api.Quotas().SetQuota(ctx, &pb.SetQuotaRequest{Mutation: dry, Project: "p", Shares: &five})
		},
		`expires_at:`: func() (proto.Message, error) {
			return api.Nodes().CreateNodeToken(ctx, &pb.CreateNodeTokenRequest{Mutation: dry, Name: "n9"})
		},
		`role:"reader"`: func() (proto.Message, error) {
			_, csr, err := client.NewKeyAndCSR("u")
			if err != nil {
				return nil, err
			}
			return api.Users().CreateUser(ctx, &pb.CreateUserRequest{Mutation: dry, User: &pb.User{Name: "u", Role: "reader"}, Csr: csr})
		},
	}
	for want, call := range calls {
		answer, err := call()
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		// The text form puts one or two blanks between fields, at random, so that nobody depends on it.
		if text := strings.ReplaceAll(answer.ProtoReflect().Interface().(interface{ String() string }).String(), "  ", " "); !strings.Contains(text, want) {
			t.Errorf("want %s in %s", want, text)
		}
		if strings.Contains(answer.(interface{ String() string }).String(), "password") {
			t.Errorf("%s: a dry run shows a password", want)
		}
	}
	if now := c.machine.View().Digest(); now != before {
		t.Error("dry runs have changed the state")
	}
	if _, err := api.Shares().DeleteShare(ctx, &pb.DeleteShareRequest{Mutation: dry, Share: "a"}); !errors.Is(err, cairn.ErrInUse) {
		t.Errorf("a dry run is refused like the real thing: %v", err)
	}
}

func TestCreateFromSnapshot(t *testing.T) {
	c := newCluster(t, 3)
	api, ctx := c.admin(), t.Context()
	origin := c.share(api, "a", 2*gib)
	snap := c.snapshot(api, "a", "s")
	clone, err := api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "clone", SourceSnapshot: snap.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	got, where := clone.GetShare(), clone.GetShare().GetReplicas()[0]
	if got.GetSize() != 2*gib || got.GetSourceSnapshot() != snap.GetId() || where.GetNode() != origin.GetReplicas()[0].GetNode() {
		t.Errorf("clone: %v", got)
	}
	if _, err := api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "small", Size: gib, SourceSnapshot: snap.GetId()}); !errors.Is(err, cairn.ErrInvalid) ||
		!strings.Contains(err.Error(), "2GiB") {
		t.Errorf("smaller than the snapshot: %v", err)
	}
}

// TestCopyFromSnapshot: what no pool with the snapshot takes is sent to another one, and a repeated request finds its share however
// it would be placed by now.
func TestCopyFromSnapshot(t *testing.T) {
	c := newCluster(t, 3)
	api, ctx := c.admin(), t.Context()
	origin := c.share(api, "a", 2*gib).GetReplicas()[0]
	snap := c.snapshot(api, "a", "s")
	home := origin.GetNode() + "/" + origin.GetPool()
	create := func(name, token string) (*pb.CreateShareResponse, error) {
		return api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Mutation: &pb.Mutation{Token: token}, Name: name, SourceSnapshot: snap.GetId()})
	}
	if clone, err := create("clone", "t1"); err != nil || clone.GetShare().GetReplicas()[0].GetNode() != origin.GetNode() {
		t.Fatalf("clone: %v, %v", clone, err)
	}
	freeze := func(pool string, frozen bool) {
		t.Helper()
		if _, err := api.Pools().FreezePool(ctx, &pb.FreezePoolRequest{Pool: pool, Thaw: !frozen}); err != nil {
			t.Fatal(err)
		}
	}
	freeze(home, true)
	copied, err := create("copy", "t2")
	if err != nil {
		t.Fatal(err)
	}
	share := copied.GetShare()
	row := c.machine.View().Replica(cairn.ReplicaID(share.GetReplicas()[0].GetId()))
	if share.GetReplicas()[0].GetNode() == origin.GetNode() || share.GetStatus() != "creating" || string(row.Want.SourceReplica) != origin.GetId() {
		t.Errorf("copy: %v of %+v", share, row.Want)
	}
	if again, err := create("clone", "t1"); err != nil || again.GetShare().GetName() != "clone" {
		t.Errorf("the clone, repeated: %v, %v", again, err)
	}
	freeze(home, false)
	if again, err := create("copy", "t2"); err != nil || again.GetShare().GetId() != share.GetId() {
		t.Errorf("the copy, repeated: %v, %v", again, err)
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		freeze(node+"/data", true)
	}
	if _, err := create("nowhere", ""); !errors.Is(err, cairn.ErrCapacity) || !strings.Contains(err.Error(), home+": frozen") {
		t.Errorf("no pool takes it: %v", err)
	}
}

func TestUsersAndTokens(t *testing.T) {
	c := newCluster(t, 1)
	api, ctx := c.admin(), t.Context()
	key, csr, err := client.NewKeyAndCSR("ann")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := api.Users().CreateUser(ctx, &pb.CreateUserRequest{User: &pb.User{Name: "ann", Role: "member", Project: "p"}, Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(answer.GetCertificate()))
	if cert, err := x509.ParseCertificate(block.Bytes); err != nil || cert.URIs[0].String() != "cairn://user/ann" {
		t.Fatalf("certificate: %v, %v", cert, err)
	}
	ann, err := client.Dial(client.Config{
		Addresses: []string{c.node("n1").address}, CA: []byte(answer.GetCa()), Certificate: []byte(answer.GetCertificate()), Key: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ann.Close()
	if list, err := ann.Shares().ListShares(ctx, &pb.ListSharesRequest{}); err != nil || len(list.GetShares()) != 0 {
		t.Errorf("the new user: %v, %v", list, err)
	}
	first, err := api.Nodes().CreateNodeToken(ctx, &pb.CreateNodeTokenRequest{Mutation: with("t"), Name: "n2"})
	if err != nil || first.GetToken() == "" {
		t.Fatal(first, err)
	}
	again, err := api.Nodes().CreateNodeToken(ctx, &pb.CreateNodeTokenRequest{Mutation: with("t"), Name: "n2"})
	if err != nil || again.GetId() != first.GetId() || again.GetExpiresAt() != first.GetExpiresAt() {
		t.Errorf("again: %v, %v", again, err)
	}
	if _, err := api.Nodes().DeleteNodeToken(ctx, &pb.DeleteNodeTokenRequest{Id: first.GetId()}); err != nil {
		t.Error(err)
	}
	if list, err := api.Nodes().ListNodeTokens(ctx, &pb.ListNodeTokensRequest{}); err != nil || len(list.GetTokens()) != 0 {
		t.Errorf("tokens: %v, %v", list, err)
	}
}

func TestNodesLeave(t *testing.T) {
	c := newCluster(t, 3)
	api, ctx := c.admin(), t.Context()
	c.must(&fsm.DrainNode{Node: c.node("n1").id, Draining: true})
	c.must(&fsm.DrainNode{Node: c.node("n3").id, Draining: true})
	c.share(api, "a", gib)
	drained, err := api.Nodes().DrainNode(ctx, &pb.DrainNodeRequest{Node: "n2"})
	if err != nil || !drained.GetNode().GetDraining() || len(drained.GetShares()) != 1 || drained.GetShares()[0] != "default/a" {
		t.Errorf("drain: %v, %v", drained, err)
	}
	stop := func(node string) *pb.CheckNodeStopResponse {
		t.Helper()
		answer, err := api.Nodes().CheckNodeStop(ctx, &pb.CheckNodeStopRequest{Node: node})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if v := stop("n2"); v.GetOk() || len(v.GetReasons()) != 1 || !strings.Contains(v.GetReasons()[0], "default/a") {
		t.Errorf("stop n2: %v", v)
	}
	if v := stop("n3"); !v.GetOk() {
		t.Errorf("stop n3: %v", v)
	}
	c.must(&fsm.SetNodeState{Node: c.node("n2").id, State: cairn.NodeDown})
	if v := stop("n3"); v.GetOk() || !strings.Contains(v.GetReasons()[0], "1 of 3 voters") {
		t.Errorf("stop n3 while n2 is down: %v", v)
	}
	for range 2 { // the second is a retry
		gone, err := api.Nodes().RemoveNode(ctx, &pb.RemoveNodeRequest{Mutation: with("rm"), Node: "n2", Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if n := c.machine.View().NodeByName("n2"); n != nil || len(c.removed) == 0 {
			t.Errorf("n2 is still there; the answer was %v", gone)
		}
	}
	if names := c.shares(); len(names) != 0 {
		t.Errorf("shares %v should be lost", names)
	}
}

// TestLimitsAreIndependent: of two limits of a project that two clients change at the same time each is the last one that was set.
func TestLimitsAreIndependent(t *testing.T) {
	c := newCluster(t, 1)
	api, ctx := c.admin(), t.Context()
	const changes = 50
	var group sync.WaitGroup
	for _, set := range []func(n *int64) *pb.SetQuotaRequest{
		func(n *int64) *pb.SetQuotaRequest { return &pb.SetQuotaRequest{Project: "p", Shares: n} },
		func(n *int64) *pb.SetQuotaRequest { return &pb.SetQuotaRequest{Project: "p", Bytes: n} },
	} {
		group.Go(func() {
			for n := int64(1); n <= changes; n++ {
				answer, err := api.Quotas().SetQuota(ctx, set(&n))
				if err != nil {
					t.Error(err)
					return
				}
				if asked, limits := set(&n), answer.GetQuota().GetLimits(); asked.Shares != nil && limits.GetShares() != n || asked.Bytes != nil && limits.GetBytes() != n {
					t.Errorf("after a limit was set to %d they are %v", n, limits)
				}
			}
		})
	}
	group.Wait()
}
