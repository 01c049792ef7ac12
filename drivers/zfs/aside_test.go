package zfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func TestAside(t *testing.T) {
	m, _ := simulated(t)
	asides(t, m)
	t.Run("busy", func(t *testing.T) {
		m, z := simulated(t)
		f := newFixture(t, m, nil)
		f.history("r1", nil)
		leave, err := z.Occupy(f.s.dataset + "/r1")
		must(t, err)
		f.is("Revert of what is in use", f.p.Revert(t.Context(), "r1", 1, "s1"), cairn.ErrInUse)
		f.alone("r1")
		f.holds(f.stat("r1").Root, "three")
		leave()
		must(t, f.p.Revert(t.Context(), "r1", 1, "s1"))
		f.holds(f.stat("r1").Root, "one")
	})
}

// asides are reverts past newer snapshots of replicas that are not the plain ones of the conformance suite.
func asides(t *testing.T, m machine) {
	for name, run := range map[string]func(*fixture){
		"properties": asideProperties, "encrypted": asideEncrypted, "others": asideOthers, "bookmarks": asideBookmarks, "stream": asideStream,
		"a mark from the first byte on": markedFromTheFirstByte,
	} {
		t.Run(name, func(t *testing.T) { run(newFixture(t, m, nil)) })
	}
}

// history is a replica with the snapshots s1 and s2, which hold "one" and "two", and "three" in it.
func (f *fixture) history(id cairn.ReplicaID, specs map[string]string) {
	f.Helper()
	f.create(id, specs)
	for i, text := range []string{"one", "two"} {
		f.write(id, text)
		f.snapshot(id, cairn.SnapshotID([]string{"s1", "s2"}[i]))
	}
	f.write(id, "three")
}

// beside lists the datasets that a replica has beside its own.
func (f *fixture) beside(id cairn.ReplicaID) []string {
	f.Helper()
	var names []string
	for line := range strings.Lines(f.zfs("list", "-Hp", "-o", "name", "-d", "1", "-t", "filesystem", f.s.dataset)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), f.s.dataset+"/"+string(id)+"-"); ok {
			names = append(names, string(id)+"-"+name)
		}
	}
	return names
}

func (f *fixture) alone(id cairn.ReplicaID) {
	f.Helper()
	if names := f.beside(id); len(names) > 0 {
		f.Errorf("left beside %s: %v", id, names)
	}
}

func asideProperties(f *fixture) {
	f.history("r1", map[string]string{"zfs:thick": "true", "zfs:snapshot_reserve_percent": "50", "zfs:compression": "lz4", "zfs:recordsize": "16K"})
	must(f.T, f.p.Revert(f.Context(), "r1", 1, "s1"))
	f.holds(f.stat("r1").Root, "one")
	for name, want := range map[string]string{
		"refquota": "134217728", "quota": "201326592", "refreservation": "134217728", "compression": "lz4", "recordsize": "16384", "readonly": "off",
	} {
		if got := f.property(name, "r1"); got != want {
			f.Errorf("%s after a revert: %s; want %s", name, got, want)
		}
	}
	for _, name := range f.beside("r1") {
		if got := f.property("refreservation", name); got != "0" {
			f.Errorf("%s reserves %s bytes", name, got)
		}
	}
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s2"))
	f.alone("r1")
}

// A promotion unloads the key, and it is the key of another dataset while a revert is cut off.
func asideEncrypted(f *fixture) {
	key := filepath.Join(f.TempDir(), "key")
	must(f.T, os.WriteFile(key, []byte(strings.Repeat("k", 32)), 0o600))
	f.history("r1", map[string]string{"zfs:encryption": "aes-256-gcm", "zfs:key_file": key})
	must(f.T, f.p.Revert(f.Context(), "r1", 1, "s1"))
	object := f.stat("r1")
	f.holds(object.Root, "one")
	f.holds(object.Snapshots[1].Root, "two")
	must(f.T, f.p.Revert(f.Context(), "r1", 1, "s2"))
	f.holds(f.stat("r1").Root, "two")

	home, turned := f.s.dataset+"/r1", f.s.dataset+"/r1-turn"
	f.zfs("clone", "-o", "cairn:id=r1", "-o", "cairn:epoch=1", "-o", "cairn:state=ready", home+"@s1", turned)
	f.zfs("promote", turned)
	f.zfs("unmount", home)
	object = f.stat("r1")
	f.holds(object.Root, "two")
	f.holds(object.Snapshots[0].Root, "one")
	f.snapshot("r1", "s3")
	f.alone("r1")
	f.holds(f.stat("r1").Root, "two")
}

// What is not ours does not move.
func asideOthers(f *fixture) {
	f.history("r1", nil)
	f.zfs("create", f.s.dataset+"/r1/nested")
	f.is("Revert of what somebody has a dataset in", f.p.Revert(f.Context(), "r1", 1, "s1"), cairn.ErrInUse, "nested")
	f.zfs("destroy", f.s.dataset+"/r1/nested")
	f.zfs("snapshot", f.s.dataset+"/r1@daily")
	f.is("Revert past somebody's snapshot", f.p.Revert(f.Context(), "r1", 1, "s1"), cairn.ErrPrecondition, "daily")
	f.alone("r1")
	f.holds(f.stat("r1").Root, "three")
	f.zfs("destroy", f.s.dataset+"/r1@daily")
	f.create("r1-foo", nil) // is no part of it
	must(f.T, f.p.Revert(f.Context(), "r1", 1, "s1"))
	must(f.T, f.p.Delete(f.Context(), "r1-foo", 1))
	f.holds(f.stat("r1").Root, "one")
}

// What was sent before stays a base, also when its snapshot is gone.
func asideBookmarks(f *fixture) {
	f.create("r1", nil)
	f.write("r1", "zero")
	f.snapshot("r1", "s0")
	f.transfer("r1", "r2", "s0", "")
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s0"))
	for i, text := range []string{"one", "two"} {
		f.write("r1", text)
		f.snapshot("r1", cairn.SnapshotID([]string{"s1", "s2"}[i]))
	}
	must(f.T, f.p.Revert(f.Context(), "r1", 1, "s1"))
	f.write("r1", "three")
	f.snapshot("r1", "s3")
	f.transfer("r1", "r2", "s3", "s0")
	f.holds(f.stat("r2").Root, "three")
}

// What lies aside is not in the line of what came since: there is no stream from the one to the other.
func asideStream(f *fixture) {
	f.history("r1", nil)
	must(f.T, f.p.Revert(f.Context(), "r1", 1, "s1"))
	f.write("r1", "four")
	f.snapshot("r1", "s3")
	f.is("Send from what lies aside", f.p.Send(f.Context(), "r1", drivers.SendSpec{Snapshot: "s3", Base: "s2"}, nil), cairn.ErrNotFound)
	if n, err := f.p.Changed(f.Context(), "r1", "s2"); err != nil || n == 0 {
		f.Errorf("Changed since what lies aside: %d, %v; want a doubt", n, err)
	}
	f.transfer("r1", "r2", "s2", "")
	f.holds(f.stat("r2").Root, "two")
}

// Power that is lost in "zfs receive" leaves a dataset with none of the properties that were to be set on it. Here none are: the
// mark is that of the dataset around it.
func markedFromTheFirstByte(f *fixture) {
	f.create("r1", nil)
	f.write("r1", noise(1<<20))
	f.snapshot("r1", "s1")
	stream := f.stream("r1", drivers.SendSpec{Snapshot: "s1"})
	for _, giveUp := range []func() error{
		func() error { return f.p.Abandon(f.Context(), "r2", 1) },
		func() error { return f.p.Delete(f.Context(), "r2", 1) },
		func() error {
			return f.receive("r2", "s1", "", f.stream("r1", drivers.SendSpec{Snapshot: "s1", Resume: f.partial("r2")}))
		},
	} {
		if err := f.receive("r2", "s1", "", stream[:len(stream)/2]); err == nil {
			f.Error("Receive of half a stream succeeded")
		}
		out := f.zfs("list", "-Hp", "-r", "-o", "name,cairn:id", "-t", "filesystem", f.s.dataset)
		for line := range strings.Lines(out) {
			name, id, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if name != f.s.dataset && id == "-" {
				f.Errorf("%s carries no mark", name)
			}
		}
		if local := f.zfs("get", "-Hp", "-s", "local", "-o", "value", "cairn:id", f.s.dataset+"/r2-in/data"); local != "" {
			f.Errorf("what is received has a mark of its own, %s: then this test shows nothing", local)
		}
		f.partial("r2")
		must(f.T, giveUp())
		f.alone("r2")
	}
	f.holds(f.stat("r2").Root, noise(1<<20))
}

func (f *fixture) partial(id cairn.ReplicaID) string {
	f.Helper()
	token, snap, err := f.p.Partial(f.Context(), id)
	if err != nil || token == "" || snap != "s1" {
		f.Errorf("Partial: %q, %s, %v", token, snap, err)
	}
	return token
}
