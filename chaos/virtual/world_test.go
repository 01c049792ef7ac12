package virtual

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/fsm"
)

// world is one cluster with its users, in one bubble.
type world struct {
	t         *testing.T
	seed      uint64
	verbose   bool
	network   *network
	machines  []*machine
	shares    []cairn.ShareID
	history   *history
	agreement *agreement
	began     time.Time
	done      map[string]int // what has happened, for the report

	mu     sync.Mutex
	random *rand.Rand
	tokens int
	trace  []string
}

// newWorld makes a cluster of 3 to 5 machines with 1 to 3 replicated shares, as the seed says.
func newWorld(t *testing.T, seed uint64, dir string) *world {
	w := &world{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), network: newNetwork(rand.New(rand.NewPCG(seed, 2))),
		began: time.Now(), done: make(map[string]int), verbose: os.Getenv("CAIRN_VIRTUAL_VERBOSE") != "",
	}
	w.history = &history{world: w}
	w.agreement = newAgreement()
	for i := range []int{3, 3, 3, 5}[w.pick(4)] {
		w.machines = append(w.machines, w.newMachine(i+1, dir))
	}
	return w
}

func (w *world) newMachine(number int, dir string) *machine {
	name := fmt.Sprintf("n%d", number)
	m := &machine{world: w, number: number, name: name, dir: filepath.Join(dir, name), address: fmt.Sprintf("10.0.0.%d:7450", number)}
	m.shelf = &shelf{objects: make(map[cairn.ReplicaID]*object)}
	return m
}

func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

func (w *world) chance(percent int) bool { return w.pick(100) < percent }

// some is a time up to most.
func (w *world) some(most time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.random.Int64N(int64(most)))
}

func (w *world) token() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens++
	return fmt.Sprint("token-", w.tokens)
}

// note remembers what has happened, for whoever has to find out why it went wrong.
func (w *world) note(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[kind]++
	text := fmt.Sprintf("%12s %s", time.Since(w.began).Round(time.Millisecond), fmt.Sprintf(format, args...))
	if w.trace = append(w.trace, text); len(w.trace) > 400 {
		w.trace = w.trace[100:]
	}
	if w.verbose {
		w.t.Log(text)
	}
}

// fail ends the run with a violation. It must be called on the goroutine of the test.
func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.mu.Lock()
	trace := strings.Join(w.trace, "\n")
	w.mu.Unlock()
	var said strings.Builder
	for _, m := range w.machines {
		fmt.Fprintf(&said, "%s said:\n%s", m.name, &m.log)
	}
	w.t.Errorf("seed %d: %s\n%s\nhistory:\n%s\n%s", w.seed, fmt.Sprintf(format, args...), w.describe(), trace, &said)
}

func (w *world) describe() string {
	var b strings.Builder
	for _, m := range w.machines {
		p := m.process
		if p == nil {
			fmt.Fprintf(&b, "%s: down\n", m.name)
			continue
		}
		status := p.member.Status()
		fmt.Fprintf(&b, "%s (%s): leads %v, leader %s, term %d, applied %d, state %d %016x, lease %s\n",
			m.name, p.self, p.member.IsLeader(), status.Leader, status.Term, status.Applied, p.member.View().Index(), p.member.View().Digest(), status.Lease)
		for row := range p.member.View().ReplicasOn(p.self) {
			fmt.Fprintf(&b, "   %s %s %s epoch %d generation %d want %+v have %+v\n      %+v\n", row.ID, row.Role, row.State, row.Epoch, row.Generation, row.Want, row.Have, p.actor.SyncStates([]cairn.ReplicaID{row.ID}))
		}
	}
	return b.String()
}

// up lists the machines with a process that nobody has stopped.
func (w *world) up() (up []*machine) {
	for _, m := range w.machines {
		if m.process != nil {
			up = append(up, m)
		}
	}
	return up
}

// leader is who believes to lead, or nil.
func (w *world) leader() *process {
	for _, m := range w.up() {
		if m.process.member.IsLeader() {
			return m.process
		}
	}
	return nil
}

// wait lets time pass until the condition holds.
func (w *world) wait(what string, most time.Duration, holds func() bool) bool {
	w.t.Helper()
	for begin := time.Now(); !holds(); {
		if time.Since(begin) > most {
			w.fail("not within %s: %s", most, what)
			return false
		}
		time.Sleep(scale * 100 * time.Millisecond)
	}
	return true
}

// found makes the cluster: every machine joins with a token, as in life.
func (w *world) found() bool {
	first := w.machines[0]
	if _, err := cluster.Init(cluster.InitConfig{DataDir: first.dir, NodeName: first.name, ClusterName: "virtual", Hosts: []string{"10.0.0.1"}}); err != nil {
		w.t.Fatal(err)
	}
	first.process = first.boot()
	for _, m := range w.machines[1:] {
		joined := w.wait("a node joins", scale*time.Minute, func() bool {
			p := w.leader()
			if p == nil {
				return false
			}
			ctx, cancel := context.WithTimeout(w.t.Context(), scale*time.Minute)
			defer cancel()
			token, _, err := p.member.CreateToken(ctx, w.meta(), m.name, 0)
			if err != nil {
				return false
			}
			_, err = cluster.Join(ctx, cluster.JoinConfig{DataDir: m.dir, Token: token, Hosts: []string{"10.0.0.1"}, Dial: m.dial})
			if err != nil && !errors.Is(err, cairn.ErrUnavailable) {
				w.t.Fatal(err)
			}
			return err == nil
		})
		if !joined {
			return false
		}
		m.process = m.boot()
	}
	return w.wait("all vote", scale*time.Minute, func() bool {
		p := w.leader()
		if p == nil {
			return false
		}
		votes := 0
		for _, member := range p.member.Status().Members {
			if member.Votes && member.Node.State == cairn.NodeUp {
				votes++
			}
		}
		return votes == len(w.machines)
	}) && w.populate()
}

func (w *world) meta() fsm.Meta { return fsm.Meta{At: time.Now().UnixNano(), Actor: "user/test"} }

// populate makes the shares, each with replicas on two or three nodes.
func (w *world) populate() bool {
	w.must(&fsm.CreateType{Type: cairn.ShareType{
		Name: "ha", Format: cairn.FormatFiles, Replication: cairn.ReplicationDR, Failover: cairn.FailoverAuto,
		Snapshots: true, Revert: true, Specs: map[string]string{replica.IntervalSpec: (scale * 10 * time.Second).String()},
	}})
	for n := range 1 + w.pick(3) {
		share := cairn.ShareID(fmt.Sprint("s", n+1))
		create := &fsm.CreateShare{Share: cairn.Share{
			ID: share, Project: cairn.DefaultProject, Name: string(share), Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "ha", Size: 1 << 30,
		}}
		homes := w.order(len(w.machines))[:2+w.pick(2)]
		for i, home := range homes {
			create.Replicas = append(create.Replicas, fsm.Placement{
				ID: cairn.ReplicaID(fmt.Sprintf("%s-r%d", share, i+1)), Pool: cairn.MakePoolID(w.machines[home].process.self, "tank"),
			})
		}
		w.must(create)
		w.shares = append(w.shares, share)
	}
	return w.wait("all shares are in sync", scale*time.Minute, w.healthy)
}

func (w *world) order(n int) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.Perm(n)
}

// must has a command decided; it may be decided twice.
func (w *world) must(c fsm.Command) {
	w.t.Helper()
	w.wait(fmt.Sprintf("%T", c), scale*time.Minute, func() bool {
		p := w.leader()
		if p == nil {
			return false
		}
		result, err := p.member.Apply(w.t.Context(), w.meta(), c)
		if err == nil && result.Err != nil && !errors.Is(result.Err, cairn.ErrUnavailable) {
			w.t.Fatalf("%T: %v", c, result.Err)
		}
		return err == nil
	})
}

// healthy: every share is served by one, and all others are in sync with it.
func (w *world) healthy() bool {
	p := w.leader()
	if p == nil {
		return false
	}
	v := p.member.View()
	for _, share := range w.shares {
		row := v.Share(share)
		if row == nil || row.Status != cairn.StatusAvailable || v.Task(share).Running() || !row.Fault.Healthy() {
			return false
		}
		for r := range v.ReplicasOf(share) {
			if !r.Settled() || !r.Have.Fault.Healthy() || r.Role == cairn.RoleStandby && r.State != cairn.ReplicaInSync {
				return false
			}
		}
		if _, served := w.servedBy(share); !served {
			return false
		}
	}
	return !slices.ContainsFunc(w.machines, func(m *machine) bool { return m.process == nil || !m.process.member.LeaseValid() })
}

func (w *world) servedBy(share cairn.ShareID) (*process, bool) {
	for _, m := range w.up() {
		if _, ok := m.process.exporter.writable(share); ok {
			return m.process, true
		}
	}
	return nil, false
}
