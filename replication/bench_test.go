package replication

import (
	"context"
	"crypto/sha256"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// writes is how drivers write: a tool's output comes in pieces of a pipe's size.
const writes = 64 << 10

func sendingZeros(size int64) source {
	return sending(func(_ context.Context, w io.Writer) error { return writeZeros(w, size) })
}

func writeZeros(w io.Writer, size int64) error {
	for piece := make([]byte, writes); size > 0; size -= int64(len(piece)) {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkStream is the way from one node to another, both in this process, over mutual TLS on loopback. Its limit in the same
// run is a pipe between two goroutines, whose bytes are summed once.
func BenchmarkStream(b *testing.B) {
	const size = 256 << 20
	l := newLab(b)
	client := l.client("n2", "n1", l.serve("n1", sendingZeros(size)))
	var local, remote, cpu time.Duration
	for b.Loop() {
		began := time.Now()
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeZeros(w, size)) }()
		_, err := io.CopyBuffer(struct{ io.Writer }{sha256.New()}, r, make([]byte, writes))
		must(b, err)
		local += time.Since(began)

		began, busy := time.Now(), cpuTime(b, unix.RUSAGE_SELF)
		_, err = client.Pull(b.Context(), "n1", request(), func(_ replica.Offer, r io.Reader) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, writes))
			return err
		})
		must(b, err)
		remote += time.Since(began)
		cpu += cpuTime(b, unix.RUSAGE_SELF) - busy
	}
	total := float64(size) * float64(b.N) / (1 << 20)
	b.ReportMetric(total/remote.Seconds(), "MiB/s")
	b.ReportMetric(total/local.Seconds(), "pipe-MiB/s")
	b.ReportMetric(local.Seconds()/remote.Seconds(), "ratio")
	b.ReportMetric(cpu.Seconds()/total*1024, "cpu-s/GiB") // of both sides; what other processes do does not change it
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what this process has used, or its children that have ended.
func cpuTime(b *testing.B, who int) time.Duration {
	var usage unix.Rusage
	must(b, unix.Getrusage(who, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCallBesideStream is what a small call waits while a stream runs: on a connection of its own, and on the stream's.
func BenchmarkCallBesideStream(b *testing.B) {
	l := newLab(b)
	served := sendingZeros(1 << 50)
	served.states = func([]cairn.ReplicaID) []replica.SyncState { return nil }
	h := l.serve("n1", served)
	for name, shared := range map[string]bool{"own": false, "shared": true} {
		b.Run(name, func(b *testing.B) {
			streams := l.dialer("n2", map[cairn.NodeID]*host{"n1": h})
			calls := streams
			if !shared {
				calls = l.dialer("n2", map[cairn.NodeID]*host{"n1": h})
			}
			conn, err := calls(b.Context(), "n1")
			must(b, err)
			ctx, cancel := context.WithCancel(b.Context())
			var pulling sync.WaitGroup
			defer pulling.Wait()
			defer cancel()
			running := make(chan struct{})
			pulling.Go(func() {
				_, _ = NewClient(streams, 0).Pull(ctx, "n1", request(), func(_ replica.Offer, r io.Reader) error {
					close(running)
					_, err := io.Copy(io.Discard, r)
					return err
				})
			})
			await(b, "the stream begins", running)
			ask := peerv1.NewReplicationServiceClient(conn)
			var worst time.Duration
			for b.Loop() {
				began := time.Now()
				_, err := ask.GetSyncStates(ctx, &peerv1.GetSyncStatesRequest{}, grpc.WaitForReady(true))
				must(b, err)
				worst = max(worst, time.Since(began))
			}
			b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
		})
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
