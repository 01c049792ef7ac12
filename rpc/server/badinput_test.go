package server

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/rpc/client"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// bad is a request that must be refused with one line, and change nothing.
type bad struct {
	call func(context.Context, *client.Client) error
	want error
	text string // in the error
}

func create(req *pb.CreateShareRequest) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Shares().CreateShare(ctx, req)
		return err
	}
}

func resize(size int64, shrink bool) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Shares().ResizeShare(ctx, &pb.ResizeShareRequest{Share: "full", Size: size, Shrink: shrink})
		return err
	}
}

func revert(share, snap string) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Shares().RevertShare(ctx, &pb.RevertShareRequest{Share: share, Snapshot: snap})
		return err
	}
}

func remove(share string) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Shares().DeleteShare(ctx, &pb.DeleteShareRequest{Share: share})
		return err
	}
}

func update(req *pb.UpdateShareRequest) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Shares().UpdateShare(ctx, req)
		return err
	}
}

func cut(share, name string) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Snapshots().CreateSnapshot(ctx, &pb.CreateSnapshotRequest{Share: share, Name: name})
		return err
	}
}

func allow(target *pb.AccessTarget, kind, who, level string) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Access().AllowAccess(ctx, &pb.AllowAccessRequest{Target: target, Kind: kind, Who: who, Level: level})
		return err
	}
}

func manage(object string, size int64) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Shares().ManageShare(ctx, &pb.ManageShareRequest{Name: "found", Node: "n1", Pool: "data", Object: object, Size: size})
		return err
	}
}

func newType(t *pb.ShareType) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Types().CreateType(ctx, &pb.CreateTypeRequest{Type: t})
		return err
	}
}

func newUser(u *pb.User, days int64, csr []byte) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Users().CreateUser(ctx, &pb.CreateUserRequest{User: u, TtlDays: days, Csr: csr})
		return err
	}
}

func token(name string, seconds int64) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Nodes().CreateNodeToken(ctx, &pb.CreateNodeTokenRequest{Name: name, TtlSeconds: seconds})
		return err
	}
}

func quota(project string, limit int64) func(context.Context, *client.Client) error {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.Quotas().SetQuota(ctx, &pb.SetQuotaRequest{Project: project, Bytes: &limit})
		return err
	}
}

func manyKeys(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[newID7(i)] = "x"
	}
	return m
}

// badInput is everything that the world may get wrong. The cluster has a pool of 100 GiB; share "full" of 10 GiB with the
// snapshots "old" and "new"; share "bare" of 1 GiB; share "busy", which is being extended; a quota for project "small".
func badInput(csr []byte) map[string]bad {
	long := strings.Repeat("x", 10<<10)
	str := func(s string) *string { return &s }
	full := &pb.AccessTarget{Share: "full"}
	snap := &pb.AccessTarget{Share: "full", Snapshot: "new"}
	return map[string]bad{
		"size 0":                {create(&pb.CreateShareRequest{Name: "a"}), cairn.ErrInvalid, "more than 0"},
		"size negative":         {create(&pb.CreateShareRequest{Name: "a", Size: -1}), cairn.ErrInvalid, "more than 0"},
		"size smallest":         {create(&pb.CreateShareRequest{Name: "a", Size: math.MinInt64}), cairn.ErrInvalid, "more than 0"},
		"size 5 EiB":            {create(&pb.CreateShareRequest{Name: "a", Size: 5 << 60}), cairn.ErrInvalid, "largest share"},
		"name empty":            {create(&pb.CreateShareRequest{Size: gib}), cairn.ErrInvalid, "must not be empty"},
		"name with slash":       {create(&pb.CreateShareRequest{Name: "a/b", Size: gib}), cairn.ErrInvalid, "not allowed"},
		"name dots":             {create(&pb.CreateShareRequest{Name: "..", Size: gib}), cairn.ErrInvalid, "directory"},
		"name with newline":     {create(&pb.CreateShareRequest{Name: "a\nb", Size: gib}), cairn.ErrInvalid, "not allowed"},
		"name of 10 kB":         {create(&pb.CreateShareRequest{Name: long, Size: gib}), cairn.ErrInvalid, "at most 255"},
		"name like an ID":       {create(&pb.CreateShareRequest{Name: newID7(1), Size: gib}), cairn.ErrInvalid, "form of an ID"},
		"description of 10 kB":  {create(&pb.CreateShareRequest{Name: "a", Size: gib, Description: long}), cairn.ErrInvalid, "at most 1024"},
		"metadata value 10 kB":  {create(&pb.CreateShareRequest{Name: "a", Size: gib, Metadata: map[string]string{"k": long}}), cairn.ErrInvalid, "at most 1023"},
		"metadata key 10 kB":    {create(&pb.CreateShareRequest{Name: "a", Size: gib, Metadata: map[string]string{long: "v"}}), cairn.ErrInvalid, "at most 255"},
		"metadata key empty":    {create(&pb.CreateShareRequest{Name: "a", Size: gib, Metadata: map[string]string{"": "v"}}), cairn.ErrInvalid, "empty"},
		"squash over webdav":    {create(&pb.CreateShareRequest{Name: "a", Size: gib, Protocol: "webdav", Metadata: map[string]string{"nfs:squash": "all"}}), cairn.ErrNotSupported, "is for shares over nfs"},
		"metadata 129 keys":     {create(&pb.CreateShareRequest{Name: "a", Size: gib, Metadata: manyKeys(129)}), cairn.ErrInvalid, "at most 128"},
		"project with slash":    {create(&pb.CreateShareRequest{Name: "a", Size: gib, Project: "a/b"}), cairn.ErrInvalid, "not allowed"},
		"project star":          {create(&pb.CreateShareRequest{Name: "a", Size: gib, Project: "*"}), cairn.ErrInvalid, "not allowed"},
		"protocol unknown":      {create(&pb.CreateShareRequest{Name: "a", Size: gib, Protocol: "smb"}), cairn.ErrInvalid, "webdav or nfs"},
		"protocol of no pool":   {create(&pb.CreateShareRequest{Name: "a", Size: gib, Protocol: "nfs"}), cairn.ErrNotSupported, "webdav"},
		"type unknown":          {create(&pb.CreateShareRequest{Name: "a", Size: gib, Type: "gold"}), cairn.ErrNotFound, "gold"},
		"zone unknown":          {create(&pb.CreateShareRequest{Name: "a", Size: gib, Zone: "mars"}), cairn.ErrNotSupported, "mars"},
		"capacity":              {create(&pb.CreateShareRequest{Name: "a", Size: 95 * gib}), cairn.ErrCapacity, "n1/data"},
		"quota":                 {create(&pb.CreateShareRequest{Name: "a", Size: 2 * gib, Project: "small"}), cairn.ErrQuota, "small"},
		"duplicate, other size": {create(&pb.CreateShareRequest{Name: "full", Size: 11 * gib}), cairn.ErrExists, "another size"},
		"duplicate, other type": {create(&pb.CreateShareRequest{Name: "full", Size: 10 * gib, Type: "plain"}), cairn.ErrExists, "another type"},
		"duplicate, other metadata": {create(&pb.CreateShareRequest{Name: "full", Size: 10 * gib, Metadata: map[string]string{"a": "b"}}),
			cairn.ErrExists, "metadata"},
		"source is a name": {create(&pb.CreateShareRequest{Name: "a", SourceSnapshot: "new"}), cairn.ErrInvalid, "ID of a snapshot"},
		"source unknown":   {create(&pb.CreateShareRequest{Name: "a", SourceSnapshot: newID7(5)}), cairn.ErrNotFound, newID7(5)},
		"token of 129":     {create(&pb.CreateShareRequest{Mutation: &pb.Mutation{Token: strings.Repeat("t", 129)}, Name: "a", Size: gib}), cairn.ErrInvalid, "at most 128"},
		"get without a name": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Shares().GetShare(ctx, &pb.GetShareRequest{})
			return err
		}, cairn.ErrInvalid, "missing"},
		"page token": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Shares().ListShares(ctx, &pb.ListSharesRequest{PageToken: "§"})
			return err
		}, cairn.ErrInvalid, "page token"},
		"page size": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Shares().ListShares(ctx, &pb.ListSharesRequest{PageSize: -1})
			return err
		}, cairn.ErrInvalid, "page size"},
		"delete unknown":           {remove("nothing"), cairn.ErrNotFound, "nothing"},
		"delete name of 10 kB":     {remove(long), cairn.ErrNotFound, "xxx…"},
		"delete with snapshots":    {remove("full"), cairn.ErrInUse, "2 snapshots"},
		"delete while a task runs": {remove("busy"), cairn.ErrBusy, "extend"},

		"extend to less":           {resize(9*gib, false), cairn.ErrInvalid, "shrink it"},
		"extend to the same":       {resize(10*gib, false), cairn.ErrInvalid, "larger size"},
		"shrink to more":           {resize(11*gib, true), cairn.ErrInvalid, "extend it"},
		"shrink to 0":              {resize(0, true), cairn.ErrInvalid, "more than 0"},
		"extend to 5 EiB":          {resize(5<<60, false), cairn.ErrInvalid, "largest share"},
		"extend beyond pool":       {resize(200*gib, false), cairn.ErrCapacity, "n1/data"},
		"revert to an older":       {revert("full", "old"), cairn.ErrPrecondition, "new"},
		"revert to nothing":        {revert("full", "none"), cairn.ErrNotFound, "none"},
		"revert without name":      {revert("full", ""), cairn.ErrInvalid, "missing"},
		"revert while a task runs": {revert("busy", "s"), cairn.ErrBusy, "extend"},

		"rename to a name that is taken": {update(&pb.UpdateShareRequest{Share: "full", Name: str("bare")}), cairn.ErrExists, "bare"},
		"rename to a path":               {update(&pb.UpdateShareRequest{Share: "full", Name: str("../etc")}), cairn.ErrInvalid, "not allowed"},
		"too much metadata":              {update(&pb.UpdateShareRequest{Share: "full", SetMetadata: manyKeys(129)}), cairn.ErrInvalid, "at most 128"},

		"snapshot name taken":        {cut("full", "new"), cairn.ErrExists, "new"},
		"snapshot name is path":      {cut("full", "a/b"), cairn.ErrInvalid, "not allowed"},
		"snapshot while a task runs": {cut("busy", "t"), cairn.ErrBusy, "extend"},
		"snapshot of a type without": {cut("unsnappable", "s"), cairn.ErrNotSupported, "plain"},
		"snapshot by name alone": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Snapshots().DeleteSnapshot(ctx, &pb.DeleteSnapshotRequest{Snapshot: "new"})
			return err
		}, cairn.ErrInvalid, "share"},

		"CIDR that is none":        {allow(full, "ip", "10.0.0.0/33", "rw"), cairn.ErrInvalid, "CIDR"},
		"CIDR with host bits":      {allow(full, "ip", "10.0.0.7/8", "rw"), cairn.ErrInvalid, "10.0.0.0/8"},
		"client of 10 kB":          {allow(full, "ip", long, "rw"), cairn.ErrInvalid, "xxx…"},
		"client with newline":      {allow(full, "ip", "10.0.0.1\n", "rw"), cairn.ErrInvalid, "CIDR"},
		"access kind":              {allow(full, "host", "a", "rw"), cairn.ErrInvalid, "ip, user or cert"},
		"access level":             {allow(full, "ip", "10.0.0.1", "rwx"), cairn.ErrInvalid, "rw or ro"},
		"access for a user's path": {allow(full, "user", "a/b", "rw"), cairn.ErrInvalid, "not allowed"},
		"access rw to a snapshot":  {allow(snap, "ip", "10.0.0.1", "rw"), cairn.ErrInvalid, "only be read"},
		"access without a target":  {allow(nil, "ip", "10.0.0.1", "rw"), cairn.ErrInvalid, "missing"},
		"rule with other level":    {allow(&pb.AccessTarget{Share: "bare"}, "ip", "10.0.0.0/8", "ro"), cairn.ErrExists, "10.0.0.0/8"},
		"set with a rule twice": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Access().SetAccess(ctx, &pb.SetAccessRequest{Target: full, Rules: []*pb.AccessRule{
				{Kind: "ip", Who: "10.0.0.1", Level: "rw"}, {Kind: "ip", Who: "10.0.0.1/32", Level: "ro"},
			}})
			return err
		}, cairn.ErrInvalid, "twice"},
		"set of 1025": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Access().SetAccess(ctx, &pb.SetAccessRequest{Target: full, Rules: make([]*pb.AccessRule, 1025)})
			return err
		}, cairn.ErrInvalid, "at most 1024"},
		"deny what is not there": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Access().DenyAccess(ctx, &pb.DenyAccessRequest{Target: full, Kind: "ip", Who: "10.0.0.9"})
			return err
		}, cairn.ErrNotFound, "10.0.0.9"},

		"manage a path":          {manage("../etc", gib), cairn.ErrInvalid, "plain name"},
		"manage a hidden object": {manage(".cairn", gib), cairn.ErrInvalid, "plain name"},
		"manage nothing":         {manage("", gib), cairn.ErrInvalid, "missing"},
		"manage size 0":          {manage("old-data", 0), cairn.ErrInvalid, "more than 0"},
		"manage beyond the pool": {manage("old-data", 200*gib), cairn.ErrCapacity, "data"},
		"unmanage with snapshots": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Shares().UnmanageShare(ctx, &pb.UnmanageShareRequest{Share: "full"})
			return err
		}, cairn.ErrInUse, "2 snapshots"},
		"cancel what does not run": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Tasks().CancelTask(ctx, &pb.CancelTaskRequest{Share: "full"})
			return err
		}, cairn.ErrPrecondition, "no task"},

		"type without a name":   {newType(nil), cairn.ErrInvalid, "must not be empty"},
		"type with a wild spec": {newType(&pb.ShareType{Name: "t", Specs: map[string]string{"colour": "red"}}), cairn.ErrInvalid, "snapshot_support"},
		"type with a bad flag":  {newType(&pb.ShareType{Name: "t", Specs: map[string]string{"snapshot_support": "maybe"}}), cairn.ErrInvalid, "true or false"},
		"type with a bad value": {newType(&pb.ShareType{Name: "t", Specs: map[string]string{"failover": "perhaps"}}), cairn.ErrInvalid, "manual or auto"},
		"type of no format":     {newType(&pb.ShareType{Name: "t", Format: "tape"}), cairn.ErrInvalid, "files or block"},
		"type that is another":  {newType(&pb.ShareType{Name: "plain", Specs: map[string]string{"driver": "zfs"}}), cairn.ErrExists, "plain"},
		"type in use": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Types().DeleteType(ctx, &pb.DeleteTypeRequest{Name: "plain"})
			return err
		}, cairn.ErrInUse, "plain"},

		"user with a bad role":        {newUser(&pb.User{Name: "u", Role: "root"}, 0, csr), cairn.ErrInvalid, "operator"},
		"member without a project":    {newUser(&pb.User{Name: "u", Role: "member"}, 0, csr), cairn.ErrInvalid, "needs a project"},
		"admin with a project":        {newUser(&pb.User{Name: "u", Role: "admin", Project: "p"}, 0, csr), cairn.ErrInvalid, "every project"},
		"user without a request":      {newUser(&pb.User{Name: "u", Role: "reader"}, 0, nil), cairn.ErrInvalid, "signing request"},
		"user for 100 years":          {newUser(&pb.User{Name: "u", Role: "reader"}, 36500, csr), cairn.ErrInvalid, "at most 3650"},
		"user for more than for ever": {newUser(&pb.User{Name: "u", Role: "reader"}, math.MaxInt64, csr), cairn.ErrInvalid, "at most 3650"},
		"user for -1 days":            {newUser(&pb.User{Name: "u", Role: "reader"}, -1, csr), cairn.ErrInvalid, "at least 1"},
		"last administrator": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Users().DeleteUser(ctx, &pb.DeleteUserRequest{Name: "admin"})
			return err
		}, cairn.ErrPrecondition, "last administrator"},

		"token for a path":      {token("a/b", 0), cairn.ErrInvalid, "not allowed"},
		"token for a member":    {token("n1", 0), cairn.ErrExists, "n1"},
		"token for a week":      {token("n9", 7*86400), cairn.ErrInvalid, "at most 86400"},
		"token for -1 s":        {token("n9", -1), cairn.ErrInvalid, "at least 1"},
		"quota of no project":   {quota("", 1), cairn.ErrInvalid, "must not be empty"},
		"quota below unlimited": {quota("p", -2), cairn.ErrInvalid, "-1"},
		"freeze what is no pool": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Pools().FreezePool(ctx, &pb.FreezePoolRequest{Pool: "data"})
			return err
		}, cairn.ErrInvalid, "node/pool"},
		"remove a node with shares": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Nodes().RemoveNode(ctx, &pb.RemoveNodeRequest{Node: "n1"})
			return err
		}, cairn.ErrInUse, "default/full"},
		"drain nothing": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Nodes().DrainNode(ctx, &pb.DrainNodeRequest{Node: "n9"})
			return err
		}, cairn.ErrNotFound, "n9"},
		"lead from nowhere": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Cluster().TransferLeadership(ctx, &pb.TransferLeadershipRequest{})
			return err
		}, cairn.ErrPrecondition, "no other voter"},
		"why what": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Cluster().Why(ctx, &pb.WhyRequest{Resource: "weather"})
			return err
		}, cairn.ErrInvalid, "share/NAME"},
		"since when": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Events().ListEvents(ctx, &pb.ListEventsRequest{Since: "yesterday"})
			return err
		}, cairn.ErrInvalid, "RFC 3339"},
	}
}

func TestBadInputIsRefusedWithOneLine(t *testing.T) {
	c := newCluster(t, 1)
	api := c.admin()
	c.must(&fsm.CreateType{Type: cairn.ShareType{Name: "plain", Format: cairn.FormatFiles}})
	c.must(&fsm.SetQuota{Quota: cairn.Quota{Project: "small", Limits: cairn.Limits{Shares: 1, Bytes: gib, Snapshots: 1, SnapshotBytes: gib}}})
	c.share(api, "full", 10*gib)
	c.snapshot(api, "full", "old")
	c.snapshot(api, "full", "new")
	c.share(api, "bare", gib)
	if _, err := api.Shares().CreateShare(t.Context(), &pb.CreateShareRequest{Name: "unsnappable", Size: gib, Type: "plain"}); err != nil {
		t.Fatal(err)
	}
	if err := allow(&pb.AccessTarget{Share: "bare"}, "ip", "10.0.0.0/8", "rw")(t.Context(), api); err != nil {
		t.Fatal(err)
	}
	c.share(api, "busy", gib)
	c.snapshot(api, "busy", "s")
	if _, err := api.Shares().ResizeShare(t.Context(), &pb.ResizeShareRequest{Share: "busy", Size: 2 * gib}); err != nil {
		t.Fatal(err)
	}
	_, csr, err := client.NewKeyAndCSR("u")
	if err != nil {
		t.Fatal(err)
	}
	before := c.machine.View().Digest()
	cases := badInput(csr)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			err := cases[name].call(t.Context(), api)
			if !errors.Is(err, cases[name].want) {
				t.Fatalf("got %v, want %v", err, cases[name].want)
			}
			if text := err.Error(); strings.ContainsAny(text, "\n\r") || len(text) > 700 || !strings.Contains(text, cases[name].text) {
				t.Errorf("want one line with %q: %s", cases[name].text, text)
			}
			if now := c.machine.View().Digest(); now != before {
				t.Errorf("the state has changed: digest %x, was %x", now, before)
			}
		})
	}
}
