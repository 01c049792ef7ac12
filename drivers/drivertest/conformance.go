package drivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// clause is one sentence of the contract in package drivers, and what holds a pool to it.
type clause struct {
	name  string
	needs cairn.Capability // skipped where the pool has not got it; "" for none
	run   func(*poolCase)
	// offered is as in Action.
	offered func(drivers.Pool) bool
}

var poolClauses = []clause{
	{name: "1 identity: the object carries its ID and epoch", run: (*poolCase).carriesIdentity},
	{name: "1 identity: what has no mark is foreign and never touched", run: (*poolCase).foreignIsNeverTouched},
	{name: "2 create: the same specification adopts", run: (*poolCase).createAdopts},
	{name: "2 create: another specification is ErrExists", run: (*poolCase).createRefusesAnother},
	{name: "3 delete: of what is absent succeeds", run: (*poolCase).deleteOfAbsent},
	{name: "3 delete: of what is in use is ErrInUse", needs: cairn.CapSnapshot, run: (*poolCase).deleteOfUsed},
	{name: "4 absence is a diagnosis", run: (*poolCase).absenceIsDiagnosed},
	{name: "5 the commit point comes last", run: (*poolCase).commitComesLast},
	{name: "6 no hidden state", run: (*poolCase).noHiddenState},
	{name: "7 cancellation: an ended context changes nothing", run: (*poolCase).endedContextChangesNothing},
	{name: "7 cancellation: a call that hangs returns", run: (*poolCase).hangingCallReturns},
	{name: "8 epochs: a lower one is ErrStale, also after a restart", run: (*poolCase).lowerEpochIsStale},
	{name: "8 epochs: every call raises the epoch", run: (*poolCase).everyCallRaises},
	{name: "calls on different IDs run at the same time", run: (*poolCase).concurrentCalls},
	{name: "bad input is ErrInvalid", run: (*poolCase).badInput},
	{name: "info is plausible", run: (*poolCase).infoIsPlausible},
	{name: "resize: sets the size and refuses to lose data", needs: cairn.CapResize, run: (*poolCase).resizes},
	{name: "snapshot: is a point in time", needs: cairn.CapSnapshot, run: (*poolCase).snapshotIsPointInTime},
	{name: "snapshot: create and delete are idempotent", needs: cairn.CapSnapshot, run: (*poolCase).snapshotIsIdempotent},
	{name: "revert: takes the data back, every time", needs: cairn.CapRevert, run: (*poolCase).reverts},
	{name: "revert: keeps what is newer", needs: cairn.CapRevert, run: (*poolCase).revertKeepsNewer},
	{name: "clone: is a replica of its own", needs: cairn.CapClone, run: (*poolCase).clones},
	{name: "adopt: keeps the data", needs: cairn.CapAdopt, run: (*poolCase).adopts},
	{name: "adopt: refuses what it may not take", needs: cairn.CapAdopt, run: (*poolCase).adoptRefuses},
	{name: "release: leaves the data", needs: cairn.CapAdopt, run: (*poolCase).releases},
	{name: "adopt snapshot: keeps it until it is let go of", needs: cairn.CapAdoptSnapshot, run: (*poolCase).adoptsSnapshots},
	{name: "usage: counts the data without snapshots", needs: cairn.CapUsage, run: (*poolCase).usageCounts},
	{name: "group snapshot: all or none", offered: grouper, run: (*poolCase).groupSnapshots},
	{name: "seal: holds until it is broken", offered: sealer, run: (*poolCase).seals},
	{name: "send: what is sent is what is received", offered: sender, run: (*poolCase).sends},
	{name: "send: a base that is gone is said before the first byte", offered: sender, run: (*poolCase).sendsFromBase},
	{name: "send: the snapshot stays while it is sent", offered: sender, run: (*poolCase).sendHolds},
	{name: "send: changed is 0 only if nothing has changed", offered: sender, run: (*poolCase).changed},
	{name: "receive: what is there is not read again", offered: receiver, run: (*poolCase).receivesOnce},
	{name: "receive: another base, or none, is refused", offered: receiver, run: (*poolCase).receiveRefuses},
	{name: "receive: what has diverged is not rolled back", offered: receiver, run: (*poolCase).receiveKeepsDiverged},
	{name: "receive: goes on from an older snapshot, and what has diverged stays", offered: receiver, run: (*poolCase).receivesBesideDiverged},
	{name: "receive: goes on where it broke off", offered: receiver, run: (*poolCase).receiveResumes},
	{name: "receive: what broke off can be abandoned", offered: receiver, run: (*poolCase).receiveAbandons},
}

// Conformance runs every clause of the contract, each over storage of its own. A clause about a capability that the pool
// does not have is skipped, and the number of those is logged.
func Conformance(t *testing.T, h Harness) {
	var skipped []string
	for _, cl := range poolClauses {
		t.Run(cl.name, func(t *testing.T) {
			c := newPoolCase(t, h)
			if !(Action{Needs: cl.needs, Offered: cl.offered}).possible(c.p) {
				skipped = append(skipped, cl.name)
				t.Skipf("skipped clause: the pool cannot %s", cmp.Or(string(cl.needs), "do that"))
			}
			cl.run(c)
		})
	}
	t.Logf("clauses: %d run, %d skipped", len(poolClauses)-len(skipped), len(skipped))
}

// promptly is how soon a call has to return when its context has ended.
const promptly = 5 * time.Second

// poolCase is one pool over storage of its own.
type poolCase struct {
	*testing.T
	h   Harness
	s   Storage
	p   drivers.Pool
	ctx context.Context
}

func newPoolCase(t *testing.T, h Harness) *poolCase {
	ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(h.Patience, patience))
	t.Cleanup(cancel)
	c := &poolCase{T: t, h: h, ctx: ctx}
	var remove func()
	c.s, remove = h.New(t)
	t.Cleanup(remove)
	c.open(through)
	t.Cleanup(func() { c.must(c.s.Close(c.p)) })
	return c
}

func (c *poolCase) open(step Step) {
	c.Helper()
	var err error
	c.p, err = c.s.Open(c.ctx, step)
	c.must(err)
}

// restart opens the pool again, as after the end of its process.
func (c *poolCase) restart(step Step) {
	c.Helper()
	c.must(c.s.Close(c.p))
	c.open(step)
}

func (c *poolCase) carriesIdentity() {
	made := c.create("r1", 7, gib)
	if made.ID != "r1" || made.Epoch != 7 || made.Size != gib || !made.Ready || made.Root == "" {
		c.Errorf("Create returned %+v", made)
	}
	c.create("r0", 3, 2*gib)
	for range 2 {
		if got := c.stat("r1"); got.ID != "r1" || got.Epoch != 7 || got.Size != gib || !got.Ready || got.Root != made.Root {
			c.Errorf("Stat: %+v; want what Create returned: %+v", got, made)
		}
		list, err := c.p.List(c.ctx)
		c.must(err)
		if len(list) != 2 || list[0].ID != "r0" || list[1].ID != "r1" || list[0].Epoch != 3 || list[1].Epoch != 7 {
			c.Errorf("List: %+v; want r0 and r1 in order, with their epochs", list)
		}
		c.restart(through)
	}
}

func (c *poolCase) foreignIsNeverTouched() {
	c.act(plant("r1", "theirs"))
	before := c.observe()
	_, err := c.p.Stat(c.ctx, "r1")
	c.foreign("Stat", err)
	_, err = c.p.Create(c.ctx, spec("r1", 1, gib))
	c.foreign("Create", err)
	c.foreign("Delete", c.p.Delete(c.ctx, "r1", 1))
	if list, err := c.p.List(c.ctx); err != nil || len(list) != 0 {
		c.Errorf("List of a pool with nothing of ours: %+v, %v", list, err)
	}
	c.unchanged(before)
}

func (c *poolCase) foreign(what string, err error) {
	c.Helper()
	if !errors.Is(err, cairn.ErrExists) || !strings.Contains(err.Error(), "foreign") {
		c.Errorf("%s where a foreign object stands: %v; want cairn.ErrExists that says foreign", what, err)
	}
}

func (c *poolCase) createAdopts() {
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	before := c.observe()
	c.create("r1", 1, gib)
	c.unchanged(before)
	c.restart(through)
	c.create("r1", 1, gib)
	c.unchanged(before)
}

func (c *poolCase) createRefusesAnother() {
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	before := c.observe()
	_, err := c.p.Create(c.ctx, spec("r1", 1, 2*gib))
	c.is("Create with another size", err, cairn.ErrExists)
	c.unchanged(before)
}

func (c *poolCase) deleteOfAbsent() {
	c.must(c.p.Delete(c.ctx, "r1", 1))
	c.create("r10", 1, gib) // a name that begins like the other one's
	c.act(fill("r10", "ten"))
	before := c.observe()
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	for range 2 {
		c.must(c.p.Delete(c.ctx, "r1", 1))
		c.absent("r1")
		c.unchanged(before)
	}
}

func (c *poolCase) deleteOfUsed() {
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"), snapshot("r1", 1, "s1"))
	before := c.observe()
	c.is("Delete with a snapshot", c.p.Delete(c.ctx, "r1", 1), cairn.ErrInUse)
	c.unchanged(before)
	c.act(removeSnapshot("r1", 1, "s1"), remove("r1", 1))
	c.absent("r1")
}

func (c *poolCase) absenceIsDiagnosed() {
	c.create("r1", 1, gib)
	c.absent("r2")
	before := c.observe()
	repair, err := c.s.Break()
	c.must(err)
	for _, id := range []cairn.ReplicaID{"r1", "r2"} {
		_, err := c.p.Stat(c.ctx, id)
		c.notAbsent("Stat of "+string(id), err)
		c.notAbsent("Delete of "+string(id), c.p.Delete(c.ctx, id, 1))
	}
	_, err = c.p.List(c.ctx)
	c.notAbsent("List", err)
	_, err = c.p.Create(c.ctx, spec("r3", 1, gib))
	c.notAbsent("Create", err)
	c.must(repair())
	c.unchanged(before)
}

// notAbsent demands an error that says nothing about whether the object is there.
func (c *poolCase) notAbsent(what string, err error) {
	c.Helper()
	if err == nil || errors.Is(err, cairn.ErrNotFound) {
		c.Errorf("%s on a pool that does not answer: %v; want an error that is not cairn.ErrNotFound", what, err)
	}
}

func (c *poolCase) commitComesLast() {
	for at := 1; ; at++ {
		id := cairn.ReplicaID(fmt.Sprintf("r%d", at))
		crash := &crasher{}
		c.restart(crash.step)
		crash.mu.Lock()
		crash.at = len(crash.names) + at
		crash.mu.Unlock()
		_, err := c.p.Create(c.ctx, spec(id, 1, gib))
		c.restart(through)
		if err == nil {
			return
		}
		object := c.observe().object(id) // which reads all that says it is ready
		if object.Ready != (object.Root != "") {
			c.Errorf("crash before step %d of Create: ready is %t and root %q", at, object.Ready, object.Root)
		}
		c.act(create(id, 1, gib), fill(id, "one"))
	}
}

func (c *poolCase) noHiddenState() {
	c.create("r1", 3, gib)
	c.act(fill("r1", "one"))
	for _, action := range []Action{snapshot("r1", 4, "s1"), revert("r1", 5, "s1"), clone("r2", 2, "r1", "s1"), resize("r1", 6, 2*gib)} {
		if action.possible(c.p) {
			c.act(action)
		}
	}
	before := c.observe()
	c.restart(through)
	c.unchanged(before)
}

func (c *poolCase) endedContextChangesNothing() {
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	before := c.observe()
	ended, cancel := context.WithCancel(c.ctx)
	cancel()
	_, err := c.p.Create(ended, spec("r2", 1, gib))
	c.interrupted("Create", err)
	c.interrupted("Delete", c.p.Delete(ended, "r1", 1))
	if s, ok := c.p.(drivers.Snapshotter); ok {
		_, err := s.CreateSnapshot(ended, "r1", 1, "s1")
		c.interrupted("CreateSnapshot", err)
	}
	c.unchanged(before)
}

func (c *poolCase) interrupted(what string, err error) {
	c.Helper()
	if err == nil || errors.Is(err, cairn.ErrNotFound) {
		c.Errorf("%s with an ended context: %v; want an error", what, err)
	}
}

func (c *poolCase) hangingCallReturns() {
	hung, resume := make(chan string), make(chan struct{})
	var once sync.Once
	var hang bool
	c.restart(func(name string, do func() error) error {
		if hang {
			once.Do(func() { hung <- name; <-resume })
		}
		return do()
	})
	c.create("r1", 1, gib)
	hang = true
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	returned := make(chan error, 1)
	go func() {
		_, err := c.p.Create(ctx, spec("r2", 1, gib))
		returned <- err
	}()
	step := <-hung
	cancel()
	select {
	case err := <-returned:
		c.interrupted("Create", err)
	case <-time.After(promptly):
		c.Errorf("Create did not return after its context ended while %q hung", step)
	}
	c.stat("r1") // the others are served meanwhile
	close(resume)
	c.act(create("r2", 1, gib), fill("r2", "one"))
	if seen := c.observe(); len(seen.Debris) > 0 {
		c.Errorf("the interrupted call left %v", seen.Debris)
	}
}

func (c *poolCase) lowerEpochIsStale() {
	c.create("r1", 3, gib)
	c.create("r1", 5, gib)
	c.act(fill("r1", "one"))
	if slices.Contains(drivers.CapabilitiesOf(c.p), cairn.CapSnapshot) {
		c.act(snapshot("r1", 5, "s1"))
	}
	before := c.observe()
	for range 2 {
		for _, call := range c.calls("r1", 4) {
			c.is(call.Name+" with a lower epoch", call.Do(c.ctx, c.p, c.s, c.h.Data), cairn.ErrStale)
		}
		c.restart(through)
		c.unchanged(before)
	}
}

func (c *poolCase) everyCallRaises() {
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	for i := range len(c.calls("r1", 0)) - 1 { // after the last there is nothing to look at
		epoch := uint64(i + 2)
		call := c.calls("r1", epoch)[i]
		c.act(call)
		c.restart(through)
		if got := c.stat("r1").Epoch; got != epoch {
			c.Errorf("epoch after %s with epoch %d and a restart: %d", call.Name, epoch, got)
		}
	}
}

// calls are all that carry an epoch to a replica of size gib, in an order in which each finds what it needs, Delete last.
// Unlike an actor they do not look first.
func (c *poolCase) calls(id cairn.ReplicaID, epoch uint64) []Action {
	all := []Action{
		{Name: "Create", Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			_, err := p.Create(ctx, spec(id, epoch, gib))
			return err
		}},
		{Name: "Resize", Needs: cairn.CapResize, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.(drivers.Resizer).Resize(ctx, id, epoch, gib)
		}},
		{Name: "Seal", Offered: sealer, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.(drivers.Sealer).Seal(ctx, id, epoch)
		}},
		{Name: "Unseal", Offered: sealer, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.(drivers.Sealer).Unseal(ctx, id, epoch)
		}},
		{Name: "CreateSnapshot", Needs: cairn.CapSnapshot, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			_, err := p.(drivers.Snapshotter).CreateSnapshot(ctx, id, epoch, "s1")
			return err
		}},
		{Name: "CreateGroupSnapshot", Offered: grouper, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.(drivers.GroupSnapshotter).CreateGroupSnapshot(ctx, []drivers.Cut{{Replica: id, Epoch: epoch, Snapshot: "s1"}})
		}},
		{Name: "Abandon", Offered: receiver, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.(drivers.Receiver).Abandon(ctx, id, epoch)
		}},
		{Name: "Revert", Needs: cairn.CapRevert, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.(drivers.Reverter).Revert(ctx, id, epoch, "s1")
		}},
		{Name: "DeleteSnapshot", Needs: cairn.CapSnapshot, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.(drivers.Snapshotter).DeleteSnapshot(ctx, id, epoch, "s1")
		}},
		{Name: "Delete", Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			return p.Delete(ctx, id, epoch)
		}},
	}
	return slices.DeleteFunc(all, func(a Action) bool { return !a.possible(c.p) })
}

func (c *poolCase) concurrentCalls() {
	var lives sync.WaitGroup
	count := 8
	if c.h.Patience > 0 { // where everything takes long, half of them meet as well
		count = 4
	}
	for n := range count {
		id := cairn.ReplicaID(fmt.Sprintf("r%d", n))
		actions := []Action{create(id, 1, gib), fill(id, "one"), snapshot(id, 2, "s1-"+cairn.SnapshotID(id)), resize(id, 3, 2*gib)}
		if n%2 == 0 {
			actions = append(actions, removeSnapshot(id, 4, "s1-"+cairn.SnapshotID(id)), remove(id, 5))
		}
		lives.Go(func() {
			for _, action := range actions {
				if !action.possible(c.p) {
					continue
				}
				if err := action.Do(c.ctx, c.p, c.s, c.h.Data); err != nil {
					c.Errorf("%s: %v", action.Name, err)
				}
				if _, err := c.p.List(c.ctx); err != nil {
					c.Errorf("List beside %s: %v", action.Name, err)
				}
			}
		})
	}
	lives.Wait()
	if seen := c.observe(); len(seen.Objects) != count/2 || len(seen.Debris) > 0 {
		c.Errorf("want %d replicas and no debris:\n%s", count/2, seen)
	}
}

func (c *poolCase) badInput() {
	for _, id := range []cairn.ReplicaID{"", ".", "..", "a/b", "../escape", "a\nb", "a\x00b", cairn.ReplicaID(strings.Repeat("x", 10_000))} {
		_, err := c.p.Create(c.ctx, spec(id, 1, gib))
		c.is(fmt.Sprintf("Create with ID %.20q", id), err, cairn.ErrInvalid)
		c.is(fmt.Sprintf("Delete with ID %.20q", id), c.p.Delete(c.ctx, id, 1), cairn.ErrInvalid)
	}
	for _, size := range []int64{0, -1, 5 << 60} {
		_, err := c.p.Create(c.ctx, spec("r1", 1, size))
		c.is(fmt.Sprintf("Create with size %d", size), err, cairn.ErrInvalid)
	}
	if seen := c.observe(); seen.String() != "" {
		c.Errorf("refused calls left:\n%s", seen)
	}
}

func (c *poolCase) infoIsPlausible() {
	info, err := c.p.Info(c.ctx)
	c.must(err)
	if info.Total <= 0 || info.Free < 0 || info.Free > info.Total {
		c.Errorf("Info: %d of %d bytes free", info.Free, info.Total)
	}
	if info.Enforcement != drivers.EnforcedByExporter && info.Enforcement != drivers.EnforcedByFileSystem {
		c.Errorf("Info: enforcement %q", info.Enforcement)
	}
}
