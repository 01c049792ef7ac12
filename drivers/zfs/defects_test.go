package zfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func TestDefects(t *testing.T) {
	m, _ := simulated(t)
	defects(t, m)
}

// defects are those of Manila's ZFSonLinux driver that a pool driver can have. Each test fails with the defect.
func defects(t *testing.T, m machine) {
	for _, tt := range []struct {
		name string
		run  func(*fixture)
	}{
		{"1 the old active stays writable", sealedIsReadOnly},
		{"2 a command goes to another executor than the lookup before it", oneExecutor},
		{"3 a lost base is a permanent error", lostBase},
		{"4 a failback finds no common base", failback},
		{"5 the quota of a replica is not raised with the share", replicaGrows},
		{"6 deletes are not idempotent, and match substrings", deletesExactly},
		{"7 options that do nothing or too much", options},
		{"8 no revert, no snapshots to mount, no thick shares", whatWasMissing},
		{"9 a missing dataset is available after a start", missingIsMissing},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(newFixture(t, m, nil)) })
	}
}

// A client has the file open, and the seal is what stops it: not a command that happens to succeed.
func sealedIsReadOnly(f *fixture) {
	root := f.create("r1", nil).Root
	file, err := os.Create(filepath.Join(root, "open"))
	must(f.T, err)
	defer file.Close()
	must(f.T, f.p.Seal(f.Context(), "r1", 2))
	if f.property("readonly", "r1") != "on" || !f.stat("r1").Sealed {
		f.Error("a sealed replica is writable")
	}
	if f.s.pretends {
		return
	}
	if _, err := file.WriteString("late"); err == nil {
		f.Error("a client wrote to a sealed replica through a file that was open")
	}
}

func oneExecutor(f *fixture) {
	f.create("r1", nil)
	f.snapshot("r1", "s1")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, verb := range []string{"zfs list", "zfs create", "zfs snapshot", "cat /proc/spl"} {
		if !slices.ContainsFunc(f.ran, func(c string) bool { return strings.HasPrefix(c, verb) }) {
			f.Errorf("%q did not go through the one runner", verb)
		}
	}
}

func lostBase(f *fixture) {
	f.create("r1", nil)
	f.write("r1", "one")
	f.snapshot("r1", "s1")
	f.transfer("r1", "r2", "s1", "")
	f.write("r1", "two")
	f.snapshot("r1", "s2")
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s1"))
	f.transfer("r1", "r2", "s2", "s1") // from the bookmark
	f.holds(f.stat("r2").Root, "two")

	f.zfs("destroy", f.s.dataset+"/r1#s2")
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s2"))
	f.write("r1", "three")
	f.snapshot("r1", "s3")
	err := f.p.Send(f.Context(), "r1", drivers.SendSpec{Snapshot: "s3", Base: "s2"}, nil)
	f.is("Send from a base of which nothing is left", err, cairn.ErrNotFound)
	f.transfer("r1", "r3", "s3", "") // a re-seed
	f.holds(f.stat("r3").Root, "three")
}

func failback(f *fixture) {
	f.create("r1", nil)
	f.write("r1", "one")
	f.snapshot("r1", "s1")
	f.transfer("r1", "r2", "s1", "")
	f.transfer("r1", "r3", "s1", "")
	f.write("r1", "two")
	f.snapshot("r1", "s2")
	f.transfer("r1", "r2", "s2", "s1") // r3 has not got it when r1 fails
	must(f.T, f.p.Seal(f.Context(), "r1", 2))
	must(f.T, f.p.Unseal(f.Context(), "r2", 2))
	f.write("r2", "three")
	_, err := f.p.CreateSnapshot(f.Context(), "r2", 2, "s3")
	must(f.T, err)
	f.transfer("r2", "r3", "s3", "s1")
	stream := f.stream("r2", drivers.SendSpec{Snapshot: "s3", Base: "s2"})
	spec := drivers.ReceiveSpec{CreateSpec: drivers.CreateSpec{ID: "r1", Epoch: 2, Size: gib / 8}, Snapshot: "s3", Base: "s2"}
	must(f.T, f.p.Receive(f.Context(), spec, strings.NewReader(string(stream))))
	f.holds(f.stat("r1").Root, "three")
	f.holds(f.stat("r3").Root, "three")
}

func replicaGrows(f *fixture) {
	f.create("r1", nil)
	f.write("r1", "one")
	f.snapshot("r1", "s1")
	f.transfer("r1", "r2", "s1", "")
	must(f.T, f.p.Resize(f.Context(), "r2", 1, gib/4))
	if got := f.property("refquota", "r2"); got != "268435456" || f.stat("r2").Size != gib/4 {
		f.Errorf("refquota of a replica that has grown: %s", got)
	}
	if got := f.property("quota", "r2"); got != "0" {
		f.Errorf("quota: %s; snapshots would eat the share", got)
	}
}

func deletesExactly(f *fixture) {
	for _, id := range []cairn.ReplicaID{"r1", "r10", "ar1"} {
		f.create(id, nil)
		f.snapshot(id, "s1")
		f.snapshot(id, "s10")
	}
	for range 2 {
		must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s1"))
	}
	must(f.T, f.p.DeleteSnapshot(f.Context(), "r1", 1, "s10"))
	for range 2 {
		must(f.T, f.p.Delete(f.Context(), "r1", 1))
	}
	for _, id := range []cairn.ReplicaID{"r10", "ar1"} {
		if n := len(f.stat(id).Snapshots); n != 2 {
			f.Errorf("%s has %d snapshots left; want 2", id, n)
		}
	}
	for _, line := range f.ran {
		if verb := strings.Fields(line)[1]; (verb == "list" || verb == "get") && !strings.Contains(line, " -Hp ") {
			f.Errorf("%q asks for a table for people", line)
		}
	}
}

func options(f *fixture) {
	lostBase(f)
	for _, bad := range []string{"-D", "-R", "-F", "-f", "-vD", "-r", "-I"} {
		if slices.Contains(f.words(), bad) {
			f.Errorf("a command has %s", bad)
		}
	}
}

func whatWasMissing(f *fixture) {
	f.create("r1", map[string]string{"zfs:thick": "true"})
	if got := f.property("refreservation", "r1"); got != "134217728" {
		f.Errorf("refreservation of a thick replica: %s", got)
	}
	f.write("r1", "one")
	snap := f.snapshot("r1", "s1")
	f.write("r1", "two")
	f.holds(snap.Root, "one")
	must(f.T, f.p.Revert(f.Context(), "r1", 1, "s1"))
	f.holds(f.stat("r1").Root, "one")
}

func missingIsMissing(f *fixture) {
	f.create("r1", nil)
	f.create("r2", nil)
	f.zfs("destroy", f.s.dataset+"/r1")
	f.zfs("rename", f.s.dataset+"/r2", f.s.dataset+"/other")
	f.open(nil)
	_, err := f.p.Stat(f.Context(), "r1")
	f.is("Stat of a dataset that was destroyed", err, cairn.ErrNotFound)
	_, err = f.p.Stat(f.Context(), "r2")
	f.is("Stat of a dataset that was renamed", err, cairn.ErrPrecondition, "renamed", "/other")
	f.is("Delete of a dataset that was renamed", f.p.Delete(f.Context(), "r2", 1), cairn.ErrPrecondition)
	if _, err := f.p.Create(f.Context(), drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib}); !errors.Is(err, cairn.ErrPrecondition) {
		f.Errorf("Create in the place of a dataset that was renamed: %v", err)
	}
	f.zfs("rename", f.s.dataset+"/other", f.s.dataset+"/r2")
	f.stat("r2")
	list, err := f.p.List(f.Context())
	if err != nil || len(list) != 1 || list[0].ID != "r2" {
		f.Errorf("List: %+v, %v", list, err)
	}
}
