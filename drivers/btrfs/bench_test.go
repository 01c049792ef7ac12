package btrfs_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// BenchmarkReplicate sends one large file and many small ones from one file system to another, through the driver and, turn
// and turn about, with nothing but the tools and a flush. "ratio" is the throughput of the driver to that of the tools.
func BenchmarkReplicate(b *testing.B) {
	if !inNamespace(b) {
		out, err := startAgain(b, "-test.run=^$", "-test.bench=^"+b.Name()+"$")
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		b.Logf("in a mount namespace of its own:\n%s", out)
		return
	}
	disks := newDisks(b, 2)
	from, to := newFixture(b, disks[0], nil), newFixture(b, disks[1], nil)
	const large, small = 256 * mib, 2000
	root := from.create("r1", gib).Root
	must(b, os.WriteFile(filepath.Join(root, "large"), random(large), 0o644))
	for n := range small {
		must(b, os.WriteFile(filepath.Join(root, fmt.Sprint("small", n)), random(8<<10), 0o644))
	}
	snap := from.snapshot("r1", "s1")
	b.SetBytes(large + small*8<<10)
	var driver, bare time.Duration
	for b.Loop() {
		driver += took(func() { replicate(b, from, to) })
		bare += took(func() { pipe(b, filepath.Dir(snap.Root), disks[1].dir) })
		must(b, to.p.DeleteSnapshot(b.Context(), "r2", 1, "s1"))
		must(b, to.p.Delete(b.Context(), "r2", 1))
		must(b, execute("btrfs", "subvolume", "delete", filepath.Join(disks[1].dir, "s1")))
		must(b, execute("btrfs", "filesystem", "sync", disks[1].dir))
	}
	b.ReportMetric(float64(bare)/float64(driver), "ratio")
	b.ReportMetric(float64(b.N)*(large+small*8<<10)/mib/driver.Seconds(), "driver-MiB/s")
	b.ReportMetric(float64(b.N)*(large+small*8<<10)/mib/bare.Seconds(), "tools-MiB/s")
}

func took(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

func replicate(b *testing.B, from, to *fixture) {
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := from.p.Send(b.Context(), "r1", drivers.SendSpec{Snapshot: "s1"}, w)
		sent <- w.CloseWithError(err)
	}()
	must(b, to.p.Receive(b.Context(), drivers.ReceiveSpec{
		CreateSpec: drivers.CreateSpec{ID: cairn.ReplicaID("r2"), Epoch: 1, Size: gib}, Snapshot: "s1",
	}, r))
	must(b, <-sent)
}

func pipe(b *testing.B, snapshot, to string) {
	r, w, err := os.Pipe()
	must(b, err)
	send, receive := exec.Command("btrfs", "send", snapshot), exec.Command("btrfs", "receive", to)
	send.Stdout, receive.Stdin = w, r
	must(b, send.Start())
	must(b, receive.Start())
	must(b, w.Close())
	must(b, r.Close())
	must(b, send.Wait())
	must(b, receive.Wait())
	must(b, execute("sync", "-f", to))
}
