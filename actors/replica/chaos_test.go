package replica

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// TestReplicasThroughEverything plays random histories of writes, snapshots, promotions, failovers, kills in the middle of a step, standbys
// that lose a snapshot, and nodes that come and go. Whatever happens: at most one node lets clients write; an acknowledged write is the data of the active
// replica, or was overwritten, or is kept in a diverged snapshot; an acknowledged snapshot is the same on every replica in sync;
// and once everything is up again, everything is in sync and no sync point is left over.
func TestReplicasThroughEverything(t *testing.T) {
	if *simSeed != 0 {
		t.Logf("history:\n%s", playHavoc(t, *simSeed, 40))
		return
	}
	const runs = 60
	first := rand.Uint64()
	t.Logf("seeds %d and the %d after it", first, runs-1)
	for i := range uint64(runs) {
		playHavoc(t, first+i, 40)
	}
}

// TestSameSeedSameHistory: three nodes, their actors, pools and the state machine do the same again, with the same state after each step.
func TestSameSeedSameHistory(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const actions = 8
	want, others := playHavoc(t, seed, actions), make(map[string]bool)
	for i := range uint64(100) {
		if got := playHavoc(t, seed, actions); got != want {
			t.Fatalf("run %d:\n%s\nwant\n%s", i+1, got, want)
		}
		if i%5 == 0 {
			_, history, _ := strings.Cut(playHavoc(t, seed+1+i, actions), "\n") // its first line is the seed
			others[history] = true
		}
	}
	if len(others) != 20 {
		t.Errorf("20 other seeds gave %d histories", len(others))
	}
}

// playHavoc returns the history of a seed.
func playHavoc(t testing.TB, seed uint64, actions int) string {
	t.Helper()
	h := &havoc{random: rand.New(rand.NewPCG(seed, 0)), points: make(map[cairn.SnapshotID]string)}
	h.trace = append(h.trace, fmt.Sprintf("seed %d", seed))
	h.fleet = newFleet(t, 3, cairn.FailoverAuto, h.kind)
	h.asked = func(*member) { h.checkShown() }
	h.play(actions)
	history := strings.Join(h.trace, "\n")
	if t.Failed() {
		t.Fatalf("history:\n%s", history)
	}
	return history
}

type havoc struct {
	*fleet
	random *rand.Rand
	trace  []string
	count  int
	last   string                      // the newest acknowledged write
	cuts   map[string]string           // data of acknowledged snapshots
	owed   []string                    // acknowledged writes that a failover left behind
	gone   map[cairn.SnapshotID]bool   // what a user has deleted
	seen   map[string]bool             // what an operator saw in a diverged snapshot and did not want
	points map[cairn.SnapshotID]string // of the active replicas, when they were cut
}

// kind makes standbys readable in half of the histories.
func (h *havoc) kind(t *cairn.ShareType) {
	if h.random.IntN(2) == 0 {
		t.Replication = cairn.ReplicationReadable
	}
}

func (h *havoc) play(actions int) {
	h.cuts, h.seen, h.gone = make(map[string]string), make(map[string]bool), make(map[cairn.SnapshotID]bool)
	h.wait()
	for range actions {
		h.count++
		h.act()
		h.check()
		if h.Failed() {
			return
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.nodes)) {
		h.bring(id)
		clear(h.nodes[id].exporter.reading)
		h.nodes[id].viewer.old = nil
	}
	for range 4 {
		h.takeOver()
		h.wait()
	}
	h.operate()
	h.checkHealed()
}

func (h *havoc) note(format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf("%3d %x ", h.count, h.View().Digest())+fmt.Sprintf(format, args...))
}

func (h *havoc) act() {
	id := cairn.NodeID(fmt.Sprint("node-", 1+h.random.IntN(3)))
	switch h.random.IntN(11) {
	case 0, 1, 2:
		h.client()
	case 3:
		h.note("time passes")
		h.readers()
		h.elapsed.Add(int64(defaultInterval))
		h.rounds()
	case 4:
		to := cairn.ReplicaID(fmt.Sprint("r", 1+h.random.IntN(3)))
		err := h.try(&fsm.PromoteShare{Share: fleetShare, Replica: to, Task: cairn.TaskID(fmt.Sprint("t", h.count))})
		h.note("promote %s: %v", to, err)
		h.rounds()
	case 5:
		h.note("%s will die in the middle", id)
		h.nodes[id].steps = 1 + h.random.IntN(4)
		h.rounds()
		h.lose(id)
	case 6:
		h.note("%s goes down", id)
		h.lose(id)
	case 7:
		h.bring(id)
	case 8:
		if h.random.IntN(3) == 0 {
			h.forget()
			return
		}
		snap := cairn.SnapshotID(fmt.Sprint("p", h.count))
		err := h.try(&fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: snap, Share: fleetShare, Name: string(snap)}})
		h.note("snapshot %s: %v", snap, err)
		h.rounds()
	case 9:
		h.rob(h.nodes[id])
	case 10:
		h.lag(h.nodes[id])
	}
	h.takeOver()
}

// rounds lets the actors run, but not until everything is done.
func (h *havoc) rounds() {
	for range 1 + h.random.IntN(4) {
		for _, id := range slices.Sorted(maps.Keys(h.nodes)) {
			if m := h.nodes[id]; !m.cut && !m.dead {
				h.pass(m)
			}
			h.check()
		}
	}
}

// forget deletes the oldest snapshot of the user.
func (h *havoc) forget() {
	for snap := range h.View().SnapshotsOf(fleetShare) {
		if !snap.Diverged {
			err := h.try(&fsm.DeleteSnapshot{ID: snap.ID})
			h.note("delete snapshot %s: %v", snap.ID, err)
			h.gone[snap.ID] = err == nil
			h.rounds()
			return
		}
	}
}

// lag has a node apply nothing more for a while, or catch up.
func (h *havoc) lag(m *member) {
	if m.viewer.old != nil {
		h.note("%s catches up", m.id)
		m.viewer.old = nil
		return
	}
	h.note("%s applies nothing more", m.id)
	m.viewer.old = h.View()
}

// rob takes a snapshot from a standby behind its back; its actor looks at once, unless it lags. One that holds diverged data is left alone:
// if it loses what it has in common with the others, an operator has to look at that data first.
func (h *havoc) rob(m *member) {
	v := h.View()
	for r := range v.ReplicasOn(m.id) {
		holds := func(i *cairn.SnapshotInstance) bool { return v.Snapshot(i.Snapshot).Diverged }
		instances := slices.Collect(v.InstancesOn(r.ID))
		if r.Role != cairn.RoleStandby || r.Want.Keep != (cairn.Keep{}) || slices.ContainsFunc(instances, holds) || m.cut || m.dead || m.steps > 0 || m.viewer.old != nil {
			continue
		}
		for _, i := range instances {
			h.note("%s loses snapshot %s", r.ID, i.Snapshot)
			m.disk.lose(r.ID, one(i.Snapshot))
			h.pass(m)
			return
		}
	}
}

// client writes if somebody serves the share.
func (h *havoc) client() {
	if m := h.served(); m != nil {
		h.last = fmt.Sprintf("text %d", h.count)
		h.note("write %q at %s", h.last, m.id)
		m.store(h.View().Share(fleetShare).Active, h.last)
	}
}

func (h *havoc) lose(id cairn.NodeID) {
	up := 0
	for _, m := range h.nodes {
		if !m.cut && m.id != id {
			up++
		}
	}
	if up == 0 || h.nodes[id].cut {
		return
	}
	h.note("%s is down", id)
	h.nodes[id].cut = true
	h.must(h, &fsm.SetNodeState{Node: id, State: cairn.NodeDown})
}

func (h *havoc) bring(id cairn.NodeID) {
	m := h.nodes[id]
	h.note("%s starts", id)
	m.cut = false
	h.restart(m)
	h.must(h, &fsm.SetNodeState{Node: id, State: cairn.NodeUp})
	h.rounds()
}

// takeOver is the leader's part: the freshest standby in sync takes over from a node that is down. Sometimes it is an operator's
// instead, who takes the freshest of a share that nobody serves whether it is in sync or not.
func (h *havoc) takeOver() {
	v := h.View()
	active := v.Replica(v.Share(fleetShare).Active)
	if v.Node(active.Node).State == cairn.NodeUp {
		return
	}
	forced := h.random.IntN(4) == 0
	var best SyncState
	for r := range v.ReplicasOf(fleetShare) {
		m := h.nodes[r.Node]
		if r.ID == active.ID || r.State != cairn.ReplicaInSync && !forced || m.cut || m.dead {
			continue
		}
		for _, state := range m.actor.SyncStates([]cairn.ReplicaID{r.ID}) {
			if state.Newest > best.Newest {
				best = state
			}
		}
	}
	if best.Newest == "" {
		return
	}
	result, err := h.Apply(h.Context(), fsm.Meta{At: 1}, &fsm.FailoverShares{Failovers: []fsm.Failover{{
		Share: fleetShare, Replica: best.Replica, Epoch: active.Epoch, Snapshot: best.Newest, Keep: cairn.SnapshotID(fmt.Sprint("kept-", h.count)), Forced: forced,
	}}})
	h.note("%s takes over from %s at %s, forced %v: %v %v", best.Replica, active.ID, best.Newest, forced, err, result.Each)
	if result.Each[0] == nil {
		if h.last != "" && h.last != h.nodes[v.Replica(best.Replica).Node].disk.objects[best.Replica].snapshots[best.Newest] {
			h.owed = append(h.owed, h.last)
		}
		h.last = ""
	}
	h.rounds()
}

// operate does what only an operator may: a replica that has nothing in common with the active one any more, since that one
// was itself fetched anew meanwhile, keeps its diverged snapshot and waits until somebody has looked at it.
func (h *havoc) operate() {
	v := h.View()
	for r := range v.ReplicasOf(fleetShare) {
		if r.State != cairn.ReplicaOutOfSync || !strings.Contains(r.Have.Fault.Message, "delete that one, then it is fetched anew") {
			continue
		}
		for i := range v.InstancesOn(r.ID) {
			if !v.Snapshot(i.Snapshot).Diverged {
				continue
			}
			h.seen[h.nodes[r.Node].disk.objects[r.ID].snapshots[i.Snapshot]] = true
			h.note("%s is deleted by an operator: %v", i.Snapshot, h.try(&fsm.DeleteSnapshot{ID: i.Snapshot})) // two replicas may hold it
		}
		h.wait()
		h.wait()
	}
}

func (h *havoc) check() {
	h.served() // fails if there are two
	h.checkShown()
	v := h.View()
	if m := h.served(); m != nil && h.last != "" {
		if data := h.data(v.Share(fleetShare).Active); data != h.last {
			h.Errorf("%s serves %q; the last acknowledged write is %q", m.id, data, h.last)
		}
	}
	for snap := range v.SnapshotsOf(fleetShare) {
		if snap.Status != cairn.StatusAvailable || snap.Diverged {
			continue
		}
		for i := range v.InstancesOf(snap.ID) {
			r := v.Replica(i.Replica)
			data, there := h.nodes[r.Node].disk.objects[r.ID].snapshots[snap.ID]
			if r.State == cairn.ReplicaOutOfSync {
				continue
			}
			if !there {
				h.Errorf("%s is %s and lacks the available snapshot %s", r.ID, r.State, snap.ID)
			} else if known, ok := h.cuts[string(snap.ID)]; ok && known != data {
				h.Errorf("snapshot %s is %q on %s and was %q", snap.ID, data, r.ID, known)
			} else {
				h.cuts[string(snap.ID)] = data
			}
		}
	}
}

func (h *havoc) checkHealed() {
	v := h.View()
	h.Helper()
	active := v.Share(fleetShare).Active
	for r := range v.ReplicasOf(fleetShare) {
		if r.ID != active && r.State != cairn.ReplicaInSync {
			h.Errorf("healed, but %s is %s: fault %q, sync %+v", r.ID, r.State, r.Have.Fault.Message, h.nodes[r.Node].actor.SyncStates([]cairn.ReplicaID{r.ID}))
		}
		object := h.nodes[r.Node].disk.objects[r.ID]
		points := syncPoints(slices.Collect(maps.Keys(object.snapshots)))
		newest := newestSyncPoint(points)
		if object.snapshots[newest] != h.data(active) {
			h.Errorf("healed, but %s has %q at %s and the active one %q", r.ID, object.snapshots[newest], newest, h.data(active))
		}
		for id := range object.snapshots {
			if h.gone[id] {
				h.Errorf("healed, but %s has snapshot %s, which was deleted", r.ID, id)
			}
		}
		if len(points) > 3 {
			h.Errorf("healed, but %s keeps %d sync points", r.ID, len(points))
		}
	}
	h.checkAllShown()
	kept := maps.Clone(h.seen)
	for snap := range v.SnapshotsOf(fleetShare) {
		for i := range v.InstancesOf(snap.ID) {
			if snap.Diverged {
				kept[h.nodes[v.Replica(i.Replica).Node].disk.objects[i.Replica].snapshots[snap.ID]] = true
			}
		}
	}
	for _, text := range h.owed {
		if !kept[text] {
			h.Errorf("%q was acknowledged, and is in no diverged snapshot: %v", text, kept)
		}
	}
	if h.served() == nil {
		h.Error("healed, but nobody serves the share")
	}
	if task := v.Task(fleetShare); task.Running() {
		h.Errorf("healed, but task %s is still running", task.Kind)
	}
}
