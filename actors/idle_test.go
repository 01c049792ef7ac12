package actors

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
)

const idleActors = 100_000

// idleRuntime makes a runtime with idleActors actors that have all run once and wait for their next look in an hour. It
// returns the bytes and the goroutines that one actor holds, the 36 bytes of its own identifier included.
func idleRuntime(tb testing.TB) (r *Runtime, bytes, goroutines float64) {
	tb.Helper()
	var passes atomic.Int64
	done := make(chan struct{})
	r = New(Config{})
	r.Handle(cairn.KindReplica, actorFunc(func(context.Context, string) (Outcome, error) {
		if passes.Add(1) == idleActors {
			close(done)
		}
		return Outcome{Again: time.Hour}, nil
	}))
	heap, running := memory()
	r.WakeAll(identifiers())
	<-done
	for r.Stats().Running > 0 {
		runtime.Gosched() // the last passes are on their way out
	}
	heapAfter, runningAfter := memory()
	return r, (heapAfter - heap) / idleActors, (runningAfter - running) / idleActors
}

func identifiers() iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for i := range idleActors {
			if !yield(Key{cairn.KindReplica, fmt.Sprintf("01900000-0000-7000-8000-%012x", i)}) {
				return
			}
		}
	}
}

func memory() (heap, goroutines float64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), float64(runtime.NumGoroutine())
}

func TestIdleActorIsSmallAndHasNoGoroutine(t *testing.T) {
	r, bytes, goroutines := idleRuntime(t)
	t.Logf("%.0f bytes and %.5f goroutines per idle actor", bytes, goroutines)
	if s := r.Stats(); s.Delayed != idleActors {
		t.Fatalf("%d actors wait, want %d", s.Delayed, idleActors)
	}
	if bytes >= 200 {
		t.Errorf("%.0f bytes per idle actor, want less than 200", bytes)
	}
	if goroutines*idleActors > 2 {
		t.Errorf("%.0f goroutines for %d idle actors, want none", goroutines*idleActors, idleActors)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkIdleActor(b *testing.B) {
	for b.Loop() {
		r, bytes, goroutines := idleRuntime(b)
		b.ReportMetric(bytes, "bytes/actor")
		b.ReportMetric(goroutines, "goroutines/actor")
		if err := r.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWake wakes actors of 100,000 from every CPU at once, pass included: what the one lock costs.
func BenchmarkWake(b *testing.B) {
	r, _, _ := idleRuntime(b)
	r.Handle(cairn.KindShare, actorFunc(func(context.Context, string) (Outcome, error) { return Outcome{}, nil }))
	var keys []Key
	for key := range identifiers() {
		keys = append(keys, Key{cairn.KindShare, key.ID})
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i = (i + 7919) % len(keys) {
			r.Wake(keys[i])
		}
	})
	b.StopTimer()
	if err := r.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
