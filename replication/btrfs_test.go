package replication

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/btrfs"
)

// BenchmarkBtrfs is a snapshot's whole way from one file system to another: the driver, the stream with mutual TLS and its
// sums, and the driver again. Turn and turn about with it run `btrfs send | btrfs receive` and a flush through a local pipe.
// "ratio" is the throughput compared with that, in each round by itself, of which the median: what disturbed a round is in both.
// The CPU times are of this process, which is both nodes, and of the tools of a stream. "idle-ms" is what the drivers take to find
// out that nothing has changed.
func BenchmarkBtrfs(b *testing.B) {
	if !inMounts(b) {
		return
	}
	const size = 256 << 20
	from, fromDir := newBtrfs(b, "from")
	to, toDir := newBtrfs(b, "to")
	ctx := b.Context()
	object, err := from.Create(ctx, drivers.CreateSpec{ID: "s1-n1", Epoch: 1, Size: 1 << 30})
	must(b, err)
	must(b, os.WriteFile(filepath.Join(object.Root, "large"), noise(size/2), 0o644))
	for n := range size / 2 / (64 << 10) {
		must(b, os.WriteFile(filepath.Join(object.Root, fmt.Sprint("small-", n)), noise(64<<10), 0o644))
	}
	snap, err := from.CreateSnapshot(ctx, "s1-n1", 1, "snap")
	must(b, err)
	must(b, run("btrfs", "filesystem", "sync", fromDir))
	l := newLab(b)
	client := l.client("n2", "n1", l.serve("n1", sending(func(ctx context.Context, w io.Writer) error {
		return from.Send(ctx, "s1-n1", drivers.SendSpec{Snapshot: "snap"}, w)
	})))
	var stream, pipe, idle, own, tools time.Duration
	var ratios []float64
	for b.Loop() {
		began, busy, children := time.Now(), cpuTime(b, unix.RUSAGE_SELF), cpuTime(b, unix.RUSAGE_CHILDREN)
		_, err := client.Pull(ctx, "n1", request(), func(_ replica.Offer, r io.Reader) error {
			return to.Receive(ctx, drivers.ReceiveSpec{CreateSpec: drivers.CreateSpec{ID: "s1-n2", Epoch: 1, Size: 1 << 30}, Snapshot: "snap"}, r)
		})
		must(b, err)
		streamed := time.Since(began)
		stream += streamed
		own += cpuTime(b, unix.RUSAGE_SELF) - busy
		tools += cpuTime(b, unix.RUSAGE_CHILDREN) - children

		began = time.Now()
		for _, pool := range []*btrfs.Pool{from, to} {
			id := map[*btrfs.Pool]cairn.ReplicaID{from: "s1-n1", to: "s1-n2"}[pool]
			_, err := pool.Stat(ctx, id)
			must(b, err)
			changed, err := pool.Changed(ctx, id, "snap")
			must(b, err)
			if pool == from && changed != 0 {
				b.Fatalf("%d bytes changed in what nobody has touched", changed)
			}
		}
		idle += time.Since(began)
		must(b, to.DeleteSnapshot(ctx, "s1-n2", 1, "snap"))
		must(b, to.Delete(ctx, "s1-n2", 1))

		began = time.Now()
		must(b, run("sh", "-c", fmt.Sprintf("btrfs -q send %q | btrfs -q receive %q && btrfs filesystem sync %q", filepath.Dir(snap.Root), toDir, toDir)))
		piped := time.Since(began)
		pipe += piped
		ratios = append(ratios, piped.Seconds()/streamed.Seconds())
		must(b, run("btrfs", "subvolume", "delete", filepath.Join(toDir, filepath.Base(filepath.Dir(snap.Root)))))
		must(b, run("btrfs", "filesystem", "sync", toDir))
	}
	total := float64(b.N) * size / (1 << 20)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(total/stream.Seconds(), "MiB/s")
	b.ReportMetric(total/pipe.Seconds(), "pipe-MiB/s")
	slices.Sort(ratios)
	b.Logf("ratios: %.2f", ratios)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(own.Seconds()/total*1024, "cpu-s/GiB")
	b.ReportMetric(tools.Seconds()/total*1024, "tools-cpu-s/GiB")
	b.ReportMetric(idle.Seconds()*1000/float64(b.N), "idle-ms")
}

// inMounts starts this benchmark once more as root, with a mount namespace of its own, and reports whether it is there.
func inMounts(b *testing.B) bool {
	b.Helper()
	const inside = "CAIRN_TEST_MOUNT"
	if os.Getenv(inside) != "" {
		must(b, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
		return true
	}
	if os.Geteuid() != 0 {
		b.Skip("mounts file systems: run as root")
	}
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^"+b.Name()+"$", "-test.benchtime=5x")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	b.Logf("in a mount namespace of its own:\n%s", out)
	return false
}

// newBtrfs makes a file system of 2 GiB in memory with a pool in it.
func newBtrfs(b *testing.B, name string) (pool *btrfs.Pool, path string) {
	b.Helper()
	parent, err := os.MkdirTemp("/dev/shm", "cairn-replication-")
	must(b, err)
	b.Cleanup(func() { must(b, os.RemoveAll(parent)) })
	image, path := filepath.Join(parent, "image"), filepath.Join(parent, name)
	must(b, os.Mkdir(path, 0o700))
	must(b, os.WriteFile(image, nil, 0o600))
	must(b, os.Truncate(image, 2<<30))
	for _, command := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop", image, path}} {
		if err := run(command...); err != nil {
			b.Skip(err)
		}
	}
	b.Cleanup(func() { must(b, syscall.Unmount(path, syscall.MNT_DETACH)) })
	pool, err = btrfs.Open(b.Context(), btrfs.Config{Path: path, PoolID: cairn.MakePoolID(cairn.NodeID(name), "p"), Logger: slog.New(slog.DiscardHandler)})
	must(b, err)
	b.Cleanup(func() { _ = pool.Close() })
	return pool, path
}

func run(command ...string) error {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
