package drivertest

import (
	"errors"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func (c *poolCase) resizes() {
	resizer := c.p.(drivers.Resizer)
	c.is("Resize of what is absent", resizer.Resize(c.ctx, "r1", 1, gib), cairn.ErrNotFound)
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	for _, size := range []int64{2 * gib, 2 * gib, gib / 2} {
		c.must(resizer.Resize(c.ctx, "r1", 1, size))
		if got := c.stat("r1").Size; got != size {
			c.Errorf("size after Resize to %d: %d", size, got)
		}
	}
	before := c.observe()
	err := resizer.Resize(c.ctx, "r1", 1, 16)
	c.is("Resize below what is used", err, cairn.ErrDataLoss)
	if reporter, ok := c.p.(drivers.UsageReporter); ok && err != nil {
		used, usageErr := reporter.Usage(c.ctx, "r1")
		c.must(usageErr)
		if !strings.Contains(err.Error(), cairn.FormatSize(used)) {
			c.Errorf("Resize below what is used: %v; want the used size, %s, in it", err, cairn.FormatSize(used))
		}
	}
	c.is("Resize to 0", resizer.Resize(c.ctx, "r1", 1, 0), cairn.ErrInvalid)
	c.unchanged(before)
}

func (c *poolCase) snapshotIsPointInTime() {
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	print := c.observe().Prints["r1"]
	c.act(snapshot("r1", 1, "s1"))
	for _, seed := range []string{"two", "three"} {
		c.act(fill("r1", seed), snapshot("r1", 1, cairn.SnapshotID("s-"+seed)))
		if got := c.observe().Prints["r1@s1"]; got != print {
			c.Errorf("the snapshot changed with its replica:\n%s\nwant\n%s", got, print)
		}
	}
	c.act(removeSnapshot("r1", 1, "s-two"))
	object := c.stat("r1")
	if len(object.Snapshots) != 2 || object.Snapshots[0].ID != "s-three" || object.Snapshots[1].ID != "s1" {
		c.Errorf("snapshots: %+v; want s-three and s1 in order", object.Snapshots)
	}
}

func (c *poolCase) snapshotIsIdempotent() {
	s := c.p.(drivers.Snapshotter)
	_, err := s.CreateSnapshot(c.ctx, "r1", 1, "s1")
	c.is("CreateSnapshot of what is absent", err, cairn.ErrNotFound)
	c.must(s.DeleteSnapshot(c.ctx, "r1", 1, "s1"))
	c.create("r1", 1, gib)
	c.must(s.DeleteSnapshot(c.ctx, "r1", 1, "s1"))
	c.act(fill("r1", "one"))
	first, err := s.CreateSnapshot(c.ctx, "r1", 1, "s1")
	c.must(err)
	c.act(fill("r1", "two"))
	before := c.observe()
	again, err := s.CreateSnapshot(c.ctx, "r1", 1, "s1")
	c.must(err)
	if again != first || !first.Ready || first.Root == "" {
		c.Errorf("CreateSnapshot returned %+v, then %+v", first, again)
	}
	c.unchanged(before)
	for _, bad := range []cairn.SnapshotID{"", "..", "a/b", "../../escape"} {
		_, err := s.CreateSnapshot(c.ctx, "r1", 1, bad)
		c.is("CreateSnapshot of "+string(bad), err, cairn.ErrInvalid)
		c.is("DeleteSnapshot of "+string(bad), s.DeleteSnapshot(c.ctx, "r1", 1, bad), cairn.ErrInvalid)
	}
	c.must(s.DeleteSnapshot(c.ctx, "r1", 1, "s1"))
	c.must(s.DeleteSnapshot(c.ctx, "r1", 1, "s1"))
	if left := c.stat("r1").Snapshots; len(left) != 0 {
		c.Errorf("snapshots after DeleteSnapshot: %+v", left)
	}
}

func (c *poolCase) reverts() {
	reverter := c.p.(drivers.Reverter)
	c.is("Revert of what is absent", reverter.Revert(c.ctx, "r1", 1, "s1"), cairn.ErrNotFound)
	c.create("r1", 1, gib)
	c.is("Revert to what is absent", reverter.Revert(c.ctx, "r1", 1, "s1"), cairn.ErrNotFound)
	c.act(fill("r1", "one"), snapshot("r1", 1, "s1"))
	want := c.observe().Prints["r1@s1"]
	for _, seed := range []string{"two", "three"} { // the second time to the same snapshot counts as well
		c.act(fill("r1", seed), revert("r1", 1, "s1"))
		seen := c.observe()
		if seen.Prints["r1"] != want || seen.Prints["r1@s1"] != want || len(seen.Debris) > 0 {
			c.Errorf("after a revert from %s:\n%s\nwant %s in both", seed, seen, short(want))
		}
		if got := c.stat("r1").Reverted; got != "s1" {
			c.Errorf("Reverted is %q; want s1", got)
		}
	}
}

// revertKeepsNewer goes back, forth, and back again: every snapshot stays what it is, and can be deleted in any order.
func (c *poolCase) revertKeepsNewer() {
	c.act(create("r1", 1, gib), fill("r1", "one"), snapshot("r1", 1, "s1"), fill("r1", "two"), snapshot("r1", 1, "s2"))
	c.act(fill("r1", "three"), snapshot("r1", 1, "s3"), fill("r1", "four"))
	before := c.observe()
	check := func(at cairn.SnapshotID) {
		c.Helper()
		seen := c.observe()
		for _, snap := range []string{"r1@s1", "r1@s2", "r1@s3"} {
			if seen.Prints[snap] != before.Prints[snap] {
				c.Errorf("after a revert to %s, %s has changed or is gone:\n%s", at, snap, seen)
			}
		}
		if seen.Prints["r1"] != before.Prints["r1@"+string(at)] || len(seen.Debris) > 0 {
			c.Errorf("after a revert to %s:\n%s", at, seen)
		}
	}
	for _, at := range []cairn.SnapshotID{"s1", "s3", "s2", "s1", "s1"} {
		c.act(revert("r1", 1, at))
		check(at)
	}
	c.restart(through)
	check("s1")
	c.act(fill("r1", "five"), snapshot("r1", 1, "s4"))
	five := c.observe().Prints["r1@s4"]
	for _, snap := range []cairn.SnapshotID{"s1", "s4", "s2", "s3"} {
		c.is("Delete with snapshots that a revert has left behind", c.p.Delete(c.ctx, "r1", 1), cairn.ErrInUse)
		c.act(removeSnapshot("r1", 1, snap))
		if seen := c.observe(); seen.Prints["r1"] != five || seen.Prints["r1@"+string(snap)] != "" || len(seen.Debris) > 0 {
			c.Errorf("after a deletion of %s:\n%s", snap, seen)
		}
	}
	c.act(remove("r1", 1))
	if seen := c.observe(); len(seen.Objects) != 0 || len(seen.Debris) > 0 {
		c.Errorf("after all:\n%s", seen)
	}
}

func (c *poolCase) clones() {
	cloner := c.p.(drivers.Cloner)
	_, err := cloner.Clone(c.ctx, spec("r2", 1, gib), "r1", "s1")
	c.is("Clone of what is absent", err, cairn.ErrNotFound)
	c.create("r1", 1, gib)
	_, err = cloner.Clone(c.ctx, spec("r2", 1, gib), "r1", "s1")
	c.is("Clone of a snapshot that is absent", err, cairn.ErrNotFound)
	c.absent("r2")
	c.act(fill("r1", "one"), snapshot("r1", 1, "s1"), fill("r1", "two"))
	want := c.observe().Prints["r1@s1"]
	c.act(clone("r2", 1, "r1", "s1"))
	before := c.observe()
	if before.Prints["r2"] != want || c.stat("r2").Source != "s1" {
		c.Errorf("the clone:\n%s\nwant %s in it", before, short(want))
	}
	_, err = cloner.Clone(c.ctx, spec("r2", 1, gib), "r1", "s1")
	c.must(err)
	_, err = cloner.Clone(c.ctx, spec("r2", 1, 2*gib), "r1", "s1")
	c.is("Clone with another size", err, cairn.ErrExists)
	_, err = c.p.Create(c.ctx, spec("r2", 1, gib))
	c.is("Create of a clone's ID", err, cairn.ErrExists)
	c.unchanged(before)
	c.act(fill("r2", "three"))
	if got := c.observe(); got.Prints["r1@s1"] != want || got.Prints["r1"] != before.Prints["r1"] {
		c.Errorf("writing to the clone changed its source:\n%s", got)
	}
}

func (c *poolCase) adopts() {
	adopter := c.p.(drivers.Adopter)
	c.act(plant("theirs", "one"))
	want := c.observe().Prints["foreign/theirs"]
	object, err := adopter.Adopt(c.ctx, spec("r1", 3, gib), "theirs")
	c.must(err)
	if !object.Ready || object.Epoch != 3 || object.Size != gib {
		c.Errorf("Adopt returned %+v", object)
	}
	before := c.observe()
	if before.Prints["r1"] != want || len(before.Prints) != 1 {
		c.Errorf("after Adopt:\n%s\nwant only r1, with %s", before, short(want))
	}
	for range 2 {
		_, err := adopter.Adopt(c.ctx, spec("r1", 3, gib), "theirs")
		c.must(err)
		c.unchanged(before)
		c.restart(through)
		adopter = c.p.(drivers.Adopter)
	}
}

func (c *poolCase) adoptRefuses() {
	adopter := c.p.(drivers.Adopter)
	c.act(plant("theirs", "one"), create("r1", 1, gib), fill("r1", "two"))
	before := c.observe()
	_, err := adopter.Adopt(c.ctx, spec("r2", 1, gib), "nothing")
	c.is("Adopt of what is absent", err, cairn.ErrNotFound)
	_, err = adopter.Adopt(c.ctx, spec("r2", 1, gib), "r1")
	c.is("Adopt of another replica", err, cairn.ErrExists)
	_, err = adopter.Adopt(c.ctx, spec("r2", 1, 16), "theirs")
	c.is("Adopt of what is too large", err, cairn.ErrDataLoss)
	_, err = adopter.Adopt(c.ctx, spec("r1", 1, gib), "theirs")
	c.is("Adopt as a replica that is there", err, cairn.ErrExists)
	for _, bad := range []string{"", ".", "..", "theirs/sub", "../escape", "/etc"} {
		_, err = adopter.Adopt(c.ctx, spec("r2", 1, gib), bad)
		c.is("Adopt of "+bad, err, cairn.ErrInvalid)
	}
	c.unchanged(before)
}

func (c *poolCase) releases() {
	adopter := c.p.(drivers.Adopter)
	c.is("Release of what was never there", adopter.Release(c.ctx, "r1", 1, "nothing"), cairn.ErrNotFound)
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"), plant("taken", "theirs"))
	want := c.observe().Prints["r1"]
	before := c.observe()
	c.is("Release under a name that is taken", adopter.Release(c.ctx, "r1", 1, "taken"), cairn.ErrExists)
	c.is("Release with a lower epoch", adopter.Release(c.ctx, "r1", 0, "ours"), cairn.ErrStale)
	for _, bad := range []string{"", "..", "a/b"} {
		c.is("Release as "+bad, adopter.Release(c.ctx, "r1", 1, bad), cairn.ErrInvalid)
	}
	if s, ok := c.p.(drivers.Snapshotter); ok {
		c.act(snapshot("r1", 1, "s1"))
		c.is("Release with a snapshot", adopter.Release(c.ctx, "r1", 1, "ours"), cairn.ErrInUse)
		c.must(s.DeleteSnapshot(c.ctx, "r1", 1, "s1"))
	}
	c.unchanged(before)
	for range 2 {
		c.must(adopter.Release(c.ctx, "r1", 1, "ours"))
		c.absent("r1")
		if seen := c.observe(); seen.Prints["foreign/ours"] != want || len(seen.Objects) != 0 || len(seen.Debris) > 0 {
			c.Errorf("after Release:\n%s\nwant %s under ours", seen, short(want))
		}
	}
	c.act(adopt("r2", 1, "ours"))
	if seen := c.observe(); seen.Prints["r2"] != want {
		c.Errorf("managed again:\n%s\nwant %s in r2", seen, short(want))
	}
}

func (c *poolCase) usageCounts() {
	reporter := c.p.(drivers.UsageReporter)
	_, err := reporter.Usage(c.ctx, "r1")
	c.is("Usage of what is absent", err, cairn.ErrNotFound)
	c.create("r1", 1, gib)
	empty, err := reporter.Usage(c.ctx, "r1")
	c.must(err)
	c.act(fill("r1", "one"))
	used, err := reporter.Usage(c.ctx, "r1")
	c.must(err)
	if used <= empty {
		c.Errorf("usage went from %d to %d when data came", empty, used)
	}
	if s, ok := c.p.(drivers.Snapshotter); ok {
		_, err := s.CreateSnapshot(c.ctx, "r1", 1, "s1")
		c.must(err)
		if with, err := reporter.Usage(c.ctx, "r1"); err != nil || with != used {
			c.Errorf("usage with a snapshot: %d, %v; want %d as before", with, err, used)
		}
	}
}

func (c *poolCase) create(id cairn.ReplicaID, epoch uint64, size int64) drivers.Object {
	c.Helper()
	object, err := c.p.Create(c.ctx, spec(id, epoch, size))
	c.must(err)
	return object
}

func (c *poolCase) stat(id cairn.ReplicaID) drivers.Object {
	c.Helper()
	object, err := c.p.Stat(c.ctx, id)
	c.must(err)
	return object
}

func (c *poolCase) absent(id cairn.ReplicaID) {
	c.Helper()
	object, err := c.p.Stat(c.ctx, id)
	if !errors.Is(err, cairn.ErrNotFound) {
		c.Errorf("Stat of %s, which is absent: %+v, %v; want cairn.ErrNotFound", id, object, err)
	}
}

func (c *poolCase) act(actions ...Action) {
	c.Helper()
	for _, action := range actions {
		if err := action.Do(c.ctx, c.p, c.s, c.h.Data); err != nil {
			c.Fatalf("%s: %v", action.Name, err)
		}
	}
}

func (c *poolCase) observe() Observation {
	c.Helper()
	seen, err := Observe(c.ctx, c.p, c.s, c.h.Data)
	c.must(err)
	return seen
}

func (c *poolCase) unchanged(before Observation) {
	c.Helper()
	if err := sameOutcome(c.observe(), before); err != nil {
		c.Errorf("something changed: %v", err)
	}
}

func (c *poolCase) is(what string, err, want error) {
	c.Helper()
	if !errors.Is(err, want) {
		c.Errorf("%s: %v; want %q", what, err, want)
	}
}

func (c *poolCase) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}
