package drivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// usualEvery is one in how many crash points CrashSweep tries where nothing else is said.
const usualEvery = 3

// sweepPatience bounds one scenario at one crash point.
const sweepPatience = time.Minute

// scenario is a state of the storage, and the action that is going to be interrupted.
type scenario struct {
	name   string
	before []Action
	action Action
	after  cairn.ReplicaID // what the action leaves, with its epoch; "" if nothing
}

var scenarios = []scenario{
	{"create", nil, create("r1", actionEpoch, gib), "r1"},
	{"delete", []Action{create("r1", 1, gib), fill("r1", "one")}, remove("r1", actionEpoch), ""},
	{"grow", []Action{create("r1", 1, gib)}, resize("r1", actionEpoch, 2*gib), "r1"},
	{"shrink", []Action{create("r1", 1, gib), fill("r1", "one")}, resize("r1", actionEpoch, gib/2), "r1"},
	{"snapshot create", []Action{create("r1", 1, gib), fill("r1", "one")}, snapshot("r1", actionEpoch, "s1"), "r1"},
	{"snapshot create beside another", withSnapshot, snapshot("r1", actionEpoch, "s2"), "r1"},
	{"snapshot delete", withSnapshot, removeSnapshot("r1", actionEpoch, "s1"), "r1"},
	{"revert", withSnapshot, revert("r1", actionEpoch, "s1"), "r1"},
	{
		"revert again after writes",
		append(slices.Clone(withSnapshot), revert("r1", 1, "s1"), fill("r1", "three")),
		revert("r1", actionEpoch, "s1"),
		"r1",
	},
	{"revert past a newer snapshot", withNewer, revert("r1", actionEpoch, "s1"), "r1"},
	{"revert to a newer snapshot", append(slices.Clone(withNewer), revert("r1", 1, "s1")), revert("r1", actionEpoch, "s2"), "r1"},
	{"snapshot delete of what was reverted to", append(slices.Clone(withNewer), revert("r1", 1, "s1")), removeSnapshot("r1", actionEpoch, "s1"), "r1"},
	{"snapshot delete of what is newer", append(slices.Clone(withNewer), revert("r1", 1, "s1")), removeSnapshot("r1", actionEpoch, "s2"), "r1"},
	{"clone", withSnapshot, clone("r2", actionEpoch, "r1", "s1"), "r2"},
	{"adopt", []Action{plant("theirs", "one")}, adopt("r1", actionEpoch, "theirs"), "r1"},
	{"release", []Action{create("r1", 1, gib), fill("r1", "one")}, release("r1", actionEpoch, "theirs"), ""},
	{"snapshot adopt", withForeign, adoptSnapshot("r1", actionEpoch, "s1", "theirs"), "r1"},
	{"snapshot release", append(slices.Clone(withForeign), adoptSnapshot("r1", 1, "s1", "theirs")), releaseSnapshot("r1", actionEpoch, "s1", "ours"), "r1"},
	{"snapshot release of one of ours", withSnapshot, releaseSnapshot("r1", actionEpoch, "s1", "ours"), "r1"},
	{"seal", []Action{create("r1", 1, gib), fill("r1", "one")}, seal("r1", actionEpoch), "r1"},
	{"unseal", []Action{create("r1", 1, gib), seal("r1", 1)}, unseal("r1", actionEpoch), "r1"},
	{
		"group snapshot",
		[]Action{create("r1", 1, gib), fill("r1", "one"), create("r2", 1, gib), fill("r2", "two")},
		groupSnapshot(drivers.Cut{Replica: "r1", Epoch: actionEpoch, Snapshot: "s1"}, drivers.Cut{Replica: "r2", Epoch: actionEpoch, Snapshot: "s2"}),
		"r1",
	},
	{"receive", withSnapshot, transfer("r1", "r2", actionEpoch, "s1", ""), "r2"},
	{"receive on", withTransferred, transfer("r1", "r2", actionEpoch, "s2", "s1"), "r2"},
	{"receive what broke off", append(slices.Clone(withSnapshot), breakOff("r1", "r2", 1, "s1", "")), transfer("r1", "r2", actionEpoch, "s1", ""), "r2"},
	{"receive on what broke off", append(slices.Clone(withTransferred), breakOff("r1", "r2", 1, "s2", "s1")), transfer("r1", "r2", actionEpoch, "s2", "s1"), "r2"},
	{"abandon", append(slices.Clone(withSnapshot), breakOff("r1", "r2", 1, "s1", "")), abandon("r2", actionEpoch), ""},
	{"abandon what goes on", append(slices.Clone(withTransferred), breakOff("r1", "r2", 1, "s2", "s1")), abandon("r2", actionEpoch), "r2"},
}

// withSnapshot is a replica that has moved on since its snapshot.
var withSnapshot = []Action{create("r1", 1, gib), fill("r1", "one"), snapshot("r1", 1, "s1"), fill("r1", "two")}

// withNewer is a replica that has moved on since two.
var withNewer = append(slices.Clone(withSnapshot), snapshot("r1", 1, "s2"), fill("r1", "three"))

// withForeign is a replica that has moved on since somebody else has cut a snapshot.
var withForeign = []Action{create("r1", 1, gib), fill("r1", "one"), plantSnapshot("r1", "theirs"), fill("r1", "two")}

// withTransferred is a replica with a copy that has its first snapshot and not yet its second.
var withTransferred = append(slices.Clone(withSnapshot), transfer("r1", "r2", 1, "s1", ""), snapshot("r1", 1, "s2"))

// bystanders stand there in every scenario and must never change: somebody else's object, and a replica of ours whose name
// begins like that of the one that is acted on.
var bystanders = []Action{plant("bystander", "not ours"), create("r10", 1, gib), fill("r10", "ten")}

// actionEpoch is the epoch of every interrupted action, higher than all before it.
const actionEpoch = 2

// Report is what a sweep found.
type Report struct {
	Scenarios int      // that were run
	Points    int      // crash points that were to be tried; there is one before and one after each step of each scenario
	Covered   int      // points at which the crash really happened
	Skipped   []string // scenarios that the pool has no capability for
	Failures  []string
}

// everyEnv is the environment's word on how many crash points a sweep tries: one in so many, all of them with 1.
const everyEnv = "CAIRN_SWEEP_EVERY"

// Every returns one in how many crash points a sweep is to try: what CAIRN_SWEEP_EVERY says, or else the usual number, which
// is what a quick run of all tests has time for.
func Every(t *testing.T, usual int) int {
	t.Helper()
	set, ok := os.LookupEnv(everyEnv)
	if !ok {
		return usual
	}
	every, err := strconv.Atoi(set)
	if err != nil || every < 1 {
		t.Fatalf("%s=%q: want a whole number from 1, which is every crash point", everyEnv, set)
	}
	return every
}

// seedEnv is the environment's word on which sweep is done again.
const seedEnv = "CAIRN_SEED"

// sweepSeed is drawn, unless CAIRN_SEED repeats an earlier sweep.
func sweepSeed(t *testing.T) uint64 {
	t.Helper()
	set, ok := os.LookupEnv(seedEnv)
	if !ok {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(set, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: want the number that a sweep has printed", seedEnv, set)
	}
	return seed
}

// CrashSweep fails the test for everything that Sweep finds.
func CrashSweep(t *testing.T, h Harness) {
	seed := sweepSeed(t)
	h.Every = Every(t, cmp.Or(h.Every, usualEvery))
	few, inFew := sparse(h.Every)
	t.Logf("crash sweep CAIRN_SEED=%d, one crash point in %d, of one scenario in %d", seed, inFew, few)
	report := Sweep(t, h, seed)
	t.Logf("crash points covered: %d of %d in %d scenarios, %d scenarios skipped %v",
		report.Covered, report.Points, report.Scenarios, len(report.Skipped), report.Skipped)
	if report.Covered != report.Points || report.Points == 0 {
		t.Errorf("crash points covered: %d of %d", report.Covered, report.Points)
	}
	for _, failure := range report.Failures {
		t.Error(failure)
	}
}

// Sweep runs every scenario once to count its steps, and then once for every crash point: before and after each step. It
// looks at what the crash left, lets the recovery be interrupted once more at a step that seed chooses, opens the pool
// again, repeats the action as an actor would, and compares with the clean run. t is only lent to the harness.
//
// Of what takes long a sample is tried, of one crash point in h.Every, that seed chooses.
func Sweep(t *testing.T, h Harness, seed uint64) Report {
	few, inFew := sparse(h.Every)
	wanted := int64((len(scenarios) + few - 1) / few)
	var swept atomic.Int64 // scenarios that had points
	sweepers := make([]sweeper, len(scenarios))
	var running errgroup.Group
	running.SetLimit(runtime.GOMAXPROCS(0))
	for _, at := range rand.New(rand.NewPCG(seed, uint64(len(scenarios)))).Perm(len(scenarios)) {
		running.Go(func() error {
			if swept.Load() >= wanted {
				return nil
			}
			s := &sweepers[at]
			*s = sweeper{t: t, h: h, sc: scenarios[at], every: inFew, r: rand.New(rand.NewPCG(seed, uint64(at)))}
			s.run()
			if s.report.Points > 0 {
				swept.Add(1)
				t.Logf("%s: %d of %d", s.sc.name, s.report.Covered, s.report.Points)
			}
			return nil
		})
	}
	_ = running.Wait() // none returns an error: what goes wrong is in the reports
	var report Report
	for _, s := range sweepers {
		report.Scenarios += s.report.Scenarios
		report.Points += s.report.Points
		report.Covered += s.report.Covered
		report.Skipped = append(report.Skipped, s.report.Skipped...)
		report.Failures = append(report.Failures, s.report.Failures...)
	}
	return report
}

// sparse says how one crash point in so many is chosen: one scenario in few, and one of its points in inFew. A scenario costs
// a clean run before the first of its points is tried.
func sparse(every int) (few, inFew int) {
	few = max(1, int(math.Sqrt(float64(every))))
	return few, max(1, every/few)
}

// sweeper sweeps one scenario.
type sweeper struct {
	t      *testing.T
	h      Harness
	sc     scenario
	every  int // one in how many of its crash points
	r      *rand.Rand
	report Report
}

func (s *sweeper) failf(format string, args ...any) {
	s.report.Failures = append(s.report.Failures, s.sc.name+": "+fmt.Sprintf(format, args...))
}

func (s *sweeper) run() {
	var want Observation
	counter := &crasher{}
	err := s.try(func(tr *trial) error {
		var err error
		if want, err = tr.run(counter); err != nil {
			return err
		}
		return tr.checkClean(want)
	})
	if errors.Is(err, cairn.ErrNotSupported) {
		s.report.Skipped = append(s.report.Skipped, s.sc.name)
		return
	}
	s.report.Scenarios++
	if err != nil {
		s.failf("without a crash: %v", err)
		return
	}
	points := s.r.Perm(2 * len(counter.names))
	points = points[:(len(points)+s.every-1)/s.every]
	slices.Sort(points)
	for _, point := range points {
		s.report.Points++
		crash := &crasher{at: 1 + point/2, after: point%2 == 1}
		if err := s.try(func(tr *trial) error { return s.point(tr, crash, want) }); err != nil {
			s.failf("crash %s step %d of %d (%s): %v", beforeOrAfter(crash.after), crash.at, len(counter.names), lastStep(crash), err)
		}
	}
}

func beforeOrAfter(after bool) string {
	if after {
		return "after"
	}
	return "before"
}

func lastStep(c *crasher) string {
	if len(c.names) == 0 {
		return "none"
	}
	return c.names[len(c.names)-1]
}

// trial is one run of one scenario over its own storage.
type trial struct {
	h       Harness
	sc      scenario
	ctx     context.Context
	storage Storage
	before  Observation
}

// try prepares the storage of the scenario and uses it: cairn.ErrNotSupported if the pool has not got what it takes.
func (s *sweeper) try(use func(*trial) error) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), cmp.Or(s.h.Patience, sweepPatience))
	defer cancel()
	storage, remove := s.h.New(s.t)
	defer remove()
	tr := &trial{h: s.h, sc: s.sc, ctx: ctx, storage: storage}
	if err := tr.open(through, tr.prepare); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return use(tr)
}

// checkClean holds the clean run itself to what crashes are compared with.
func (tr *trial) checkClean(want Observation) error {
	if len(want.Debris) > 0 {
		return fmt.Errorf("leaves %v", want.Debris)
	}
	for _, name := range []string{"foreign/bystander", "r10"} {
		if want.Prints[name] != tr.before.Prints[name] {
			return fmt.Errorf("%s has changed or is gone", name)
		}
	}
	gone := tr.sc.after == ""
	if object := want.object(tr.sc.after); !gone && (!object.Ready || object.Epoch != actionEpoch) {
		return fmt.Errorf("leaves %s with ready %t and epoch %d; want epoch %d", tr.sc.after, object.Ready, object.Epoch, actionEpoch)
	}
	return nil
}

func (tr *trial) prepare(p drivers.Pool) error {
	for _, action := range slices.Concat(bystanders, tr.sc.before) {
		if err := tr.do(p, action); err != nil {
			return err
		}
	}
	if !tr.sc.action.possible(p) {
		return fmt.Errorf("%s: %w", tr.sc.action.Name, cairn.ErrNotSupported)
	}
	var err error
	tr.before, err = Observe(tr.ctx, p, tr.storage, tr.h.Data)
	return err
}

func (tr *trial) do(p drivers.Pool, action Action) error {
	if !action.possible(p) {
		return fmt.Errorf("%s: %w", action.Name, cairn.ErrNotSupported)
	}
	if err := action.Do(tr.ctx, p, tr.storage, tr.h.Data); err != nil {
		return fmt.Errorf("%s: %w", action.Name, err)
	}
	return nil
}

// open opens the pool for as long as use takes.
func (tr *trial) open(step Step, use func(drivers.Pool) error) error {
	p, err := tr.storage.Open(tr.ctx, step)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	return errors.Join(use(p), tr.storage.Close(p))
}

// run opens the pool, performs the action, and observes. The steps of opening are crash points of the first scenario only:
// they are the same in all.
func (tr *trial) run(c *crasher) (Observation, error) {
	var seen Observation
	opened := tr.sc.name == scenarios[0].name
	step := func(name string, do func() error) error {
		if !opened {
			return do()
		}
		return c.step(name, do)
	}
	err := tr.open(step, func(p drivers.Pool) error {
		opened = true
		if err := tr.do(p, tr.sc.action); err != nil {
			return err
		}
		var err error
		seen, err = Observe(tr.ctx, p, tr.storage, tr.h.Data)
		return err
	})
	return seen, err
}

// point is one crash and everything that has to be true after it.
func (s *sweeper) point(tr *trial, crash *crasher, want Observation) error {
	if _, err := tr.run(crash); err == nil && !crash.dead {
		return fmt.Errorf("the run took only %d steps this time", len(crash.names))
	}
	s.report.Covered++
	if err := tr.checkRemains(want); err != nil {
		return fmt.Errorf("right after the crash: %w", err)
	}
	again := &crasher{at: 1 + s.r.IntN(len(crash.names)+1), after: s.r.IntN(2) == 0}
	if _, err := tr.run(again); err != nil && !again.dead {
		return fmt.Errorf("repeated: %w", err)
	}
	if err := tr.checkRemains(want); err != nil {
		return fmt.Errorf("after a second crash %s step %d (%s): %w", beforeOrAfter(again.after), again.at, lastStep(again), err)
	}
	for _, what := range []string{"repeated", "repeated once more"} {
		got, err := tr.run(&crasher{})
		if err == nil {
			err = tr.sameOutcome(got, want)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return tr.open(through, func(p drivers.Pool) error { return tr.checkLasting(p, want) })
}

// sameOutcome compares what the trial's action has left with what it leaves in the clean run.
func (tr *trial) sameOutcome(got, want Observation) error {
	if tr.sc.action.RevertsIfNeeded {
		got, want = got.withoutReverted(), want.withoutReverted()
	}
	return sameOutcome(got, want)
}

func sameOutcome(got, want Observation) error {
	if got.String() != want.String() {
		return fmt.Errorf("ends differently from the clean run:\n--- got\n%s--- want\n%s", got, want)
	}
	for name, print := range want.Prints {
		if got.Prints[name] != print {
			return fmt.Errorf("%s holds\n%s\nnot\n%s", name, got.Prints[name], print)
		}
	}
	return nil
}

// checkRemains looks at what a crash left, before anybody repairs it: whatever says that it is ready is as it was before
// the action or as it will be after it, and what both have is there.
func (tr *trial) checkRemains(after Observation) error {
	return tr.open(through, func(p drivers.Pool) error {
		got, err := Observe(tr.ctx, p, tr.storage, tr.h.Data)
		if err != nil {
			return err
		}
		for name, print := range got.Prints {
			if print != tr.before.Prints[name] && print != after.Prints[name] {
				return fmt.Errorf("%s says that it is ready and holds neither what it held before nor what it will hold:\n%s", name, print)
			}
		}
		for name := range tr.before.Prints {
			_, stays := after.Prints[name]
			if _, there := got.Prints[name]; stays && !there {
				return fmt.Errorf("%s is not there any more", name)
			}
		}
		for _, object := range got.Objects {
			old, new := tr.before.object(object.ID), after.object(object.ID)
			if object.Ready && object.Epoch < old.Epoch {
				return fmt.Errorf("%s has forgotten epoch %d and has %d", object.ID, old.Epoch, object.Epoch)
			}
			if object.Ready && object.Size != old.Size && object.Size != new.Size {
				return fmt.Errorf("%s has size %d, neither %d nor %d", object.ID, object.Size, old.Size, new.Size)
			}
		}
		return nil
	})
}

// checkLasting looks once more after a restart, without acting, and makes sure that nobody with an older epoch can touch
// what the action has left.
func (tr *trial) checkLasting(p drivers.Pool, want Observation) error {
	got, err := Observe(tr.ctx, p, tr.storage, tr.h.Data)
	if err == nil {
		err = tr.sameOutcome(got, want)
	}
	if err != nil {
		return fmt.Errorf("after another restart: %w", err)
	}
	for _, object := range want.Objects {
		if err := p.Delete(tr.ctx, object.ID, object.Epoch-1); !errors.Is(err, cairn.ErrStale) {
			return fmt.Errorf("delete of %s with epoch %d below %d: %v; want cairn.ErrStale", object.ID, object.Epoch-1, object.Epoch, err)
		}
	}
	return nil
}
