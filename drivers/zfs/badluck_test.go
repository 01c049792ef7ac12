package zfs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/zfs"
)

func TestBadLuck(t *testing.T) {
	m, z := simulated(t)
	badLuck(t, m)
	t.Run("suspended", func(t *testing.T) {
		f := newFixture(t, m, nil)
		f.create("r1", nil)
		resume := z.Suspend("tank")
		f.answersNothing("SUSPENDED", cairn.ErrUnavailable)
		resume()
		f.stat("r1")
	})
	t.Run("hanging", func(t *testing.T) {
		f := newFixture(t, m, nil)
		f.create("r1", nil)
		release := z.Hang()
		f.hangs()
		release()
		f.stat("r1")
	})
	t.Run("not permitted", func(t *testing.T) {
		f := newFixture(t, m, nil)
		f.create("r1", nil)
		allow := z.Deny()
		_, err := f.p.Create(t.Context(), drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib})
		f.is("Create without permission", err, cairn.ErrDenied)
		allow()
		f.create("r2", nil)
	})
	t.Run("a message that nobody has seen", func(t *testing.T) {
		f := newFixture(t, m, nil)
		f.create("r1", nil)
		z.FailNext("cannot open 'tank': the moon is full")
		_, err := f.p.Stat(t.Context(), "r2")
		for _, sentinel := range cairn.Sentinels() {
			if err == nil || errors.Is(err, sentinel) {
				t.Errorf("Stat: %v; want an error of its own", err)
			}
		}
	})
}

// badLuck is what can be arranged on any machine with the tools themselves.
func badLuck(t *testing.T, m machine) {
	for name, run := range map[string]func(*fixture){
		"exported": exported, "missing at start": missingAtStart, "another pool's": anotherPools, "unmounted": unmounted,
		"busy": busyDataset, "others' snapshots": othersSnapshots, "full while receiving": fullWhileReceiving,
		"specs": specs, "encrypted": encrypted, "not encrypted": plainIsNotEncrypted, "dependents": dependents, "holds left": holdsLeft,
		"one transaction group": oneTransactionGroup,
	} {
		t.Run(name, func(t *testing.T) { run(newFixture(t, m, nil)) })
	}
}

// answersNothing makes every call and wants no answer of any, within the time of an operator.
func (f *fixture) answersNothing(text string, want error) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	_, err := f.p.Info(ctx)
	f.is("Info", err, want, text)
	_, err = f.p.Stat(ctx, "r1")
	f.is("Stat", err, want, text)
	_, err = f.p.Stat(ctx, "r2")
	f.is("Stat of what is absent", err, want, text)
	_, err = f.p.List(ctx)
	f.is("List", err, want, text)
	_, err = f.p.Create(ctx, drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib})
	f.is("Create", err, want, text)
	f.is("Delete", f.p.Delete(ctx, "r2", 1), want, text)
	f.is("Seal", f.p.Seal(ctx, "r2", 1), want, text)
	f.is("Abandon", f.p.Abandon(ctx, "r2", 1), want, text)
}

// hangs makes calls whose tools do not return.
func (f *fixture) hangs() {
	f.Helper()
	for what, call := range map[string]func(context.Context) error{
		"Stat":   func(ctx context.Context) error { _, err := f.p.Stat(ctx, "r1"); return err },
		"Delete": func(ctx context.Context) error { return f.p.Delete(ctx, "r1", 1) },
	} {
		ctx, cancel := context.WithTimeout(f.Context(), 200*time.Millisecond)
		f.is(what, call(ctx), cairn.ErrTimeout, "outcome unknown")
		cancel()
	}
}

func exported(f *fixture) {
	f.create("r1", nil)
	f.write("r1", "one")
	restore, err := f.s.export()
	must(f.T, err)
	f.answersNothing("no such pool", cairn.ErrUnavailable)
	must(f.T, restore())
	f.holds(f.stat("r1").Root, "one")
}

func missingAtStart(f *fixture) {
	open := func(dataset string) error {
		cfg := f.s.config(func(_ string, do func() error) error { return do() })
		cfg.Dataset, cfg.MustExist = dataset, true
		_, err := zfs.Open(f.Context(), cfg)
		return err
	}
	f.zfs("create", f.s.dataset+"/fresh")
	f.is("Open of a dataset without a mark", open(f.s.dataset+"/fresh"), cairn.ErrUnavailable, "no mark")
	if err := open(f.s.dataset + "/absent"); err == nil || errors.Is(err, cairn.ErrNotFound) {
		f.Errorf("Open of what is absent: %v", err)
	}
	restore, err := f.s.export()
	must(f.T, err)
	f.is("Open of a zpool that is not imported", open(f.s.dataset), cairn.ErrUnavailable, "no such pool")
	must(f.T, restore())
	must(f.T, open(f.s.dataset))
}

func anotherPools(f *fixture) {
	cfg := f.s.config(func(_ string, do func() error) error { return do() })
	cfg.PoolID = "node-2/tank"
	_, err := zfs.Open(f.Context(), cfg)
	f.is("Open of another node's pool", err, cairn.ErrPrecondition, string(poolID))
	cfg.Dataset += "/within" // a pool below another one inherits its properties
	p, err := zfs.Open(f.Context(), cfg)
	must(f.T, err)
	must(f.T, p.Close())
	f.stat2(p)
}

func (f *fixture) stat2(p *zfs.Pool) {
	f.Helper()
	if list, err := p.List(f.Context()); err != nil || len(list) != 0 {
		f.Errorf("List of a pool within: %+v, %v", list, err)
	}
}

func unmounted(f *fixture) {
	f.create("r1", nil)
	f.write("r1", "one")
	f.zfs("unmount", f.s.dataset+"/r1")
	f.holds(f.stat("r1").Root, "one")
	f.zfs("unmount", f.s.dataset+"/r1")
	list, err := f.p.List(f.Context())
	must(f.T, err)
	if len(list) != 1 || list[0].Ready || list[0].Root != "" {
		f.Errorf("List of what is not mounted: %+v", list)
	}
	f.holds(f.create("r1", nil).Root, "one")
}

func busyDataset(f *fixture) {
	f.zfs("create", f.s.dataset+"/theirs")
	if f.s.pretends {
		return // nothing can be busy
	}
	root := f.property("mountpoint", "theirs")
	open, err := os.Create(filepath.Join(root, "open"))
	must(f.T, err)
	_, err = f.p.Adopt(f.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib}, "theirs")
	f.is("Adopt of what is in use", err, cairn.ErrInUse)
	if mark := f.property("cairn:id", "theirs"); mark != "-" {
		f.Errorf("a refused Adopt left the mark %s", mark)
	}
	must(f.T, open.Close())
	object := f.create("r2", nil)
	open, err = os.Create(filepath.Join(object.Root, "open"))
	must(f.T, err)
	f.is("Delete of what is in use", f.p.Delete(f.Context(), "r2", 1), cairn.ErrInUse)
	must(f.T, open.Close())
	must(f.T, f.p.Delete(f.Context(), "r2", 1))
}

// A snapshot without our mark is somebody's: it is not listed, not deleted, not rolled over, and keeps its dataset.
func othersSnapshots(f *fixture) {
	f.create("r1", nil)
	f.snapshot("r1", "s1")
	theirs := f.s.dataset + "/r1@daily"
	f.write("r1", "since then")
	f.zfs("snapshot", theirs)
	if n := len(f.stat("r1").Snapshots); n != 1 {
		f.Errorf("%d snapshots; want ours alone", n)
	}
	_, err := f.p.CreateSnapshot(f.Context(), "r1", 1, "daily")
	f.is("CreateSnapshot", err, cairn.ErrExists, "foreign")
	f.is("DeleteSnapshot", f.p.DeleteSnapshot(f.Context(), "r1", 1, "daily"), cairn.ErrExists, "foreign")
	f.is("Revert", f.p.Revert(f.Context(), "r1", 1, "s1"), cairn.ErrPrecondition, "daily")
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s1"))
	f.is("Delete", f.p.Delete(f.Context(), "r1", 1), cairn.ErrInUse, "daily")
	if f.zfs("list", "-H", "-o", "name", theirs) != theirs {
		f.Error("somebody's snapshot is gone")
	}
}

func fullWhileReceiving(f *fixture) {
	if f.s.pretends {
		return // writers have no limits there
	}
	f.create("r1", nil)
	f.write("r1", noise(40<<20))
	f.snapshot("r1", "s1")
	stream := f.stream("r1", drivers.SendSpec{Snapshot: "s1"})
	f.zfs("set", "quota=60M", f.s.dataset)
	f.is("Receive when the pool is full", f.receive("r2", "s1", "", stream), cairn.ErrNoSpace)
	token, snap, err := f.p.Partial(f.Context(), "r2")
	if err != nil || token == "" || snap != "s1" {
		f.Errorf("Partial: %q, %s, %v", token, snap, err)
	}
	if _, err := f.p.Stat(f.Context(), "r2"); err != nil {
		f.Errorf("Stat of half a receive: %v", err)
	}
	f.zfs("set", "quota=none", f.s.dataset)
	must(f.T, f.receive("r2", "s1", "", f.stream("r1", drivers.SendSpec{Snapshot: "s1", Resume: token})))
	f.holds(f.stat("r2").Root, noise(40<<20))
}

// noise does not compress.
func noise(n int) string {
	text, x := make([]byte, n), uint64(88172645463325252)
	for i := range text {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		text[i] = byte(x >> 32)
	}
	return string(text)
}

func specs(f *fixture) {
	for key, value := range map[string]string{
		"zfs:compression": "best", "zfs:recordsize": "100K", "zfs:atime": "maybe", "zfs:dedup": "yes", "zfs:thick": "1",
		"zfs:encryption": "rot13", "zfs:key_file": "/absent", "zfs:snapshot_reserve_percent": "-1", "zfs:quota": "1G", "zfs:": "",
	} {
		_, err := f.p.Create(f.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib, Specs: map[string]string{key: value}})
		f.is("Create with "+key+"="+value, err, cairn.ErrInvalid, key)
	}
	if _, err := f.p.Stat(f.Context(), "r1"); !errors.Is(err, cairn.ErrNotFound) {
		f.Errorf("a refused Create left something: %v", err)
	}
	f.create("r2", map[string]string{
		"zfs:compression": "lz4", "zfs:dedup": "on", "zfs:recordsize": "1M", "zfs:atime": "off", "zfs:snapshot_reserve_percent": "50", "lvm:stripes": "2",
	})
	for name, want := range map[string]string{"compression": "lz4", "dedup": "on", "recordsize": "1048576", "atime": "off", "quota": "201326592", "refquota": "134217728"} {
		if got := f.property(name, "r2"); got != want {
			f.Errorf("%s: %s; want %s", name, got, want)
		}
	}
	for _, size := range []int64{gib / 4, gib / 16} {
		must(f.T, f.p.Resize(f.Context(), "r2", 1, size))
		if got, want := f.stat("r2").Size, size; got != want {
			f.Errorf("size: %d; want %d", got, want)
		}
	}
	if got := f.property("quota", "r2"); got != "100663296" {
		f.Errorf("quota after a shrink: %s", got)
	}
}

func encrypted(f *fixture) {
	key := filepath.Join(f.TempDir(), "key")
	must(f.T, os.WriteFile(key, []byte(strings.Repeat("k", 32)), 0o600))
	crypt := map[string]string{"zfs:encryption": "aes-256-gcm", "zfs:key_file": key}
	f.create("r1", crypt)
	f.write("r1", "secret")
	f.snapshot("r1", "s1")
	f.zfs("unmount", f.s.dataset+"/r1")
	f.zfs("unload-key", f.s.dataset+"/r1")
	must(f.T, os.Rename(key, key+".away"))
	_, err := f.p.Stat(f.Context(), "r1")
	f.is("Stat without the key", err, cairn.ErrUnavailable, key)
	must(f.T, os.Rename(key+".away", key))
	f.holds(f.stat("r1").Root, "secret")
	spec := drivers.ReceiveSpec{CreateSpec: drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib / 8, Specs: crypt}, Snapshot: "s1"}
	must(f.T, f.p.Receive(f.Context(), spec, strings.NewReader(string(f.stream("r1", drivers.SendSpec{Snapshot: "s1"})))))
	f.holds(f.stat("r2").Root, "secret")
	for _, word := range f.words() {
		if strings.Contains(word, "kkkk") {
			f.Error("the key was an argument of a command")
		}
	}
}

// What is to be encrypted is not made of what is not.
func plainIsNotEncrypted(f *fixture) {
	key := filepath.Join(f.TempDir(), "key")
	must(f.T, os.WriteFile(key, []byte(strings.Repeat("0f", 32)+"\n"), 0o600))
	spec := drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib / 8, Specs: map[string]string{"zfs:encryption": "on", "zfs:key_file": key}}
	f.create("r1", nil)
	f.snapshot("r1", "s1")
	f.zfs("create", f.s.dataset+"/theirs")
	_, err := f.p.Clone(f.Context(), spec, "r1", "s1")
	f.is("Clone", err, cairn.ErrInvalid, "not encrypted")
	_, err = f.p.Adopt(f.Context(), spec, "theirs")
	f.is("Adopt", err, cairn.ErrInvalid, "not encrypted")
	err = f.p.Receive(f.Context(), drivers.ReceiveSpec{CreateSpec: spec, Snapshot: "s1"}, strings.NewReader(string(f.stream("r1", drivers.SendSpec{Snapshot: "s1"}))))
	f.is("Receive", err, cairn.ErrInvalid, "not encrypted")
	must(f.T, f.p.Abandon(f.Context(), "r2", 1))
	if f.property("cairn:id", "theirs") != "-" {
		f.Error("a refused Adopt left its mark")
	}
	if _, err := f.p.Create(f.Context(), spec); err != nil {
		f.Error(err)
	}
}

func dependents(f *fixture) {
	f.create("r1", nil)
	f.write("r1", "one")
	f.snapshot("r1", "s1")
	_, err := f.p.Clone(f.Context(), drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib / 8}, "r1", "s1")
	must(f.T, err)
	f.is("DeleteSnapshot of a clone's origin", f.p.DeleteSnapshot(f.Context(), "r1", 1, "s1"), cairn.ErrInUse, f.s.dataset+"/r2")
	f.is("Delete of a clone's origin", f.p.Delete(f.Context(), "r1", 1), cairn.ErrInUse)
	f.holds(f.stat("r2").Root, "one")
	must(f.T, f.p.Delete(f.Context(), "r2", 1))
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s1"))
	must(f.T, f.p.Delete(f.Context(), "r1", 1))
}

// A process that died while it sent has left its hold. Somebody else's is not ours to release.
func holdsLeft(f *fixture) {
	f.create("r1", nil)
	f.snapshot("r1", "s1")
	f.snapshot("r1", "s2")
	f.zfs("hold", "cairn-send", f.s.dataset+"/r1@s1")
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s1"))
	f.zfs("hold", "cairn-send", f.s.dataset+"/r1@s2")
	f.open(nil)
	if got := f.property("userrefs", "r1@s2"); got != "0" {
		f.Errorf("holds after Open: %s", got)
	}
	f.zfs("hold", "backup", f.s.dataset+"/r1@s2")
	f.is("DeleteSnapshot of what somebody holds", f.p.DeleteSnapshot(f.Context(), "r1", 1, "s2"), cairn.ErrInUse)
	f.zfs("release", "backup", f.s.dataset+"/r1@s2")
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s2"))
}

// Snapshots of several replicas that are cut together are of one moment, and not only close to each other.
func oneTransactionGroup(f *fixture) {
	f.create("r1", nil)
	f.create("r2", nil)
	must(f.T, f.p.CreateGroupSnapshot(f.Context(), []drivers.Cut{{Replica: "r1", Epoch: 1, Snapshot: "s1"}, {Replica: "r2", Epoch: 1, Snapshot: "s2"}}))
	f.snapshot("r2", "later")
	if a, b := f.property("createtxg", "r1@s1"), f.property("createtxg", "r2@s2"); a != b || b == f.property("createtxg", "r2@later") {
		f.Errorf("transaction groups of one group snapshot: %s and %s", a, b)
	}
}
