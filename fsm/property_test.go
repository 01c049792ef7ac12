package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
)

// TestAnyHistory applies random commands to two machines. They must agree on every answer and digest; refused commands must
// leave no trace; limits are never overstepped by growth; and at the end everything that is kept in small steps must be what
// the rows say.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{T: t, a: smallMachine(t), b: smallMachine(t)}
		for range rapid.IntRange(1, 120).Draw(t, "length") {
			h.step()
		}
		checkState(t, h.a)
		if recomputed(h.b.View()) != h.a.View().Digest() {
			t.Error("the second machine has other rows")
		}
	})
}

// history draws commands over a few identifiers, so that they get in each other's way.
type history struct {
	*rapid.T
	a, b *Machine
	n    int
}

func (h *history) step() {
	h.n++
	meta := Meta{At: int64(h.n), Actor: "user/alice"}
	if h.chance(20) {
		meta.Token = h.pick("token", "x", "y", "z")
	}
	c := h.command()
	data, err := Encode(meta, c)
	if err != nil {
		h.Fatal(err)
	}
	before := h.a.View()
	dry := h.a.DryRun(meta, c)
	got, twin := h.a.Apply(before.Index()+1, data), h.b.Apply(before.Index()+1, data)
	after := h.a.View()
	if fmt.Sprint(got) != fmt.Sprint(twin) || fmt.Sprint(got) != fmt.Sprint(dry) {
		h.Fatalf("%T: %v, but the twin says %v and the dry run %v", c, got, twin, dry)
	}
	if after.Digest() != h.b.View().Digest() {
		h.Fatalf("%T: digests differ", c)
	}
	if got.Err != nil && before.Digest() != after.Digest() {
		h.Fatalf("%T: refused (%v), but has changed rows", c, got.Err)
	}
	if got.Err != nil && !slices.ContainsFunc(cairn.Sentinels(), func(s error) bool { return strings.HasSuffix(got.Err.Error(), s.Error()) }) {
		h.Fatalf("%T: %v does not end with a sentinel", c, got.Err)
	}
	checkLife(h, before, after)
	checkLimits(h, before, after)
}

// checkLife holds every change of a share's status against the legal table, and every row that is gone.
func checkLife(t rapid.TB, before, after *View) {
	for old := range before.Shares("") {
		now := after.Share(old.ID)
		switch {
		case now == nil:
			if old.Status != cairn.StatusDeleting && first(after.ReplicasOf(old.ID)) != nil {
				t.Fatalf("share %s went from %s to nothing", old.ID, old.Status)
			}
		case now.Status != old.Status && !old.Status.CanBecome(now.Status):
			t.Fatalf("share %s went from %s to %s", old.ID, old.Status, now.Status)
		}
	}
	for r := range after.Replicas() {
		if old := before.Replica(r.ID); old != nil && old.CreatedAt == r.CreatedAt {
			if r.Generation < old.Generation || r.Generation == old.Generation && r.Want != old.Want {
				t.Fatalf("replica %s: what is wanted has changed within generation %d", r.ID, r.Generation)
			}
		}
	}
}

// checkLimits: nothing that grew may have grown beyond its limit.
func checkLimits(t rapid.TB, before, after *View) {
	for p := range after.Projects() {
		old, now, limits := used(before.Usage(p)), used(after.Usage(p)), after.Quota(p).Limits
		for _, r := range resources {
			limit := *r.of(&limits)
			if *r.of(&now) > *r.of(&old) && limit != cairn.Unlimited && *r.of(&now) > limit {
				t.Fatalf("project %s has %d %s of %d", p, *r.of(&now), r.name, limit)
			}
		}
	}
	for p := range after.Pools() {
		if now := after.Provisioned(p.ID); now > before.Provisioned(p.ID) && now > p.Provisionable() {
			t.Fatalf("pool %s has promised %d of %d", p.ID, now, p.Provisionable())
		}
	}
}

func (h *history) chance(percent int) bool {
	return rapid.IntRange(1, 100).Draw(h.T, "chance") <= percent
}

func (h *history) pick(what string, from ...string) string {
	return rapid.SampledFrom(from).Draw(h.T, what)
}

func (h *history) share() cairn.ShareID { return cairn.ShareID(h.pick("share", "s1", "s2", "s3")) }

func (h *history) snapshot() cairn.SnapshotID {
	return cairn.SnapshotID(h.pick("snapshot", "p1", "p2", "p3"))
}

func (h *history) size() int64 { return rapid.Int64Range(0, 5).Draw(h.T, "size") << 30 }

func (h *history) id(prefix string) string { return fmt.Sprintf("%s%d", prefix, h.n) }

func (h *history) command() Command {
	if h.chance(40) {
		return h.report()
	}
	if h.chance(25) {
		return h.fleet()
	}
	switch rapid.IntRange(0, 12).Draw(h.T, "command") {
	case 0, 1:
		return h.create()
	case 2:
		return &DeleteShare{ID: h.share()}
	case 3, 4:
		return &ResizeShare{ID: h.share(), Size: h.size(), Task: cairn.TaskID(h.id("t"))}
	case 5:
		return &RevertShare{ID: h.share(), Snapshot: h.snapshot(), Task: cairn.TaskID(h.id("t"))}
	case 6:
		return &CancelTask{Share: h.share()}
	case 7:
		return &CreateSnapshot{cairn.Snapshot{ID: h.snapshot(), Share: h.share(), Name: h.pick("name", "m", "t")}}
	case 8:
		return &DeleteSnapshot{ID: h.snapshot()}
	case 9:
		return &AllowAccess{h.rule()}
	case 10:
		return &DenyAccess{Rule: cairn.RuleID(h.id("a"))}
	case 11:
		r := h.rule()
		return &SetAccess{Share: r.Share, Snapshot: r.Snapshot, Rules: []cairn.AccessRule{r}}
	}
	return &UnmanageShare{ID: h.share(), Task: cairn.TaskID(h.id("t")), Release: "old"}
}

func (h *history) create() Command {
	c := createShare(h.pick("name", "s1", "s2", "s3"), h.size())
	c.Share.Project = cairn.ProjectID(h.pick("project", "web", "api"))
	c.Replicas[0].Pool = cairn.PoolID(h.pick("pool", "n1/fast", "n1/slow", "n2/fast"))
	if h.chance(20) {
		c.Share.Source = h.snapshot()
	} else if h.chance(20) {
		c.Adopt, c.Task = "old", cairn.TaskID(h.id("t"))
	}
	return c
}

func (h *history) rule() cairn.AccessRule {
	r := cairn.AccessRule{
		ID: cairn.RuleID(h.id("a")), Share: h.share(), Kind: cairn.AccessIP, Who: h.pick("who", "10.0.0.1", "10.0.0.2", "::1"),
		Level: cairn.AccessLevel(h.pick("level", "rw", "ro")),
	}
	if h.chance(30) {
		r.Snapshot = h.snapshot()
	}
	return r
}

func (h *history) fleet() Command {
	node := cairn.NodeID(h.pick("node", "n1", "n2"))
	switch rapid.IntRange(0, 7).Draw(h.T, "fleet") {
	case 0:
		return &CreateJoinToken{cairn.JoinToken{ID: "k", Node: "n2", Name: "n2", SecretHash: hashOf("s"), ExpiresAt: 1 << 40}}
	case 1:
		return &ConsumeJoinToken{ID: "k", SecretHash: hashOf("s"), KeyHash: hashOf("k")}
	case 2:
		return &RegisterNode{cairn.Node{ID: node, Name: string(node), Address: "a", CommandVersion: 1}}
	case 3:
		return &SetNodeState{Node: node, State: cairn.NodeState(h.pick("state", "up", "down"))}
	case 4:
		return &DrainNode{Node: node, Draining: h.chance(50)}
	case 5:
		if h.chance(70) {
			return &FreezePool{Pool: "n1/fast", Frozen: h.chance(50)}
		}
		return &RemoveNode{Node: node, Force: h.chance(50)}
	case 6:
		return &SetQuota{cairn.Quota{Project: "web", Limits: cairn.Limits{Shares: 2, Bytes: h.size(), Snapshots: 2, SnapshotBytes: h.size()}}}
	}
	c := &RegisterPools{Node: node, Pools: []cairn.Pool{bigPool(node, "fast"), bigPool(node, "slow")}}
	c.Pools[1].Total = 4 << 30
	if h.chance(10) {
		c.Pools = c.Pools[:1]
	}
	return c
}

// report answers for a replica, mostly with what is wanted.
func (h *history) report() Command {
	c := &ReportReplica{Replica: cairn.ReplicaID("r-" + string(h.share()))}
	r := h.a.View().Replica(c.Replica)
	if r == nil {
		return c
	}
	c.Node, c.Generation, c.Epoch = r.Node, r.Generation, r.Epoch
	c.Have = cairn.ReplicaHave{Presence: r.Want.Presence, Size: r.Want.Size}
	if h.chance(20) {
		c.Have.Presence = cairn.Presence(h.pick("presence", "present", "absent", "released"))
		c.Have.Fault = cairn.Fault{Code: cairn.FaultCode(h.pick("fault", "", "data_loss", "no_space")), Message: "m"}
	}
	if h.chance(10) {
		c.RuleFault = cairn.Fault{Code: cairn.FaultExport, Message: "m"}
	}
	if h.chance(10) {
		c.Generation--
	}
	for i := range h.a.View().InstancesOn(r.ID) {
		if h.chance(80) {
			c.Snapshots = append(c.Snapshots, SnapshotHave{Snapshot: i.Snapshot, Have: i.Want})
		}
	}
	return c
}

// TestNoOvershoot lets clients race for quota and capacity. Whatever the order in which the log has their requests, each is
// accepted exactly if it fits at that moment: never too much, and never less than there is.
func TestNoOvershoot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity, limit := rapid.Int64Range(1, 40).Draw(t, "capacity"), rapid.Int64Range(0, 40).Draw(t, "limit")
		m := smallMachine(t)
		apply(t, m, &DeleteSnapshot{ID: "p1"})
		pool := bigPool("n1", "race")
		pool.Total = capacity
		apply(t, m, &RegisterPools{Node: "n1", Pools: []cairn.Pool{bigPool("n1", "fast"), pool}})
		apply(t, m, &SetQuota{cairn.Quota{Project: "race", Limits: cairn.Limits{Shares: -1, Bytes: limit, Snapshots: -1, SnapshotBytes: -1}}})
		promised, sizes := int64(0), map[cairn.ShareID]int64{}
		for i := range rapid.IntRange(1, 30).Draw(t, "requests") {
			size := rapid.Int64Range(1, 12).Draw(t, "size")
			id := cairn.ShareID(fmt.Sprintf("x%d", rapid.IntRange(0, i).Draw(t, "client")))
			var c Command
			growth := size
			if has, ok := sizes[id]; ok {
				if size <= has {
					continue
				}
				growth = size - has
				c = &ResizeShare{ID: id, Size: size, Task: "t"}
			} else {
				create := createShare(string(id), size)
				create.Share.Project, create.Replicas[0].Pool = "race", "n1/race"
				c = create
			}
			fits := promised+growth <= min(capacity, limit)
			result := try(t, m, Meta{}, c)
			if fits != (result.Err == nil) {
				t.Fatalf("%d promised of %d, quota %d, %d asked: %v", promised, capacity, limit, growth, result.Err)
			}
			if !fits {
				continue
			}
			promised, sizes[id] = promised+growth, size
			r := m.View().Replica(cairn.ReplicaID("r-" + id))
			apply(t, m, &ReportReplica{
				Node: r.Node, Replica: r.ID, Generation: r.Generation, Epoch: r.Epoch,
				Have: cairn.ReplicaHave{Presence: cairn.Present, Size: r.Want.Size},
			})
		}
		if m.View().Provisioned("n1/race") != promised || m.View().Usage("race").Bytes != promised {
			t.Fatalf("%d promised, but the rows say otherwise", promised)
		}
	})
}
