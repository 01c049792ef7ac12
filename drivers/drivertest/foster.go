package drivertest

import (
	"context"
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func plantSnapshot(id cairn.ReplicaID, name string) Action {
	return Action{
		Name: fmt.Sprintf("plant snapshot %s@%s", id, name), Needs: cairn.CapAdoptSnapshot,
		Do: func(_ context.Context, _ drivers.Pool, s Storage, _ Data) error {
			return s.(SnapshotPlanter).PlantSnapshot(id, name)
		},
	}
}

func adoptSnapshot(id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID, name string) Action {
	return Action{
		Name: fmt.Sprintf("adopt snapshot %s@%s as %s", id, name, snap), Needs: cairn.CapAdoptSnapshot,
		Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			object, err := p.Stat(ctx, id)
			if err != nil || hasSnapshot(object, snap, true) {
				return err
			}
			return p.(drivers.SnapshotAdopter).AdoptSnapshot(ctx, id, epoch, snap, name)
		},
	}
}

func releaseSnapshot(id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID, name string) Action {
	return Action{
		Name: fmt.Sprintf("release snapshot %s@%s", id, snap), Needs: cairn.CapAdoptSnapshot,
		Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
			object, err := p.Stat(ctx, id)
			if err != nil || !hasSnapshot(object, snap, false) {
				return err
			}
			return p.(drivers.SnapshotAdopter).ReleaseSnapshot(ctx, id, epoch, snap, name)
		},
	}
}

func (c *poolCase) adoptsSnapshots() {
	a := c.p.(drivers.SnapshotAdopter)
	c.is("AdoptSnapshot of what is absent", a.AdoptSnapshot(c.ctx, "r1", 1, "s1", "theirs"), cairn.ErrNotFound)
	c.act(create("r1", 1, gib), fill("r1", "one"), plantSnapshot("r1", "theirs"), fill("r1", "two"), snapshot("r1", 1, "s2"))
	before := c.observe()
	c.is("AdoptSnapshot of another name", a.AdoptSnapshot(c.ctx, "r1", 1, "s1", "nothing"), cairn.ErrNotFound)
	c.is("AdoptSnapshot of one of ours", a.AdoptSnapshot(c.ctx, "r1", 1, "s1", "s2"), cairn.ErrExists)
	c.is("AdoptSnapshot with a lower epoch", a.AdoptSnapshot(c.ctx, "r1", 0, "s1", "theirs"), cairn.ErrStale)
	for _, bad := range []string{"", "..", "a/b", "a@b", "-r"} {
		c.is("AdoptSnapshot of "+bad, a.AdoptSnapshot(c.ctx, "r1", 1, "s1", bad), cairn.ErrInvalid)
		c.is("ReleaseSnapshot as "+bad, a.ReleaseSnapshot(c.ctx, "r1", 1, "s2", bad), cairn.ErrInvalid)
	}
	c.unchanged(before)
	want := before.Prints["foreign/r1@theirs"]
	for range 2 {
		c.must(a.AdoptSnapshot(c.ctx, "r1", 1, "s1", "theirs"))
		seen := c.observe()
		if _, foreign := seen.Prints["foreign/r1@theirs"]; foreign || want == "" || seen.Prints["r1@s1"] != want || len(seen.Debris) > 0 {
			c.Errorf("after AdoptSnapshot:\n%s\nwant %s in r1@s1", seen, short(want))
		}
	}
	c.restart(through)
	a = c.p.(drivers.SnapshotAdopter)
	c.act(plantSnapshot("r1", "taken"))
	c.is("ReleaseSnapshot under a name that is taken", a.ReleaseSnapshot(c.ctx, "r1", 1, "s2", "taken"), cairn.ErrExists)
	for range 2 {
		c.must(a.ReleaseSnapshot(c.ctx, "r1", 1, "s1", "other"))
		c.must(a.ReleaseSnapshot(c.ctx, "r1", 1, "s2", "other"))
		seen := c.observe()
		if seen.Prints["foreign/r1@theirs"] != want || seen.Prints["foreign/r1@other"] != before.Prints["r1@s2"] || len(c.stat("r1").Snapshots) != 0 || len(seen.Debris) > 0 {
			c.Errorf("after ReleaseSnapshot:\n%s\nwant %s in r1@theirs", seen, short(want))
		}
	}
	c.is("Delete with snapshots of others", c.p.Delete(c.ctx, "r1", 1), cairn.ErrInUse)
}
