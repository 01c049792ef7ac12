package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func grouper(p drivers.Pool) bool  { _, ok := p.(drivers.GroupSnapshotter); return ok }
func sealer(p drivers.Pool) bool   { _, ok := p.(drivers.Sealer); return ok }
func sender(p drivers.Pool) bool   { _, ok := p.(drivers.Sender); return ok && receiver(p) }
func receiver(p drivers.Pool) bool { _, ok := p.(drivers.Receiver); return ok }

func seal(id cairn.ReplicaID, epoch uint64) Action {
	return Action{Name: "seal " + string(id), Offered: sealer, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		return p.(drivers.Sealer).Seal(ctx, id, epoch)
	}}
}

func unseal(id cairn.ReplicaID, epoch uint64) Action {
	return Action{Name: "unseal " + string(id), Offered: sealer, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		return p.(drivers.Sealer).Unseal(ctx, id, epoch)
	}}
}

func groupSnapshot(cuts ...drivers.Cut) Action {
	return Action{Name: fmt.Sprint("group snapshot ", cuts), Offered: grouper, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		return p.(drivers.GroupSnapshotter).CreateGroupSnapshot(ctx, cuts)
	}}
}

// transfer makes to have a snapshot of from, and its data equal to it: it goes on where an earlier attempt broke off.
func transfer(from, to cairn.ReplicaID, epoch uint64, snap, base cairn.SnapshotID) Action {
	name := fmt.Sprintf("send %s@%s to %s", from, snap, to)
	return Action{Name: name, Offered: sender, RevertsIfNeeded: true, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		token, partial, err := p.(drivers.Receiver).Partial(ctx, to)
		if err != nil {
			return err
		}
		if token != "" && partial != snap {
			return fmt.Errorf("what broke off is %s, not %s", partial, snap)
		}
		stream, err := sent(ctx, p, from, drivers.SendSpec{Snapshot: snap, Base: base, Resume: token})
		if err != nil {
			return err
		}
		if err := p.(drivers.Receiver).Receive(ctx, receiveSpec(to, epoch, snap, base), bytes.NewReader(stream)); err != nil {
			return err
		}
		if changed, err := p.(drivers.Sender).Changed(ctx, to, snap); err != nil || changed == 0 {
			return err
		}
		return p.(drivers.Reverter).Revert(ctx, to, epoch, snap)
	}}
}

// breakOff receives half of a stream.
func breakOff(from, to cairn.ReplicaID, epoch uint64, snap, base cairn.SnapshotID) Action {
	name := fmt.Sprintf("begin to send %s@%s to %s", from, snap, to)
	return Action{Name: name, Offered: sender, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		stream, err := sent(ctx, p, from, drivers.SendSpec{Snapshot: snap, Base: base})
		if err != nil {
			return err
		}
		half := io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), failingReader{})
		if err := p.(drivers.Receiver).Receive(ctx, receiveSpec(to, epoch, snap, base), half); err == nil {
			return errors.New("receive of half a stream succeeded")
		}
		return nil
	}}
}

func abandon(id cairn.ReplicaID, epoch uint64) Action {
	return Action{Name: "abandon " + string(id), Offered: receiver, Do: func(ctx context.Context, p drivers.Pool, _ Storage, _ Data) error {
		return p.(drivers.Receiver).Abandon(ctx, id, epoch)
	}}
}

func sent(ctx context.Context, p drivers.Pool, id cairn.ReplicaID, spec drivers.SendSpec) ([]byte, error) {
	var stream bytes.Buffer
	err := p.(drivers.Sender).Send(ctx, id, spec, &stream)
	return stream.Bytes(), err
}

func receiveSpec(id cairn.ReplicaID, epoch uint64, snap, base cairn.SnapshotID) drivers.ReceiveSpec {
	return drivers.ReceiveSpec{CreateSpec: spec(id, epoch, gib), Snapshot: snap, Base: base}
}

var errLine = errors.New("the line is cut")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errLine }

func (c *poolCase) groupSnapshots() {
	grouper := c.p.(drivers.GroupSnapshotter)
	cuts := []drivers.Cut{{Replica: "r2", Epoch: 1, Snapshot: "g2"}, {Replica: "r1", Epoch: 1, Snapshot: "g1"}}
	c.act(create("r1", 1, gib), fill("r1", "one"))
	before := c.observe()
	c.is("CreateGroupSnapshot with a replica that is absent", grouper.CreateGroupSnapshot(c.ctx, cuts), cairn.ErrNotFound)
	c.unchanged(before)
	c.act(create("r2", 3, gib), fill("r2", "two"))
	before = c.observe()
	c.is("CreateGroupSnapshot with a lower epoch", grouper.CreateGroupSnapshot(c.ctx, cuts), cairn.ErrStale)
	c.unchanged(before)
	cuts[0].Epoch = 4
	c.must(grouper.CreateGroupSnapshot(c.ctx, cuts))
	after := c.observe()
	if after.Prints["r1@g1"] != before.Prints["r1"] || after.Prints["r2@g2"] != before.Prints["r2"] || c.stat("r2").Epoch != 4 {
		c.Errorf("after CreateGroupSnapshot:\n%s", after)
	}
	c.act(fill("r1", "three"))
	before = c.observe()
	c.must(grouper.CreateGroupSnapshot(c.ctx, cuts))
	c.unchanged(before)
	c.act(snapshot("r1", 1, "h1"))
	before = c.observe()
	cuts[0].Snapshot, cuts[1].Snapshot = "h2", "h1"
	c.is("CreateGroupSnapshot of which one is there", grouper.CreateGroupSnapshot(c.ctx, cuts), cairn.ErrExists)
	c.unchanged(before)
}

func (c *poolCase) seals() {
	c.must(c.p.(drivers.Sealer).Seal(c.ctx, "r1", 1)) // of what is absent
	c.absent("r1")
	c.create("r1", 1, gib)
	c.act(fill("r1", "one"))
	if c.stat("r1").Sealed {
		c.Error("a new replica is sealed")
	}
	print := c.observe().Prints["r1"]
	for range 2 {
		c.act(seal("r1", 2))
		c.restart(through)
		object := c.stat("r1")
		if !object.Sealed || !object.Ready || object.Epoch != 2 {
			c.Errorf("after Seal: %+v", object)
		}
		if err := c.h.Data.Fill(object.Root, "two"); err == nil && !c.h.Pretends {
			c.Error("a sealed replica was written to")
		}
		if c.h.Pretends {
			c.act(fill("r1", "one"))
		}
		if got := c.observe().Prints["r1"]; got != print {
			c.Errorf("the sealed data has changed:\n%s", got)
		}
	}
	c.act(unseal("r1", 3), fill("r1", "three"))
	if object := c.stat("r1"); object.Sealed || object.Epoch != 3 {
		c.Errorf("after Unseal: %+v", object)
	}
}

// pair makes r1 with snapshots s1 and s2 and different data, and r2 with s1 if copied.
func (c *poolCase) pair(copied bool) {
	c.Helper()
	c.act(create("r1", 1, gib), fill("r1", "one"), snapshot("r1", 1, "s1"), fill("r1", "two"), snapshot("r1", 1, "s2"), fill("r1", "three"))
	if copied {
		c.act(transfer("r1", "r2", 1, "s1", ""))
	}
}

func (c *poolCase) sends() {
	c.pair(false)
	before := c.observe()
	for i, snap := range []cairn.SnapshotID{"s1", "s2"} {
		base := []cairn.SnapshotID{"", "s1"}[i]
		size, err := c.p.(drivers.Sender).SendSize(c.ctx, "r1", drivers.SendSpec{Snapshot: snap, Base: base})
		if err != nil || size <= 0 {
			c.Errorf("SendSize of %s from %q: %d, %v", snap, base, size, err)
		}
		c.act(transfer("r1", "r2", uint64(i+2), snap, base))
		after, object := c.observe(), c.stat("r2")
		want := before.Prints["r1@"+string(snap)]
		if after.Prints["r2@"+string(snap)] != want || after.Prints["r2"] != want {
			c.Errorf("after a transfer of %s:\n%s\nwant %s in r2 and its snapshot", snap, after, short(want))
		}
		if !object.Ready || object.Size != gib || object.Epoch != uint64(i+2) || sealer(c.p) && !object.Sealed {
			c.Errorf("what is received: %+v; want it ready, sealed, with epoch %d", object, i+2)
		}
		for name, print := range before.Prints {
			if after.Prints[name] != print {
				c.Errorf("sending has changed %s", name)
			}
		}
	}
	if list := c.stat("r2").Snapshots; len(list) != 2 || list[0].Order >= list[1].Order {
		c.Errorf("received snapshots: %+v; want s1 before s2", list)
	}
	c.restart(through)
	if got := c.observe(); len(got.Debris) > 0 {
		c.Errorf("transfers left %v", got.Debris)
	}
}

func (c *poolCase) sendsFromBase() {
	c.pair(true)
	_, err := sent(c.ctx, c.p, "r1", drivers.SendSpec{Snapshot: "nothing"})
	c.is("Send of what is absent", err, cairn.ErrNotFound)
	_, err = sent(c.ctx, c.p, "r9", drivers.SendSpec{Snapshot: "s1"})
	c.is("Send of a replica that is absent", err, cairn.ErrNotFound)
	stream, err := sent(c.ctx, c.p, "r1", drivers.SendSpec{Snapshot: "s2", Base: "nothing"})
	c.is("Send from a base that never was", err, cairn.ErrNotFound)
	if len(stream) > 0 {
		c.Errorf("%d bytes were sent before the base was missed", len(stream))
	}
	c.act(removeSnapshot("r1", 1, "s1"))
	stream, err = sent(c.ctx, c.p, "r1", drivers.SendSpec{Snapshot: "s2", Base: "s1"})
	if errors.Is(err, cairn.ErrNotFound) && len(stream) == 0 {
		return // the sender has kept nothing of what it sent
	}
	c.must(err)
	c.must(c.p.(drivers.Receiver).Receive(c.ctx, receiveSpec("r2", 1, "s2", "s1"), bytes.NewReader(stream)))
	if seen := c.observe(); seen.Prints["r2@s2"] != seen.Prints["r1@s2"] {
		c.Errorf("after a transfer from what is left of a base:\n%s", seen)
	}
}

// blockingWriter tells when the first byte has come, and takes no more until it is let go.
type blockingWriter struct{ begun, resume chan struct{} }

func (w blockingWriter) Write(data []byte) (int, error) {
	select {
	case <-w.begun:
	default:
		close(w.begun)
		<-w.resume
	}
	return len(data), nil
}

func (c *poolCase) sendHolds() {
	c.pair(false)
	w := blockingWriter{make(chan struct{}), make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- c.p.(drivers.Sender).Send(c.ctx, "r1", drivers.SendSpec{Snapshot: "s1"}, w) }()
	select {
	case <-w.begun:
	case err := <-done:
		c.Fatalf("Send ended before it began: %v", err)
	}
	c.is("DeleteSnapshot while it is sent", c.p.(drivers.Snapshotter).DeleteSnapshot(c.ctx, "r1", 1, "s1"), cairn.ErrInUse)
	c.act(snapshot("r1", 1, "s3")) // others go on meanwhile
	close(w.resume)
	c.must(<-done)
	c.act(removeSnapshot("r1", 1, "s1"))
}

func (c *poolCase) changed() {
	c.pair(true)
	changed := func(id cairn.ReplicaID, since cairn.SnapshotID) int64 {
		c.Helper()
		n, err := c.p.(drivers.Sender).Changed(c.ctx, id, since)
		c.must(err)
		return n
	}
	if n := changed("r1", "s2"); n == 0 {
		c.Error("Changed is 0 after a write")
	}
	c.act(snapshot("r1", 1, "s3"))
	if n := changed("r1", "s3"); n != 0 {
		c.Errorf("Changed is %d right after a snapshot", n)
	}
	if n := changed("r1", "s1"); n == 0 {
		c.Error("Changed is 0 since an older snapshot")
	}
	_, err := c.p.(drivers.Sender).Changed(c.ctx, "r1", "nothing")
	c.is("Changed since what is absent", err, cairn.ErrNotFound)
}

// unread fails the test when it is read.
type unread struct{ *poolCase }

func (u unread) Read([]byte) (int, error) {
	u.Error("a stream of what is there already was read")
	return 0, io.EOF
}

func (c *poolCase) receivesOnce() {
	c.pair(true)
	before := c.observe()
	c.must(c.p.(drivers.Receiver).Receive(c.ctx, receiveSpec("r2", 1, "s1", ""), unread{c}))
	c.unchanged(before)
	c.is("Receive with a lower epoch", c.p.(drivers.Receiver).Receive(c.ctx, receiveSpec("r2", 0, "s2", "s1"), unread{c}), cairn.ErrStale)
	c.unchanged(before)
}

func (c *poolCase) receiveRefuses() {
	c.pair(true)
	if !sender(c.p) {
		return
	}
	stream, err := sent(c.ctx, c.p, "r1", drivers.SendSpec{Snapshot: "s2", Base: "s1"})
	c.must(err)
	before := c.observe()
	receive := func(id cairn.ReplicaID, snap, base cairn.SnapshotID, stream []byte) error {
		return c.p.(drivers.Receiver).Receive(c.ctx, receiveSpec(id, 1, snap, base), bytes.NewReader(stream))
	}
	c.is("Receive from a base that is not there", receive("r2", "s2", "nothing", stream), cairn.ErrPrecondition)
	c.is("Receive on a replica that is absent", receive("r3", "s2", "s1", stream), cairn.ErrPrecondition)
	full, err := sent(c.ctx, c.p, "r1", drivers.SendSpec{Snapshot: "s2"})
	c.must(err)
	c.is("Receive of everything into what is there", receive("r2", "s2", "", full), cairn.ErrExists)
	c.unchanged(before)
	for name, bad := range map[string][]byte{"nothing": nil, "noise": bytes.Repeat([]byte("noise "), 10_000)} {
		if err := receive("r3", "s2", "", bad); err == nil {
			c.Errorf("Receive of %s succeeded", name)
		}
		c.act(abandon("r3", 1))
		c.unchanged(before)
	}
}

func (c *poolCase) receiveKeepsDiverged() {
	c.pair(true)
	if sealer(c.p) {
		c.act(unseal("r2", 1))
	}
	c.act(fill("r2", "diverged"))
	if sealer(c.p) {
		c.act(seal("r2", 1))
	}
	print := c.observe().Prints["r2"]
	stream, err := sent(c.ctx, c.p, "r1", drivers.SendSpec{Snapshot: "s2", Base: "s1"})
	c.must(err)
	err = c.p.(drivers.Receiver).Receive(c.ctx, receiveSpec("r2", 1, "s2", "s1"), bytes.NewReader(stream))
	seen := c.observe()
	if seen.Prints["r2"] != print {
		c.Errorf("a receive has overwritten what diverged: %v\n%s", err, seen)
	}
	if err != nil {
		c.is("Receive on what has diverged", err, cairn.ErrPrecondition)
		c.act(abandon("r2", 1), revert("r2", 1, "s1"), transfer("r1", "r2", 1, "s2", "s1"))
	}
	if seen := c.observe(); seen.Prints["r2@s2"] != seen.Prints["r1@s2"] {
		c.Errorf("a receive after a revert:\n%s", seen)
	}
}

// receivesBesideDiverged is what happens to an active replica that was replaced while it could not be reached: what only it
// has is kept, and it follows the new one from the newest snapshot that both have.
func (c *poolCase) receivesBesideDiverged() {
	c.pair(true)
	if sealer(c.p) {
		c.act(unseal("r2", 1))
	}
	c.act(fill("r2", "diverged"))
	if sealer(c.p) {
		c.act(seal("r2", 2))
	}
	c.act(snapshot("r2", 2, "diverged"))
	diverged := c.observe().Prints["r2@diverged"]
	c.act(revert("r2", 2, "s1"), transfer("r1", "r2", 2, "s2", "s1"))
	check := func() {
		c.Helper()
		seen, object := c.observe(), c.stat("r2")
		if seen.Prints["r2"] != seen.Prints["r1@s2"] || seen.Prints["r2@diverged"] != diverged || len(seen.Debris) > 0 {
			c.Errorf("what has followed beside what has diverged:\n%s", seen)
		}
		if sealer(c.p) && !object.Sealed {
			c.Error("a revert has broken the seal")
		}
	}
	check()
	c.restart(through)
	check()
	if _, ok := c.p.(drivers.Cloner); ok {
		c.act(clone("r3", 1, "r2", "diverged"))
		if seen := c.observe(); seen.Prints["r3"] != diverged {
			c.Errorf("a clone of what has diverged:\n%s", seen)
		}
		c.act(remove("r3", 1))
	}
	c.act(snapshot("r1", 2, "s5"), transfer("r1", "r2", 2, "s5", "s2"), removeSnapshot("r2", 2, "diverged"))
	if seen := c.observe(); seen.Prints["r2"] != seen.Prints["r1@s5"] || len(seen.Debris) > 0 {
		c.Errorf("after what has diverged is deleted:\n%s", seen)
	}
}

func (c *poolCase) receiveResumes() {
	c.pair(false)
	for i, snap := range []cairn.SnapshotID{"s1", "s2"} {
		base := []cairn.SnapshotID{"", "s1"}[i]
		before := c.observe()
		c.act(breakOff("r1", "r2", 1, snap, base))
		c.restart(through)
		seen := c.observe()
		for _, name := range []string{"r2", "r2@s1", "r2@s2"} {
			if seen.Prints[name] != before.Prints[name] {
				c.Errorf("half a receive of %s shows in %s:\n%s", snap, name, seen)
			}
		}
		_, partial, err := c.p.(drivers.Receiver).Partial(c.ctx, "r2")
		if err != nil || partial != "" && partial != snap {
			c.Errorf("Partial: %s, %v; want %s or nothing", partial, err, snap)
		}
		c.act(transfer("r1", "r2", 1, snap, base))
		after := c.observe()
		if want := before.Prints["r1@"+string(snap)]; after.Prints["r2@"+string(snap)] != want || after.Prints["r2"] != want {
			c.Errorf("after a transfer of %s that broke off:\n%s", snap, after)
		}
		if token, partial, err := c.p.(drivers.Receiver).Partial(c.ctx, "r2"); token != "" || partial != "" || err != nil {
			c.Errorf("Partial when all has arrived: %q, %s, %v", token, partial, err)
		}
	}
}

func (c *poolCase) receiveAbandons() {
	r := c.p.(drivers.Receiver)
	c.must(r.Abandon(c.ctx, "r2", 1)) // of nothing
	c.pair(false)
	for i, snap := range []cairn.SnapshotID{"s1", "s2"} {
		base := []cairn.SnapshotID{"", "s1"}[i]
		before := c.observe()
		for range 2 {
			c.act(breakOff("r1", "r2", 1, snap, base), abandon("r2", 1), abandon("r2", 1))
			if token, partial, err := r.Partial(c.ctx, "r2"); token != "" || partial != "" || err != nil {
				c.Errorf("Partial after Abandon: %q, %s, %v", token, partial, err)
			}
			c.unchanged(before)
		}
		c.act(transfer("r1", "r2", 1, snap, base))
	}
	if list := c.stat("r2").Snapshots; !slices.ContainsFunc(list, func(s drivers.SnapshotObject) bool { return s.ID == "s2" }) {
		c.Errorf("snapshots after all: %+v", list)
	}
}
