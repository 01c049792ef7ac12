package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/fsm"
)

// fixture is a real state machine behind a log that a test can fail, and nodes that say how far their standbys are. Nodes are
// n1, n2, ...; the replicas of share x are x1 on n1 (active), x2 on n2, and so on.
type fixture struct {
	*testing.T
	machine *fsm.Machine
	logged  bytes.Buffer
	unread  atomic.Bool // reads fail

	mu       sync.Mutex
	index    uint64
	commands []string
	// before sees a command of the controller; apply says whether it is applied, err is what the controller is told.
	before func(fsm.Command) (apply bool, err error)
	refuse error // what the state machine says to a failover
	states map[cairn.ReplicaID]replica.SyncState
	asked  []string
	// slow nodes answer after a delay, if the context does not end before.
	slow map[cairn.NodeID]time.Duration
	// withheld is whose lease was, and at the end of which entry it may have one again, in order with the commands.
	withheld []string
	deposed  bool // another one leads by now
	// between runs after the last answer, before the controller has it.
	between func()
}

func newFixture(t *testing.T, nodes int) *fixture {
	f := &fixture{
		T: t, machine: fsm.New(), states: make(map[cairn.ReplicaID]replica.SyncState), slow: make(map[cairn.NodeID]time.Duration),
	}
	f.must(&fsm.InitCluster{
		Cluster: cairn.Cluster{ID: "cluster-1", Name: "test", CAFingerprint: strings.Repeat("0", 64)},
		Admin:   cairn.User{Name: "admin", Role: cairn.UserAdmin, Serial: "01"},
	})
	for i := range nodes {
		f.addNode(i + 1)
	}
	for name, kind := range map[string]cairn.ShareType{
		"auto":   {Failover: cairn.FailoverAuto},
		"manual": {Failover: cairn.FailoverManual},
		"strict": {Failover: cairn.FailoverAuto, MaxRPO: int64(30 * time.Second)},
	} {
		kind.Name, kind.Format, kind.Replication = name, cairn.FormatFiles, cairn.ReplicationDR
		f.must(&fsm.CreateType{Type: kind})
	}
	return f
}

// set changes what nodes answer, or what becomes of commands, while a controller runs.
func (f *fixture) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func nodeID(i int) cairn.NodeID { return cairn.NodeID(fmt.Sprint("n", i)) }

func (f *fixture) addNode(i int) {
	f.Helper()
	id := nodeID(i)
	if i > 1 {
		token := cairn.TokenID(fmt.Sprint("token-", i))
		f.must(&fsm.CreateJoinToken{Token: cairn.JoinToken{ID: token, Node: id, Name: string(id), SecretHash: hash(), ExpiresAt: 1 << 62}})
		f.must(&fsm.ConsumeJoinToken{ID: token, SecretHash: hash(), KeyHash: hash()})
	}
	f.must(&fsm.RegisterNode{Node: cairn.Node{ID: id, Name: string(id), Address: "127.0.0.1:1", HTTPAddress: "127.0.0.1:2", CommandVersion: 1}})
	f.must(&fsm.RegisterPools{Node: id, Pools: []cairn.Pool{pool(id)}})
}

func pool(id cairn.NodeID) cairn.Pool {
	return cairn.Pool{
		ID: cairn.MakePoolID(id, "p"), Node: id, Name: "p", Driver: "dir", Total: 1 << 50, OverSubscriptionPercent: 100,
		Capabilities: []cairn.Capability{cairn.CapReplicate}, Protocols: []cairn.Protocol{cairn.ProtocolWebDAV},
	}
}

func hash() []byte { return bytes.Repeat([]byte{7}, 32) }

func (f *fixture) apply(meta fsm.Meta, c fsm.Command) (fsm.Result, error) {
	data, err := fsm.Encode(meta, c)
	if err != nil {
		return fsm.Result{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index++
	return f.machine.Apply(f.index, data), nil
}

// must applies a command that is not the controller's.
func (f *fixture) must(c fsm.Command) {
	f.Helper()
	result, err := f.apply(fsm.Meta{At: time.Now().UnixNano(), Actor: "user/admin"}, c)
	if err := errors.Join(append(result.Each, err, result.Err)...); err != nil {
		f.Fatalf("%T: %v", c, err)
	}
}

// share makes an available share with its replicas on these nodes, the first of them active, the others in sync with sync
// point 1 of epoch 1.
func (f *fixture) share(name, kind string, nodes ...int) {
	f.Helper()
	f.must(createShare(name, kind, nodes...))
	for i, node := range nodes {
		f.report(name, node, func(h *cairn.ReplicaHave) { h.InSync = i > 0 })
		if i > 0 {
			f.synced(name, node, 1, 1, time.Second)
		}
	}
}

func createShare(name, kind string, nodes ...int) *fsm.CreateShare {
	c := &fsm.CreateShare{Share: cairn.Share{
		ID: cairn.ShareID(name), Project: cairn.DefaultProject, Name: name, Format: cairn.FormatFiles,
		Protocol: cairn.ProtocolWebDAV, Type: kind, Size: 1 << 20,
	}}
	for _, node := range nodes {
		c.Replicas = append(c.Replicas, fsm.Placement{ID: copyOf(name, node), Pool: cairn.MakePoolID(nodeID(node), "p")})
	}
	return c
}

func copyOf(share string, node int) cairn.ReplicaID {
	return cairn.ReplicaID(fmt.Sprintf("%s-%d", share, node))
}

// report answers for the newest generation of a replica.
func (f *fixture) report(share string, node int, edit func(*cairn.ReplicaHave)) {
	f.Helper()
	row := f.View().Replica(copyOf(share, node))
	have := cairn.ReplicaHave{Presence: cairn.Present, Size: row.Want.Size}
	edit(&have)
	f.must(&fsm.ReportReplica{Node: row.Node, Replica: row.ID, Generation: row.Generation, Epoch: row.Epoch, Have: have})
}

// synced lets a node say that its standby has a sync point, and how old that is.
func (f *fixture) synced(share string, node int, epoch, seq uint64, age time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := copyOf(share, node)
	point := replica.SyncPoint{Epoch: epoch, Seq: seq, At: time.Now().Add(-age)}
	f.states[id] = replica.SyncState{Replica: id, Newest: point.ID(), AsOf: time.Now().Add(-age)}
}

func (f *fixture) down(node int) {
	f.Helper()
	f.must(&fsm.SetNodeState{Node: nodeID(node), State: cairn.NodeDown})
}

func (f *fixture) up(node int) {
	f.Helper()
	f.must(&fsm.SetNodeState{Node: nodeID(node), State: cairn.NodeUp})
}

func (f *fixture) View() *fsm.View                       { return f.machine.View() }
func (f *fixture) Subscribe(n func([]fsm.Change)) func() { return f.machine.Subscribe(n) }

func (f *fixture) ReadView(context.Context) (*fsm.View, error) {
	if f.unread.Load() {
		return nil, fmt.Errorf("no leader: %w", cairn.ErrUnavailable)
	}
	return f.machine.View(), nil
}

// Apply is the controller's.
func (f *fixture) Apply(_ context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error) {
	f.mu.Lock()
	f.commands = append(f.commands, describe(c))
	before, refuse := f.before, f.refuse
	f.mu.Unlock()
	if refuse != nil {
		return fsm.Result{Each: []error{refuse}}, nil
	}
	if before != nil {
		apply, err := before(c)
		if !apply {
			return fsm.Result{}, err
		}
		if err != nil {
			_, _ = f.apply(meta, c) // it happened, and nobody is told how it went
			return fsm.Result{}, err
		}
	}
	return f.apply(meta, c)
}

func describe(c fsm.Command) string {
	switch c := c.(type) {
	case *fsm.FailoverShares:
		if len(c.Failovers) > 3 {
			return fmt.Sprintf("failover of %d", len(c.Failovers))
		}
		text := "failover"
		for _, p := range c.Failovers {
			text += fmt.Sprintf(" %s -%s", p.Replica, time.Duration(p.Window).Round(time.Millisecond))
		}
		return text
	case *fsm.PromoteShare:
		return "promote " + string(c.Replica)
	case *fsm.StopTask:
		return "cancel " + string(c.Share)
	}
	return fmt.Sprintf("%T", c)
}

// SyncStates is what nodes answer.
func (f *fixture) SyncStates(ctx context.Context, node cairn.NodeID, ids []cairn.ReplicaID) ([]replica.SyncState, error) {
	f.mu.Lock()
	f.asked = append(f.asked, fmt.Sprintf("%s %d", node, len(ids)))
	delay, between := f.slow[node], f.between
	f.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if between != nil {
		between()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var states []replica.SyncState
	for _, id := range ids {
		if state, ok := f.states[id]; ok {
			states = append(states, state)
		}
	}
	return states, nil
}

// Withhold remembers when, and when it was over.
func (f *fixture) Withhold(_ context.Context, node cairn.NodeID) (holds func() bool, release func(uint64), err error) {
	note := func(text string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.withheld = append(f.withheld, fmt.Sprintf("%s %s, commands %d", node, text, len(f.commands)))
	}
	note("withheld")
	holds = func() bool { return !f.deposed }
	return holds, func(index uint64) { note(fmt.Sprintf("released at %t", index == f.machine.View().Index())) }, nil
}

func (f *fixture) controller() *Controller {
	return New(Config{Viewer: f, Applier: f, Asker: f, Leases: f, Changes: f, Logger: slog.New(slog.NewTextHandler(&f.logged, nil))})
}

// lead runs a term and returns what ends it.
func (f *fixture) lead(c *Controller) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	synctest.Wait()
	return func() {
		cancel()
		<-done
	}
}

// after lets time pass, and everything happen that is due by then.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// wantCommands compares what the controller has proposed since the last call.
func (f *fixture) wantCommands(want ...string) {
	f.Helper()
	synctest.Wait()
	f.mu.Lock()
	got := f.commands
	f.commands = nil
	f.mu.Unlock()
	if !slices.Equal(got, want) {
		f.Errorf("proposed %q, want %q", got, want)
	}
}

func (f *fixture) wantActive(share string, node int) {
	f.Helper()
	if got := f.View().Share(cairn.ShareID(share)).Active; got != copyOf(share, node) {
		f.Errorf("share %s: active is %s, want it on node %d", share, got, node)
	}
}

func (f *fixture) wantReason(c *Controller, share, want string) {
	f.Helper()
	if got := c.Reason(cairn.ShareID(share)); want == "" && got != "" || !strings.Contains(got, want) {
		f.Errorf("share %s: reason %q, want %q", share, got, want)
	}
}
