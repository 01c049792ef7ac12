package replica

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/btrfs"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/fsm"
)

// TestPromoteAroundDir and TestPromoteAroundBtrfs promote three replicas in any order, over the streams of real drivers. A
// share of 2 MiB is sent twice when the replicas are made, and never again: after that, only what has changed moves.
func TestPromoteAroundDir(t *testing.T) {
	base := scratch(t)
	promoteAround(t, func(m *member) drivers.Pool {
		path := filepath.Join(base, string(m.id))
		ok(t, os.MkdirAll(path, 0o700))
		pool, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: cairn.MakePoolID(m.id, "data"), Logger: slog.New(slog.DiscardHandler)})
		ok(t, err)
		t.Cleanup(func() { _ = pool.Close() })
		return pool
	}, drivers.CapabilitiesOf(&dir.Pool{}))
}

func TestPromoteAroundBtrfs(t *testing.T) {
	inMounts(t, func(t *testing.T) {
		base := scratch(t)
		promoteAround(t, func(m *member) drivers.Pool {
			path := mountBtrfs(t, filepath.Join(base, string(m.id)))
			pool, err := btrfs.Open(t.Context(), btrfs.Config{Path: path, PoolID: cairn.MakePoolID(m.id, "data"), Logger: slog.New(slog.DiscardHandler)})
			ok(t, err)
			t.Cleanup(func() { _ = pool.Close() })
			return pool
		}, drivers.CapabilitiesOf(&btrfs.Pool{}))
	})
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inMounts runs body as root in a process with a mount namespace of its own.
func inMounts(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	const inside = "CAIRN_TEST_MOUNT"
	if os.Geteuid() != 0 {
		t.Skip("mounts file systems: run as root")
	}
	if os.Getenv(inside) != "" {
		ok(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
		body(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", drivertest.Verbose, "-test.timeout=0")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	drivertest.Replay(t, out, err)
}

// mountBtrfs makes a file system and mounts it at path.
func mountBtrfs(t *testing.T, path string) string {
	t.Helper()
	image := path + ".image"
	ok(t, os.MkdirAll(path, 0o700))
	ok(t, os.WriteFile(image, nil, 0o600))
	ok(t, os.Truncate(image, 512*mib))
	for _, command := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop", image, path}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", command[0], err, out)
		}
	}
	t.Cleanup(func() { ok(t, syscall.Unmount(path, syscall.MNT_DETACH)) })
	return path
}

func promoteAround(t *testing.T, open func(*member) drivers.Pool, caps []cairn.Capability) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	s := &streams{newFleetOn(t, 3, cairn.FailoverManual, caps, open, readable), random}
	const files, size = 32, 64 << 10
	for n := range files {
		s.put(fmt.Sprint("file-", n), size)
	}
	s.wait()
	s.same()
	if s.full != 2 || s.moved < 2*files*size {
		t.Fatalf("%d full streams, %d bytes", s.full, s.moved)
	}
	for round := range 7 {
		before, active := s.moved, s.View().Share(fleetShare).Active
		s.put(fmt.Sprint("file-", random.IntN(files)), size)
		if round%3 == 0 {
			s.must(t, &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: cairn.SnapshotID(fmt.Sprint("p", round)), Share: fleetShare, Name: fmt.Sprint("p", round)}})
		}
		want := s.hash(s.object(active).Root)
		next := cairn.ReplicaID(fmt.Sprint("r", 1+random.IntN(3)))
		if next == active {
			next = cairn.ReplicaID(fmt.Sprint("r", 1+(int(active[1]-'0'))%3))
		}
		s.promote(next)
		if got := s.hash(s.object(next).Root); got != want {
			t.Errorf("round %d: %s has other data than %s had", round, next, active)
		}
		s.put("another", size)
		s.wait()
		s.same()
		// Two files, to two standbys; the driver's overhead is less than that once more.
		if moved := s.moved - before; moved > 8*size {
			t.Errorf("round %d: %d bytes moved for %d that were written", round, moved, 2*size)
		}
	}
	if s.full != 2 {
		t.Errorf("%d full streams, of which 2 made the replicas", s.full)
	}
	t.Logf("%d bytes at first, %d in all", 2*files*size, s.moved)
}

// streams is a fleet on real file systems.
type streams struct {
	*fleet
	random *rand.Rand
}

func (s *streams) object(id cairn.ReplicaID) drivers.Object {
	s.Helper()
	object, err := s.nodes[s.View().Replica(id).Node].pool.Stat(context.Background(), id)
	ok(s, err)
	return object
}

// put writes a file where the share is active.
func (s *streams) put(name string, size int) {
	s.Helper()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(s.random.Uint32())
	}
	ok(s, os.WriteFile(filepath.Join(s.object(s.View().Share(fleetShare).Active).Root, name), data, 0o600))
}

func (s *streams) hash(root string) string {
	s.Helper()
	sum, err := drivertest.Tree{}.Fingerprint(root)
	ok(s, err)
	return sum
}

// same compares, by a hash of the contents, every snapshot of every replica that is in sync with the active one's.
func (s *streams) same() {
	s.Helper()
	v := s.View()
	source := s.object(v.Share(fleetShare).Active)
	for r := range v.ReplicasOf(fleetShare) {
		if r.ID == source.ID {
			continue
		}
		if r.State != cairn.ReplicaInSync {
			s.Fatalf("%s is %s: %s", r.ID, r.State, r.Have.Fault.Message)
		}
		object := s.object(r.ID)
		newest := newestSyncPoint(inOrder(source.Snapshots))
		compared := 0
		for _, here := range object.Snapshots {
			for _, there := range source.Snapshots {
				if here.ID != there.ID {
					continue
				}
				compared++
				if s.hash(here.Root) != s.hash(there.Root) {
					s.Errorf("%s is in sync, and %s there is not what it is on %s", r.ID, here.ID, source.ID)
				}
			}
		}
		if compared == 0 || newestSyncPoint(inOrder(object.Snapshots)) != newest {
			s.Errorf("%s is in sync without sync point %s", r.ID, newest)
		}
		shown := s.nodes[r.Node].exporter.specs[drivers.ExportID{Replica: r.ID, Snapshot: newest}]
		if !shown.Standby || !shown.ReadOnly || s.hash(shown.Root) != s.hash(source.Root) {
			s.Errorf("%s is in sync, and clients read %+v", r.ID, shown)
		}
	}
}
