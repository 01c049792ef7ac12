package replica

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// fleet is a few nodes with a pool in memory each, one state machine, and actors that pull from each other by plain calls.
// Time stands still but when the test moves it.
type fleet struct {
	testing.TB
	*state
	nodes map[cairn.NodeID]*member
	// elapsed is what the test has let pass, also while a drill reads the clock.
	elapsed atomic.Int64
	// full and incremental count the streams that were sent, and moved their bytes.
	full, incremental int
	moved             int64
	open              func(*member) drivers.Pool
	asked             func(*member) // before a standby of that node is answered
}

type member struct {
	id       cairn.NodeID
	disk     *memory
	pool     drivers.Pool
	exporter *memoryExporter
	actor    *Actor
	viewer   *behind
	cut      bool // nobody reaches it, and it reaches nobody
	steps    int  // changes of storage and exports that its process still makes before it dies; 0: any number
	dead     bool
	mu       sync.Mutex // of diskStep
}

// step makes a change unless the process is dead.
func (m *member) step(_ context.Context, _ string, change func() error) error {
	if m.dead {
		return errDead
	}
	if err := change(); err != nil {
		return err
	}
	if m.steps > 0 {
		m.steps--
		if m.dead = m.steps == 0; m.dead {
			return errDead
		}
	}
	return nil
}

const fleetShare cairn.ShareID = "s"

// newFleet has nodes node-1 to node-n, and a share with a replica r<i> on each; r1 is active.
func newFleet(t testing.TB, nodes int, policy cairn.FailoverPolicy, edits ...func(*cairn.ShareType)) *fleet {
	return newFleetOn(t, nodes, policy, drivers.CapabilitiesOf(&memoryPool{}), func(m *member) drivers.Pool {
		return &memoryPool{memory: m.disk, do: m.step}
	}, edits...)
}

// newFleetOn has pools that open makes, which can do what caps says.
func newFleetOn(t testing.TB, nodes int, policy cairn.FailoverPolicy, caps []cairn.Capability, open func(*member) drivers.Pool, edits ...func(*cairn.ShareType)) *fleet {
	f := &fleet{TB: t, nodes: make(map[cairn.NodeID]*member), open: open}
	f.state = newState(t, caps)
	share := cairn.Share{ID: fleetShare, Project: "web", Name: "data", Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "copies", Size: 128 * mib}
	create := &fsm.CreateShare{Share: share}
	for i := range nodes {
		id := cairn.NodeID(fmt.Sprintf("node-%d", i+1))
		f.enlist(id, caps)
		create.Replicas = append(create.Replicas, fsm.Placement{ID: cairn.ReplicaID(fmt.Sprint("r", i+1)), Pool: cairn.MakePoolID(id, "data")})
	}
	kind := cairn.ShareType{
		Name: "copies", Format: cairn.FormatFiles, Replication: cairn.ReplicationDR, Failover: policy,
		Snapshots: true, Revert: true, Clone: true,
	}
	for _, edit := range edits {
		edit(&kind)
	}
	f.must(t, &fsm.CreateType{Type: kind})
	f.must(t, create)
	f.settle()
	return f
}

func (f *fleet) enlist(id cairn.NodeID, caps []cairn.Capability) {
	m := &member{id: id, disk: newMemory(string(id)), viewer: &behind{state: f.state}}
	f.nodes[id] = m
	m.exporter = &memoryExporter{do: m.step, specs: map[drivers.ExportID]drivers.ExportSpec{}, reading: map[drivers.ExportID]bool{}}
	f.restart(m)
	if id == node1 {
		return
	}
	name := strings.Replace(string(id), "ode-", "", 1)
	f.must(f, &fsm.CreateJoinToken{Token: cairn.JoinToken{ID: cairn.TokenID("k" + name), Node: id, Name: name, SecretHash: make([]byte, 32), ExpiresAt: 1 << 60}})
	f.must(f, &fsm.ConsumeJoinToken{ID: cairn.TokenID("k" + name), SecretHash: make([]byte, 32), KeyHash: make([]byte, 32)})
	f.must(f, &fsm.RegisterNode{Node: cairn.Node{ID: id, Name: name, Address: "a", CommandVersion: 1}})
	f.must(f, &fsm.RegisterPools{Node: id, Pools: []cairn.Pool{{
		ID: cairn.MakePoolID(id, "data"), Node: id, Name: "data", Driver: "dir", Total: 1 << 40, OverSubscriptionPercent: 100,
		Capabilities: caps, Protocols: []cairn.Protocol{cairn.ProtocolWebDAV},
	}}})
}

// restart ends the process of a node and starts it again: what only its memory held is gone, and nothing is served.
func (f *fleet) restart(m *member) {
	clear(m.exporter.specs)
	clear(m.exporter.reading)
	m.steps, m.dead, m.viewer.old = 0, false, nil
	m.pool = f.open(m)
	m.actor = New(Config{
		Node: m.id, Viewer: m.viewer, Applier: f.state, Puller: puller{f, m}, Now: f.now,
		Pools:     map[cairn.PoolID]drivers.Pool{cairn.MakePoolID(m.id, "data"): m.pool},
		Exporters: map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: m.exporter},
	})
}

// puller asks another node's actor.
type puller struct {
	*fleet
	from *member
}

func (p puller) Pull(ctx context.Context, node cairn.NodeID, request PullRequest, take func(Offer, io.Reader) error) (Offer, error) {
	if p.from.cut || p.nodes[node].cut || p.from.dead || p.nodes[node].dead {
		return Offer{}, cairn.ErrUnavailable
	}
	if p.asked != nil {
		p.asked(p.from)
	}
	offer, send, err := p.nodes[node].actor.Offer(ctx, request)
	if err != nil || send == nil {
		return offer, err
	}
	if offer.Base == "" {
		p.full++
	} else {
		p.incremental++
	}
	var stream strings.Builder
	if err := send(ctx, &stream); err != nil {
		return offer, err
	}
	p.moved += int64(stream.Len())
	return offer, take(offer, strings.NewReader(stream.String()))
}

// settle runs all actors of nodes that are not cut off until nothing changes any more.
func (f *fleet) settle() {
	f.Helper()
	for round := range 50 {
		before := f.View().Digest()
		for _, id := range slices.Sorted(maps.Keys(f.nodes)) {
			if m := f.nodes[id]; !m.cut && !m.dead {
				f.pass(m)
			}
		}
		if f.View().Digest() == before && round > 1 { // what standbys fetch is not in the log
			return
		}
	}
	f.Fatal("the fleet does not settle")
}

// pass runs every actor of a node once. What goes wrong is reported or tried again; tests look at what came out.
func (f *fleet) pass(m *member) {
	for r := range f.View().ReplicasOn(m.id) {
		_, _ = m.actor.Reconcile(f.Context(), string(r.ID))
	}
}

func (f *fleet) now() time.Time {
	return time.UnixMilli(1_700_000_000_000).Add(time.Duration(f.elapsed.Load()))
}

// wait lets an interval pass and the actors do what is due.
func (f *fleet) wait() {
	f.Helper()
	f.elapsed.Add(int64(defaultInterval))
	f.settle()
}

// served returns the node that lets clients write to the share now; it fails the test if there are two.
func (f *fleet) served() *member {
	f.Helper()
	var writable *member
	for id, m := range f.nodes {
		if m.dead { // it serves from memory what was exported: a dead process serves nothing
			continue
		}
		for _, spec := range m.exporter.specs {
			guard := &Guard{Node: id, Viewer: m.viewer, LeaseValid: func() bool { return !m.cut }}
			if spec.ID.Snapshot != "" || spec.ReadOnly || m.disk.objects[spec.ID.Replica].Sealed || guard.Check(spec.ID.Replica, spec.Epoch) != nil {
				continue
			}
			if writable != nil {
				f.Fatalf("%s and %s are both writable", writable.id, id)
			}
			writable = m
		}
	}
	return writable
}

// write stores text through the node that serves the share.
func (f *fleet) write(text string) {
	f.Helper()
	m := f.served()
	if m == nil {
		f.Fatal("nobody serves the share")
	}
	m.store(f.View().Share(fleetShare).Active, text)
}

func (m *member) store(id cairn.ReplicaID, text string) {
	object := m.disk.objects[id]
	object.data = text
	m.disk.objects[id] = object
}

// data is what a replica holds.
func (f *fleet) data(id cairn.ReplicaID) string {
	return f.nodes[f.View().Replica(id).Node].disk.objects[id].data
}

func (f *fleet) promote(id cairn.ReplicaID) {
	f.Helper()
	f.must(f, &fsm.PromoteShare{Share: fleetShare, Replica: id, Task: cairn.TaskID(fmt.Sprint("t", f.index))})
	f.settle()
	if active := f.View().Share(fleetShare).Active; active != id || f.View().Task(fleetShare).Running() {
		f.Fatalf("promotion of %s: active is %s, task %+v", id, active, f.View().Task(fleetShare))
	}
}

// down cuts a node off and lets the cluster know. Its process goes on with what it had.
func (f *fleet) down(id cairn.NodeID) {
	f.nodes[id].cut = true
	f.must(f, &fsm.SetNodeState{Node: id, State: cairn.NodeDown})
	f.settle()
}

// up brings a node back after a restart of its process.
func (f *fleet) up(id cairn.NodeID) {
	m := f.nodes[id]
	m.cut = false
	f.restart(m)
	f.must(f, &fsm.SetNodeState{Node: id, State: cairn.NodeUp})
	f.settle()
}

// failover has a standby taken over, and lets the actors do it.
func (f *fleet) failover(to cairn.ReplicaID, keep cairn.SnapshotID) {
	f.Helper()
	f.decide(to, keep)
	f.settle()
}

// decide does what the leader does: asks the standby how far it is, and proposes.
func (f *fleet) decide(to cairn.ReplicaID, keep cairn.SnapshotID) {
	f.Helper()
	f.propose(to, keep, f.ask(to))
}

// ask is how far a standby says that it is.
func (f *fleet) ask(standby cairn.ReplicaID) SyncState {
	f.Helper()
	states := f.nodes[f.View().Replica(standby).Node].actor.SyncStates([]cairn.ReplicaID{standby})
	if len(states) != 1 || states[0].Newest == "" {
		f.Fatalf("%s knows nothing of itself: %+v", standby, states)
	}
	return states[0]
}

// propose makes a standby active on what it told.
func (f *fleet) propose(to cairn.ReplicaID, keep cairn.SnapshotID, told SyncState) {
	f.Helper()
	result, err := f.Apply(f.Context(), fsm.Meta{At: 1}, &fsm.FailoverShares{Failovers: []fsm.Failover{{
		Share: fleetShare, Replica: to, Epoch: f.View().Replica(to).Epoch, Snapshot: told.Newest, Window: int64(f.now().Sub(told.AsOf)), Keep: keep,
	}}})
	if err != nil || result.Err != nil || result.Each[0] != nil {
		f.Fatal(err, result.Err, result.Each)
	}
}

func (f *fleet) expect(id cairn.ReplicaID, state cairn.ReplicaState, data string) {
	f.Helper()
	row := f.View().Replica(id)
	if row.State != state || f.data(id) != data || !row.Have.Fault.Healthy() {
		f.Errorf("%s is %s with %q (fault %q); want %s with %q", id, row.State, f.data(id), row.Have.Fault.Message, state, data)
	}
}
