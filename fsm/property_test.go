package fsm

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
)

// TestAnyHistory applies random commands to two machines, one of which is replaced now and then by what its snapshot holds. They
// must agree on every answer and digest; refused commands must leave no trace; limits are never overstepped by growth; and at
// the end everything that is kept in small steps must be what the rows say.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{T: t, a: fleetMachine(t), b: fleetMachine(t)}
		for range rapid.IntRange(60, 240).Draw(t, "length") {
			h.step()
			checkReplication(t, h.a.View())
		}
		checkState(t, h.a)
		if recomputed(h.b.View()) != h.a.View().Digest() {
			t.Error("the second machine has other rows")
		}
		settles(t, h.a)
	})
}

// fleetMachine is smallMachine with three nodes and a type whose shares may have replicas.
func fleetMachine(t rapid.TB) *Machine {
	m := smallMachine(t)
	for _, n := range []cairn.NodeID{"n2", "n3"} {
		token := cairn.TokenID("k-" + n)
		apply(t, m, &CreateJoinToken{cairn.JoinToken{ID: token, Node: n, Name: string(n), SecretHash: hashOf("s"), ExpiresAt: 1 << 40}})
		apply(t, m, &ConsumeJoinToken{ID: token, SecretHash: hashOf("s"), KeyHash: hashOf("k")})
		apply(t, m, &RegisterNode{cairn.Node{ID: n, Name: string(n), Address: "a", CommandVersion: 1}})
		apply(t, m, &RegisterPools{Node: n, Pools: []cairn.Pool{bigPool(n, "fast"), bigPool(n, "slow")}})
	}
	apply(t, m, &CreateType{cairn.ShareType{
		Name: "twin", Format: cairn.FormatFiles, Replication: cairn.ReplicationReadable, Failover: cairn.FailoverAuto,
		Snapshots: true, Clone: true, Revert: true, MountSnapshots: true,
	}})
	apply(t, m, &DeleteSnapshot{ID: "p1"})
	tell(t, m, honest(m.View(), m.View().Replica("r-s1")))
	apply(t, m, &DeleteShare{ID: "s1"})
	tell(t, m, honest(m.View(), m.View().Replica("r-s1")))
	twin := createShare("s1", 1<<30)
	twin.Share.Type = "twin"
	twin.Replicas = append(twin.Replicas, Placement{"r-s1-2", "n2/fast"}, Placement{"r-s1-3", "n3/fast"})
	apply(t, m, twin)
	for _, id := range []cairn.ReplicaID{"r-s1", "r-s1-2", "r-s1-3"} {
		tell(t, m, honest(m.View(), m.View().Replica(id)))
	}
	return m
}

// settles lets every node come back and answer honestly, as their actors do: when its rows are not as it finds things, or when
// it is asked anew. However the history went, that must bring everything to an end.
func settles(t rapid.TB, m *Machine) {
	for n := range m.View().Nodes() {
		apply(t, m, &SetNodeState{Node: n.ID, State: cairn.NodeUp})
	}
	for range 100 {
		quiet := true
		for r := range m.View().Replicas() {
			if r = m.View().Replica(r.ID); r == nil {
				continue
			}
			if c := honest(m.View(), r); news(m.View(), r, c) {
				quiet = false
				tell(t, m, c)
			}
		}
		if quiet {
			break
		}
	}
	checkState(t, m)
	checkSettled(t, m.View())
}

// news reports whether an actor would send the report: an answer that says nothing new is not sent.
func news(v *View, r *cairn.Replica, c *ReportReplica) bool {
	found := c.Have
	found.Generation, found.Fault, found.Diverged = r.Generation, cairn.Fault{}, r.Have.Diverged
	found.Kept = cmp.Or(found.Kept, r.Have.Kept)
	if !reflect.DeepEqual(r.Have, found) {
		return true
	}
	for _, s := range c.Snapshots {
		if i := v.Instance(s.Snapshot, r.ID); i.Have != s.Have || s.Have == cairn.Absent || !i.Fault.Healthy() {
			return true
		}
	}
	for rule := range v.allRulesOf(r.Share) {
		server := (&Tx{View: v}).server(accessTo{v.Share(r.Share), v.Snapshot(rule.Snapshot)})
		if server == r.ID && slices.Contains([]cairn.RuleState{cairn.RuleApplying, cairn.RuleUpdating, cairn.RuleDenying}, rule.State) {
			return true
		}
	}
	return false
}

// settled is what a node has of a snapshot once it has what is wanted.
func settled(want cairn.Presence) cairn.Presence {
	if want == cairn.Released {
		return cairn.Absent
	}
	return want
}

// checkSettled looks for what waits for somebody who has nothing more to say.
func checkSettled(t rapid.TB, v *View) {
	for s := range v.Shares("") {
		if task := v.Task(s.ID); s.Status != cairn.StatusAvailable || task.Running() {
			t.Errorf("share %s is %s with task %+v", s.ID, s.Status, task)
		}
	}
	for r := range v.Replicas() {
		w := r.Want
		if w.Presence != cairn.Present || w.Sealed || w.SyncTo != "" || w.Revert != "" || w.Keep != (cairn.Keep{}) || r.State == cairn.ReplicaOutOfSync {
			t.Errorf("replica %s is %s and wants %+v", r.ID, r.State, w)
		}
	}
	for s := range v.Snapshots("") {
		if s.Status != cairn.StatusAvailable || !s.Fault.Healthy() {
			t.Errorf("snapshot %s is %s: %+v", s.ID, s.Status, s.Fault)
		}
	}
	for r := range v.rules.all("") {
		if r.State != cairn.RuleActive && r.State != cairn.RuleError {
			t.Errorf("rule %s is %s", r.ID, r.State)
		}
	}
}

func tell(t rapid.TB, m *Machine, c *ReportReplica) {
	t.Helper()
	apply(t, m, c)
}

// honest is what a node reports of a replica that has become what is wanted.
func honest(v *View, r *cairn.Replica) *ReportReplica {
	c := &ReportReplica{Node: r.Node, Replica: r.ID, Generation: r.Generation, Epoch: r.Epoch}
	c.Have = cairn.ReplicaHave{Presence: r.Want.Presence, Size: r.Want.Size, Kept: r.Want.Keep.Snapshot}
	if r.Want.Sealed {
		c.Have.Sealed = "sealed-" + cairn.SnapshotID(r.ID)
	}
	if r.Role == cairn.RoleStandby {
		c.Have.InSync, c.Have.Synced = true, r.Want.SyncTo
	}
	for i := range v.InstancesOn(r.ID) {
		if i.Have != i.Want || i.Want == cairn.Absent || !i.Fault.Healthy() {
			c.Snapshots = append(c.Snapshots, SnapshotHave{Snapshot: i.Snapshot, Have: settled(i.Want)})
		}
	}
	return c
}

// history draws commands over a few identifiers, so that they get in each other's way.
type history struct {
	*rapid.T
	a, b   *Machine
	n      int
	choose *rand.Rand
}

// step draws one number and takes everything else from it: rapid prefers small numbers, and would make most choices alike. It
// returns the command as it is in the log, and its result.
func (h *history) step() ([]byte, Result) {
	h.n++
	h.choose = rand.New(rand.NewPCG(rapid.Uint64().Draw(h.T, "choices"), uint64(h.n)))
	meta := Meta{At: int64(h.n), Actor: "user/alice"}
	if h.chance(20) {
		meta.Token = h.pick("x", "y", "z")
	}
	c := h.command()
	h.Logf("%d %T %+v", h.n, c, c)
	data, err := Encode(meta, c)
	if err != nil {
		h.Fatal(err)
	}
	before := h.a.View()
	if h.chance(5) {
		h.b = restored(h, h.b)
	}
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
	checkKept(h, before, after)
	return data, got
}

// checkKept: what a replica was asked to put aside it is asked for until it has said that it did, or it is not to stay.
func checkKept(t rapid.TB, before, after *View) {
	for old := range before.Replicas() {
		keep, now := old.Want.Keep, after.Replica(old.ID)
		switch {
		case keep == (cairn.Keep{}) || now == nil || now.Want.Presence != cairn.Present || now.Want.Keep == keep:
		case now.Want.Keep != cairn.Keep{} || now.Have.Kept != keep.Snapshot:
			t.Fatalf("replica %s was to keep %+v, but has %+v and is to keep %+v", old.ID, keep, now.Have, now.Want.Keep)
		case now.Have.Diverged && after.Snapshot(keep.Snapshot) == nil:
			t.Fatalf("replica %s has kept %s, which is no snapshot", old.ID, keep.Snapshot)
		}
	}
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
			if r.Epoch < old.Epoch || r.Role != old.Role && r.Epoch == old.Epoch {
				t.Fatalf("replica %s went from %s to %s, from epoch %d to %d", r.ID, old.Role, r.Role, old.Epoch, r.Epoch)
			}
		}
	}
	for old := range before.Snapshots("") {
		now := after.Snapshot(old.ID)
		if now == nil && old.Status == cairn.StatusAvailable && after.Share(old.Share) != nil && !old.Diverged {
			t.Fatalf("snapshot %s was available, and is gone", old.ID)
		}
	}
}

// checkLimits: nothing that grew may have grown beyond its limit, except by what an earlier active replica had left.
func checkLimits(t rapid.TB, before, after *View) {
	for p := range after.Projects() {
		if slices.ContainsFunc(slices.Collect(after.Snapshots(p)), func(s *cairn.Snapshot) bool { return s.Diverged && before.Snapshot(s.ID) == nil }) {
			continue
		}
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
