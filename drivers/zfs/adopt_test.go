package zfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func TestAdoption(t *testing.T) {
	m, _ := simulated(t)
	adoption(newFixture(t, m, nil))
}

// adoption manages a dataset of somebody's with the snapshots that it has, uses it as a share, and gives it back as it was: under its
// name, with its snapshots under theirs, the same ones, and with no property that it had not.
func adoption(f *fixture) {
	ctx := f.Context()
	theirs := f.s.dataset + "/theirs"
	f.zfs("create", "-o", "compression=lz4", "-o", "org.example:backup=nightly", theirs)
	root := f.property("mountpoint", "theirs")
	write := func(text string) { must(f.T, os.WriteFile(filepath.Join(root, "file"), []byte(text), 0o644)) }
	write("monday")
	f.zfs("snapshot", "-o", "org.example:keep=7", theirs+"@daily-1")
	write("tuesday")
	f.zfs("snapshot", theirs+"@daily-2")
	write("today")
	local := func(of string) string { // not the limits: a size stays set
		return f.zfs("get", "-Hp", "-s", "local", "-o", "property,value",
			"compression,org.example:backup,org.example:keep,cairn:id,cairn:epoch,cairn:state,cairn:size,cairn:adopted,cairn:released,cairn:reverted,cairn:snapshot,cairn:was",
			f.s.dataset+"/"+of)
	}
	guids := func(of string) string {
		return f.zfs("list", "-Hp", "-d", "1", "-t", "filesystem,snapshot", "-o", "guid", f.s.dataset+"/"+of)
	}
	before, same, keep := local("theirs"), guids("theirs"), local("theirs@daily-1")

	_, err := f.p.Adopt(ctx, drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib / 8}, "theirs")
	must(f.T, err)
	f.holds(f.stat("r1").Root, "today")
	if n := len(f.stat("r1").Snapshots); n != 0 {
		f.Errorf("%d snapshots are ours before they were managed", n)
	}
	must(f.T, f.p.AdoptSnapshot(ctx, "r1", 1, "s1", "daily-1"))
	must(f.T, f.p.AdoptSnapshot(ctx, "r1", 1, "s2", "daily-2"))
	f.open(nil) // as after a restart
	object := f.stat("r1")
	if len(object.Snapshots) != 2 || object.Snapshots[0].ID != "s1" || object.Snapshots[1].ID != "s2" {
		f.Fatalf("managed: %+v", object)
	}
	f.holds(object.Root, "today")
	f.holds(object.Snapshots[0].Root, "monday")
	f.holds(object.Snapshots[1].Root, "tuesday")
	if now := guids("r1"); now != same {
		f.Errorf("managed, these are other objects:\n%s\nnot\n%s", now, same)
	}
	// They do what snapshots of a share do: here a copy of one is made, and the data goes back to another.
	f.transfer("r1", "r2", "s1", "")
	f.holds(f.stat("r2").Root, "monday")
	must(f.T, f.p.Revert(ctx, "r1", 1, "s2"))
	f.holds(f.stat("r1").Root, "tuesday")

	f.is("Release with managed snapshots", f.p.Release(ctx, "r1", 1, "theirs"), cairn.ErrInUse)
	must(f.T, f.p.ReleaseSnapshot(ctx, "r1", 1, "s2", "other-name"))
	must(f.T, f.p.ReleaseSnapshot(ctx, "r1", 1, "s1", "s1"))
	must(f.T, f.p.Release(ctx, "r1", 1, "theirs"))
	if _, err := f.p.Stat(ctx, "r1"); err == nil {
		f.Error("a replica that was let go of is there")
	}
	if got := guids("theirs"); got != same {
		f.Errorf("given back, these are other objects:\n%s\nnot\n%s", got, same)
	}
	if got := local("theirs@daily-1"); got != keep {
		f.Errorf("a snapshot that was given back has\n%s\nand had\n%s", got, keep)
	}
	if got := local("theirs"); got != before {
		f.Errorf("what was given back has\n%s\nand had\n%s", got, before)
	}
	f.zfs("list", "-Hp", "-o", "name", theirs+"@daily-2")
	f.holds(f.property("mountpoint", "theirs"), "tuesday")
}
