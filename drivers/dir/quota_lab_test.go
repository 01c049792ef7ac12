//go:build lab

package dir_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

const mib = 1 << 20

// quotaDisks make file systems that can have project quotas.
var quotaDisks = map[string][]string{
	"ext4": {"mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"},
	"xfs":  {"mkfs.xfs", "-q", "-f"},
}

// heldToQuotas starts a process without the capability to exceed the quotas of ext4.
var heldToQuotas = []string{"setpriv", "--bounding-set=-sys_resource"}

// withQuotas runs body on each of them.
func withQuotas(t *testing.T, body func(t *testing.T, mnt string)) {
	for name, mkfs := range quotaDisks {
		t.Run(name, func(t *testing.T) {
			withMounts(t, func(t *testing.T) {
				disk := newLoopDisk(t, memory(t), mkfs...)
				disk.mount(t, "prjquota")
				body(t, disk.dir)
			}, heldToQuotas...)
		})
	}
}

func TestLabQuotaConformance(t *testing.T) {
	withQuotas(t, func(t *testing.T, mnt string) { drivertest.Conformance(t, quotaHarness(mnt)) })
}

// TestLabQuotaCrashSweep crashes around the steps that have to do with projects and limits. The others are swept without
// quotas, on a machine that is faster than a lab.
func TestLabQuotaCrashSweep(t *testing.T) {
	withQuotas(t, func(t *testing.T, mnt string) {
		h := quotaHarness(mnt)
		h.Every = 32
		h.New = func(t *testing.T) (drivertest.Storage, func()) {
			s, remove := newStorage(t, mnt)
			return leanStorage{quotaStorage{s.(storage)}}, remove
		}
		drivertest.CrashSweep(t, h)
	})
}

// quotaHarness is harness with pools whose quotas are surveyed, too.
func quotaHarness(base string) drivertest.Harness {
	h := harness(base)
	h.New = func(t *testing.T) (drivertest.Storage, func()) {
		s, remove := newStorage(t, base)
		return quotaStorage{s.(storage)}, remove
	}
	return h
}

// quotaStorage takes for debris what is counted for the wrong project, and a limit that is not the size.
type quotaStorage struct{ storage }

func (s quotaStorage) Survey(objects []drivers.Object) (map[string]string, []string, error) {
	foreign, debris, err := s.storage.Survey(objects)
	if err != nil {
		return nil, nil, err
	}
	owned := make(map[string]uint32) // trees, and the project that they must belong to
	for _, root := range foreign {
		owned[root] = 0
	}
	for _, object := range objects {
		for _, snap := range object.Snapshots {
			if snap.Ready {
				owned[snap.Root] = 0
			}
		}
		if !object.Ready {
			continue
		}
		project, _, err := dir.ProjectOf(object.Root)
		if err != nil {
			return nil, nil, err
		}
		owned[object.Root], owned[object.Staging] = project, project
		if limit, err := dir.LimitOf(s.path, project); err != nil {
			return nil, nil, err
		} else if project == 0 || limit != object.Size {
			debris = append(debris, fmt.Sprintf("%s has size %d, project %d and limit %d", object.ID, object.Size, project, limit))
		}
	}
	for root, project := range owned {
		strays, err := notOf(root, project)
		if err != nil {
			return nil, nil, err
		}
		debris = append(debris, strays...)
	}
	return foreign, debris, nil
}

// leanStorage shows only some steps to whoever opens it.
type leanStorage struct{ quotaStorage }

func (s leanStorage) Open(ctx context.Context, step drivertest.Step) (drivers.Pool, error) {
	var dead atomic.Pointer[error] // what the first step said that was not taken: none is taken after it
	return s.quotaStorage.Open(ctx, func(name string, do func() error) error {
		if err := dead.Load(); err != nil {
			return *err
		}
		if name != "set limit" && name != "set project" && !strings.HasPrefix(name, "COMMIT ") {
			return do()
		}
		var done error
		err := step(name, func() error { done = do(); return done })
		if err != done {
			dead.Store(&err)
		}
		return err
	})
}

// notOf finds what in a tree does not belong to a project.
func notOf(root string, project uint32) ([]string, error) {
	var strays []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		has, inherited, err := dir.ProjectOf(path)
		if has != project || inherited != (d.IsDir() && project != 0) {
			strays = append(strays, fmt.Sprintf("%s has project %d, inherited: %t; want %d", path, has, inherited, project))
		}
		return err
	})
	return strays, err
}

// limits are the projects other than 0 that have a limit or use anything, as the administrator's tool reports them.
func limits(t *testing.T, mnt string) []string {
	t.Helper()
	out, err := exec.Command("repquota", "-P", "-n", "-v", mnt).Output()
	must(t, err)
	var found []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // #77 -- used soft hard inodes soft hard
		if len(f) == 8 && f[0] != "#0" && strings.HasPrefix(f[0], "#") && (f[2] != "0" || f[4] != "0" || f[5] != "0") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// put writes a file and reports whether there was room for it.
func put(t *testing.T, path string, size int64) bool {
	t.Helper()
	err := os.WriteFile(path, make([]byte, size), 0o644)
	if errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC) {
		must(t, os.Remove(path))
		return false
	}
	must(t, err)
	return true
}

// TestLabQuota: the kernel holds a replica to its size, whatever becomes of it.
func TestLabQuota(t *testing.T) {
	withQuotas(t, func(t *testing.T, mnt string) {
		ctx := t.Context()
		p, err := dir.Open(ctx, dir.Config{Path: filepath.Join(mnt, "pool"), PoolID: poolID})
		must(t, err)
		defer func() { must(t, p.Close()) }()
		info, err := p.Info(ctx)
		must(t, err)
		if info.Enforcement != drivers.EnforcedByFileSystem {
			t.Fatalf("Info: %+v; want sizes enforced by the file system", info)
		}
		room := func(when, path string, size int64, want bool) {
			t.Helper()
			if got := put(t, path, size); got != want {
				t.Errorf("%s: room for %d bytes in %s: %t; want %t", when, size, path, got, want)
			}
		}
		r1, err := p.Create(ctx, drivers.CreateSpec{ID: "r1", Epoch: 1, Size: 8 * mib})
		must(t, err)
		room("created", r1.Root+"/half", 5*mib, true)
		room("created", r1.Root+"/beyond", 5*mib, false)
		room("created, an upload", r1.Staging+"/beyond", 5*mib, false)
		room("created, an upload", r1.Staging+"/upload", mib, true)
		must(t, os.Rename(r1.Staging+"/upload", r1.Root+"/upload"))

		is(t, "shrink below what is used", p.Resize(ctx, "r1", 1, 4*mib), cairn.ErrDataLoss)
		must(t, p.Resize(ctx, "r1", 1, 7*mib))
		room("shrunk", r1.Root+"/beyond", 2*mib, false)

		used, err := p.Usage(ctx, "r1")
		must(t, err)
		for _, snap := range []cairn.SnapshotID{"s1", "s2"} {
			_, err = p.CreateSnapshot(ctx, "r1", 1, snap)
			must(t, err)
		}
		if now, err := p.Usage(ctx, "r1"); err != nil || now != used || used < 6*mib || used > 7*mib {
			t.Errorf("usage with two snapshots: %d, %v; want %d as before, a little over 6 MiB", now, err, used)
		}
		// While it lasts there is the old and the new data, more than the size.
		must(t, p.Revert(ctx, "r1", 1, "s1"))
		room("reverted", r1.Root+"/beyond", 2*mib, false)
		must(t, p.Resize(ctx, "r1", 1, 12*mib))
		room("grown", r1.Root+"/more", 5*mib, true)
		room("grown", r1.Root+"/beyond", 2*mib, false)

		r2, err := p.Clone(ctx, drivers.CreateSpec{ID: "r2", Epoch: 1, Size: 8 * mib}, "r1", "s1")
		must(t, err)
		room("cloned", r2.Root+"/beyond", 3*mib, false)
		room("cloned", r2.Root+"/within", mib, true)

		for _, snap := range []cairn.SnapshotID{"s1", "s2"} {
			must(t, p.DeleteSnapshot(ctx, "r1", 1, snap))
		}
		must(t, p.Delete(ctx, "r1", 1))
		must(t, p.Delete(ctx, "r2", 1))
		if left := limits(t, mnt); len(left) > 0 {
			t.Errorf("after the last replica: %q", left)
		}
	})
}

// TestLabQuotaAdopt: adopted data is counted and limited, what is moved about in it stays so, and a release gives it back as it
// was.
func TestLabQuotaAdopt(t *testing.T) {
	withQuotas(t, func(t *testing.T, mnt string) {
		ctx := t.Context()
		path := filepath.Join(mnt, "pool")
		p, err := dir.Open(ctx, dir.Config{Path: path, PoolID: poolID})
		must(t, err)
		defer func() { must(t, p.Close()) }()
		theirs := filepath.Join(path, "theirs")
		must(t, os.MkdirAll(theirs+"/sub", 0o755))
		put(t, theirs+"/sub/half", 5*mib)
		r1, err := p.Adopt(ctx, drivers.CreateSpec{ID: "r1", Epoch: 1, Size: 8 * mib}, "theirs")
		must(t, err)
		if put(t, r1.Root+"/sub/beyond", 5*mib) {
			t.Error("adopted data grew beyond its size")
		}
		must(t, os.Rename(r1.Root+"/sub/half", r1.Staging+"/half"))
		must(t, os.Rename(r1.Staging+"/half", r1.Root+"/half"))
		must(t, p.Release(ctx, "r1", 1, "theirs"))
		if !put(t, theirs+"/sub/beyond", 5*mib) {
			t.Error("released data still has a limit")
		}
		if left := limits(t, mnt); len(left) > 0 {
			t.Errorf("after the release: %q", left)
		}

		must(t, execute("chattr", "-p", "77", "+P", theirs))
		_, err = p.Adopt(ctx, drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib}, "theirs")
		is(t, "Adopt of a directory with a project of its own", err, cairn.ErrPrecondition)
	})
}

// TestLabQuotaTaken: a replica does not get a project that somebody else's files belong to.
func TestLabQuotaTaken(t *testing.T) {
	withQuotas(t, func(t *testing.T, mnt string) {
		p, err := dir.Open(t.Context(), dir.Config{Path: filepath.Join(mnt, "pool"), PoolID: poolID})
		must(t, err)
		defer func() { must(t, p.Close()) }()
		taken, _, err := dir.ProjectOf(create(t, p, "r1").Root)
		must(t, err)
		must(t, p.Delete(t.Context(), "r1", 1))
		other := filepath.Join(mnt, "other")
		must(t, os.Mkdir(other, 0o755))
		must(t, execute("chattr", "-p", fmt.Sprint(taken), other))
		now, _, err := dir.ProjectOf(create(t, p, "r1").Root)
		must(t, err)
		if now == 0 || now == taken {
			t.Errorf("project of r1: %d; somebody else has %d", now, taken)
		}
	})
}

// TestLabQuotaComesLater: what was made while the pool had no quotas gets its limit when it is opened with them.
func TestLabQuotaComesLater(t *testing.T) {
	for name, mkfs := range quotaDisks {
		t.Run(name, func(t *testing.T) {
			withMounts(t, func(t *testing.T) {
				disk := newLoopDisk(t, memory(t), mkfs...)
				unmount := disk.mount(t, "rw")
				s := quotaStorage{storage{filepath.Join(disk.dir, "pool")}}
				p, err := s.Open(t.Context(), nil)
				must(t, err)
				noteAbout(t, p, "not by quotas")
				object := create(t, p.(*dir.Pool), "r1")
				must(t, drivertest.Tree{}.Fill(object.Root, "one"))
				must(t, s.Close(p))
				unmount()

				disk.mount(t, "prjquota")
				p, err = s.Open(t.Context(), nil)
				must(t, err)
				defer func() { must(t, s.Close(p)) }()
				seen, err := drivertest.Observe(t.Context(), p, s, drivertest.Tree{})
				must(t, err)
				if len(seen.Objects) != 1 || !seen.Objects[0].Ready || len(seen.Debris) > 0 {
					t.Errorf("opened with quotas: %v", seen)
				}
			}, heldToQuotas...)
		})
	}
}

// TestLabQuotaExceeded: ext4 lets a process with CAP_SYS_RESOURCE exceed quotas, and the pool says so instead of claiming them.
func TestLabQuotaExceeded(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		disk := newLoopDisk(t, memory(t), quotaDisks["ext4"]...)
		disk.mount(t, "prjquota")
		p, err := dir.Open(t.Context(), dir.Config{Path: filepath.Join(disk.dir, "pool"), PoolID: poolID})
		must(t, err)
		defer func() { must(t, p.Close()) }()
		noteAbout(t, p, "CAP_SYS_RESOURCE")
		create(t, p, "r1")
		if left := limits(t, disk.dir); len(left) > 0 {
			t.Errorf("projects: %q; want none", left)
		}
	})
}

// noteAbout makes sure that the pool leaves sizes to the exporter, and says why.
func noteAbout(t *testing.T, p drivers.Pool, why string) {
	t.Helper()
	info, err := p.Info(t.Context())
	must(t, err)
	if info.Enforcement != drivers.EnforcedByExporter || !strings.Contains(strings.Join(info.Notes, "\n"), why) {
		t.Errorf("Info: %+v; want sizes enforced by the exporter, and %q in a note", info, why)
	}
}
