package replica

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/actors/sim"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

var simSeed = flag.Uint64("sim.seed", 0, "run only the simulation with this seed, and print its trace")

// simulation is users, a state machine, the runtime, the actor, a pool and an exporter in one thread.
type simulation struct {
	*sim.World
	*state
	disk      *memory
	exporter  *memoryExporter
	runtime   *actors.Runtime
	faults    bool
	usersDone bool
	actions   int // of the users
	count     int
	refusals  int
	// content is what the last acknowledged write left in a replica, or the revert after it.
	content map[cairn.ReplicaID]string
}

func newSimulation(t testing.TB, seed uint64, actions int) *simulation {
	s := &simulation{actions: actions, disk: newMemory("memory"), faults: true, content: make(map[cairn.ReplicaID]string)}
	s.World = sim.New(seed, nil)
	if *simSeed != 0 {
		s.World = sim.New(seed, os.Stderr)
	}
	pool := &memoryPool{memory: s.disk, do: s.storage}
	s.exporter = &memoryExporter{do: s.storage, specs: make(map[drivers.ExportID]drivers.ExportSpec)}
	s.state = newState(t, drivers.CapabilitiesOf(pool))
	actor := New(Config{
		Node: node1, Viewer: s.state, Applier: s, Now: s.Now,
		Pools:     map[cairn.PoolID]drivers.Pool{poolOne: pool},
		Exporters: map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: s.exporter},
	})
	s.runtime = actors.New(actors.Config{Clock: s.World, Executor: s.World, Random: rand.NewPCG(seed, 1), Parallel: 3})
	s.runtime.Handle(cairn.KindReplica, actor)
	s.runtime.Handle(cairn.KindPool, &Sweeper{Actor: actor, Wake: s.runtime.Wake})
	s.machine.Subscribe(func(changes []fsm.Change) { s.runtime.WakeAll(Woken(s.View(), node1, changes)) })
	s.runtime.WakeAll(Keys(s.View(), node1))
	s.Go(s.users)
	return s
}

// storage takes a while, and sometimes times out before or after it did its work.
func (s *simulation) storage(_ context.Context, name string, change func() error) error {
	s.Tracef("%s", name)
	s.Sleep(time.Duration(s.Random.IntN(20)) * time.Millisecond)
	if s.unlucky() {
		return fmt.Errorf("%s: did nothing: %w", name, cairn.ErrTimeout)
	}
	if err := change(); err != nil {
		return err
	}
	if s.unlucky() {
		return fmt.Errorf("%s: did it and did not say so: %w", name, cairn.ErrTimeout)
	}
	return nil
}

func (s *simulation) unlucky() bool { return s.faults && s.Random.IntN(20) == 0 }

// Apply takes a while, and sometimes loses the request or the answer.
func (s *simulation) Apply(ctx context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error) {
	s.Sleep(time.Duration(s.Random.IntN(5)) * time.Millisecond)
	if s.unlucky() {
		return fsm.Result{}, cairn.ErrUnknownOutcome
	}
	result, err := s.state.Apply(ctx, meta, c)
	s.Tracef("report %d %v %x", result.Index, result.Err, s.View().Digest())
	if s.unlucky() {
		return fsm.Result{}, cairn.ErrUnknownOutcome
	}
	return result, err
}

func (s *simulation) users() {
	for range s.actions {
		s.Sleep(time.Duration(s.Random.IntN(300)) * time.Millisecond)
		if s.Random.IntN(3) == 0 {
			s.write()
			continue
		}
		c := s.command()
		err := s.try(c)
		s.Tracef("user %T %v", c, err)
		if err != nil {
			s.refusals++
		}
		if revert, ok := c.(*fsm.RevertShare); ok && err == nil {
			replica := s.View().Share(revert.ID).Active
			s.content[replica] = s.disk.objects[replica].snapshots[revert.Snapshot]
		}
	}
	s.usersDone, s.faults = true, false
}

// write is a client's. It is acknowledged if the replica is served; while a revert is wanted it may be lost all the same.
func (s *simulation) write() {
	share := s.pick()
	if share == nil {
		return
	}
	if _, served := s.exporter.specs[drivers.ExportID{Replica: share.Active}]; !served {
		return
	}
	object := s.disk.objects[share.Active]
	s.count++
	object.data = fmt.Sprint("write ", s.count)
	s.disk.objects[share.Active] = object
	if s.View().Replica(share.Active).Want.Revert == "" {
		s.content[share.Active] = object.data
	}
}

func (s *simulation) pick() *cairn.Share {
	shares := slices.Collect(s.View().Shares(""))
	if len(shares) == 0 {
		return nil
	}
	return shares[s.Random.IntN(len(shares))]
}

// command is any wish, many of which the state machine refuses.
func (s *simulation) command() fsm.Command {
	s.count++
	id := fmt.Sprint(s.count)
	share := s.pick()
	if share == nil || s.Random.IntN(6) == 0 {
		return createShare(id)
	}
	var snapshot cairn.SnapshotID
	for snap := range s.View().SnapshotsOf(share.ID) {
		snapshot = snap.ID // the newest
	}
	task := cairn.TaskID("task-" + id)
	switch s.Random.IntN(9) {
	case 0:
		return &fsm.DeleteShare{ID: share.ID}
	case 1:
		return &fsm.ResizeShare{ID: share.ID, Size: int64(1+s.Random.IntN(100)) * mib, Task: task}
	case 2, 3:
		return &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: cairn.SnapshotID("snap-" + id), Share: share.ID, Name: "snap-" + id}}
	case 4:
		return &fsm.DeleteSnapshot{ID: snapshot}
	case 5, 6:
		return &fsm.RevertShare{ID: share.ID, Snapshot: snapshot, Task: task}
	case 7:
		return createShare(id, func(c *fsm.CreateShare) { c.Share.Source = snapshot })
	}
	target := []cairn.SnapshotID{"", snapshot}[s.Random.IntN(2)]
	rule := cairn.AccessRule{ID: cairn.RuleID("rule-" + id), Share: share.ID, Snapshot: target, Kind: cairn.AccessIP, Who: "10.0.0." + id[len(id)-1:], Level: cairn.AccessRO}
	if s.Random.IntN(2) == 0 {
		return &fsm.SetAccess{Share: share.ID, Snapshot: target}
	}
	return &fsm.AllowAccess{Rule: rule}
}

// settled: the users are gone, and everything that they asked for is done.
func (s *simulation) settled() bool {
	if !s.usersDone || s.runtime.Stats().Running > 0 || s.runtime.Stats().Queued > 0 {
		return false
	}
	for row := range s.View().Replicas() {
		if !row.Settled() || row.Want.Presence != row.Have.Presence || s.View().Task(row.Share).Running() {
			return false
		}
		for i := range s.View().InstancesOn(row.ID) {
			if i.Want != i.Have || !i.Fault.Healthy() {
				return false
			}
		}
	}
	return true
}

// check compares the rows with the disk and the exports.
func (s *simulation) check() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	v := s.View()
	rows := 0
	for row := range v.Replicas() {
		rows++
		object, ok := s.disk.objects[row.ID]
		if !ok || object.Size != row.Want.Size {
			report("replica %s: object %+v, want one of %d bytes", row.ID, object.Object, row.Want.Size)
		}
		if want, written := s.content[row.ID]; written && object.data != want {
			report("replica %s holds %q, want %q", row.ID, object.data, want)
		}
		snapshots := 0
		for i := range v.InstancesOn(row.ID) {
			snapshots++
			if _, ok := object.snapshots[i.Snapshot]; !ok || i.Have != cairn.Present || v.Snapshot(i.Snapshot).Status != cairn.StatusAvailable {
				report("snapshot %s: %+v", i.Snapshot, i)
			}
		}
		if len(object.snapshots) != snapshots {
			report("replica %s: %d snapshots on disk, %d rows", row.ID, len(object.snapshots), snapshots)
		}
		spec, served := s.exporter.specs[drivers.ExportID{Replica: row.ID}]
		rules := slices.Collect(v.RulesOf(row.Share, ""))
		if !served || len(spec.Rules) != len(rules) || spec.Size != row.Want.Size {
			report("replica %s: served %t with %+v, want rules %+v", row.ID, served, spec, rules)
		}
	}
	if len(s.disk.objects) != rows {
		report("%d objects for %d replicas", len(s.disk.objects), rows)
	}
	for rule := range func(yield func(*cairn.AccessRule) bool) {
		for share := range v.Shares("") {
			for rule := range v.RulesOf(share.ID, "") {
				yield(rule)
			}
		}
	} {
		if rule.State != cairn.RuleActive {
			report("rule %s is %s", rule.ID, rule.State)
		}
	}
	return errors.Join(problems...)
}

func simulate(t testing.TB, seed uint64, actions int) uint64 {
	t.Helper()
	s := newSimulation(t, seed, actions)
	if !s.RunUntil(s.settled, 200_000) {
		var waiting []string
		for row := range s.View().Replicas() {
			waiting = append(waiting, fmt.Sprintf("%+v", *row))
		}
		t.Fatalf("seed %d: does not settle: %s", seed, strings.Join(waiting, "\n"))
	}
	if err := s.check(); err != nil {
		t.Fatalf("seed %d (run again with -sim.seed=%d): %v", seed, seed, err)
	}
	return s.Hash()
}

// TestSimulation runs users against the real runtime, actor and state machine, with storage and a log that fail at random.
// Everything must converge, no object may be left over, and no acknowledged write may be lost.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		t.Logf("trace %x", simulate(t, *simSeed, 100))
		return
	}
	first := rand.Uint64()
	t.Logf("seeds %d and the 49 after it", first)
	for i := range uint64(50) {
		simulate(t, first+i, 100)
	}
}

func TestSameSeedSameTrace(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	want, others := simulate(t, seed, 25), make(map[uint64]bool)
	for i := range uint64(100) {
		if got := simulate(t, seed, 25); got != want {
			t.Fatalf("run %d: trace %x, want %x", i+1, got, want)
		}
		if i%5 == 0 {
			others[simulate(t, seed+1+i, 25)] = true
		}
	}
	if len(others) != 20 || others[want] {
		t.Errorf("20 other seeds gave %d different traces, or the same as the first", len(others))
	}
}
