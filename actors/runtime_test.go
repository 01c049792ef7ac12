package actors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
)

// actorFunc is an actor made of one function.
type actorFunc func(ctx context.Context, id string) (Outcome, error)

func (f actorFunc) Reconcile(ctx context.Context, id string) (Outcome, error) { return f(ctx, id) }

func start(t *testing.T, cfg Config, f actorFunc) *Runtime {
	t.Helper()
	r := New(cfg)
	r.Handle(cairn.KindReplica, f)
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func key(id string) Key { return Key{cairn.KindReplica, id} }

func TestWakesDuringAPassCauseExactlyOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var passes, parallel atomic.Int32
		gate := make(chan struct{})
		r := start(t, Config{}, func(context.Context, string) (Outcome, error) {
			if parallel.Add(1) > 1 {
				t.Error("two passes of one actor at once")
			}
			passes.Add(1)
			<-gate
			parallel.Add(-1)
			return Outcome{}, nil
		})
		r.Wake(key("a"))
		synctest.Wait()
		for range 10 {
			r.Wake(key("a"))
		}
		gate <- struct{}{}
		synctest.Wait()
		if got := passes.Load(); got != 2 {
			t.Fatalf("%d passes have begun, want the second", got)
		}
		gate <- struct{}{}
		synctest.Wait()
		advance(time.Hour)
		if got := passes.Load(); got != 2 {
			t.Errorf("%d passes after ten wakes during the first, want 2", got)
		}
		if s := r.Stats(); s.Actors != 0 || s.Coalesced != 9 || s.Wakes != 11 {
			t.Errorf("stats %+v: want no actor left, 9 of 11 wakes merged", s)
		}
	})
}

func TestWakeThatQueuesIsMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var order []string
		r := start(t, Config{Parallel: 1}, func(_ context.Context, id string) (Outcome, error) {
			order = append(order, id)
			<-gate
			return Outcome{}, nil
		})
		for _, id := range []string{"a", "b", "c", "b", "c", "b"} {
			r.Wake(key(id))
		}
		synctest.Wait()
		if status, ok := r.Status(key("c")); !ok || !status.Queued {
			t.Errorf("status of c: %+v %v, want queued", status, ok)
		}
		close(gate)
		synctest.Wait()
		if want := []string{"a", "b", "c"}; !slices.Equal(order, want) {
			t.Errorf("passes %v, want %v", order, want)
		}
	})
}

func TestBackoffDoublesUpToMaxAndStartsAgainAfterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		fail := true
		r := start(t, Config{Backoff: Backoff{Min: time.Second, Max: 8 * time.Second}}, func(context.Context, string) (Outcome, error) {
			at = append(at, time.Now())
			if fail {
				return Outcome{}, errors.New("disk on fire")
			}
			return Outcome{}, nil
		})
		r.Wake(key("a"))
		advance(60 * time.Second)
		synctest.Wait()
		for i, most := range []time.Duration{1, 2, 4, 8, 8, 8} {
			most *= time.Second
			if wait := at[i+1].Sub(at[i]); wait < most/2 || wait > most {
				t.Errorf("wait %d is %v, want %v to %v", i, wait, most/2, most)
			}
		}
		status, ok := r.Status(key("a"))
		if !ok || status.LastError != "disk on fire" || status.Attempts != len(at) || status.Next.IsZero() {
			t.Errorf("status %+v %v, want the error, %d attempts and the next time", status, ok, len(at))
		}
		fail = false
		r.Wake(key("a")) // a wake does not wait for the backoff
		synctest.Wait()
		if _, ok := r.Status(key("a")); ok {
			t.Error("actor did not become idle")
		}
		fail, at = true, nil
		r.Wake(key("a"))
		advance(1100 * time.Millisecond)
		synctest.Wait()
		if len(at) < 2 {
			t.Error("backoff did not start again from Min after a success")
		}
	})
}

func TestBackoffNeverOverflows(t *testing.T) {
	r := New(Config{Backoff: Backoff{Min: time.Hour, Max: 1000 * time.Hour}})
	for attempts := uint16(1); attempts < 5000; attempts++ {
		if wait := r.backoff(attempts); wait < 30*time.Minute || wait > 1000*time.Hour {
			t.Fatalf("attempt %d waits %v", attempts, wait)
		}
	}
}

func TestPanicFailsOnlyItsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var mu sync.Mutex
		passes := map[string]int{}
		r := start(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(_ context.Context, id string) (Outcome, error) {
			mu.Lock()
			passes[id]++
			first := passes[id] == 1
			mu.Unlock()
			if id == "bad" && first {
				var nothing *Config
				nothing.Parallel++
			}
			return Outcome{}, nil
		})
		r.Wake(key("bad"))
		r.Wake(key("good"))
		advance(time.Second)
		synctest.Wait()
		if passes["bad"] != 2 || passes["good"] != 1 {
			t.Errorf("passes %v, want the panicked one twice", passes)
		}
		if s := r.Stats(); s.Panics != 1 || s.Failures != 1 || s.Running != 0 {
			t.Errorf("stats %+v, want one panic, one failure, nothing running", s)
		}
		if !strings.Contains(log.String(), "nil pointer") || !strings.Contains(log.String(), "TestPanicFailsOnlyItsPass") {
			t.Errorf("log lacks the cause or the stack:\n%s", &log)
		}
	})
}

func TestAgainIsOneTimerWithJitterAndAWakeSupersedesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &countingClock{}
		seen := map[string][]time.Time{}
		var mu sync.Mutex
		r := start(t, Config{Clock: clock}, func(_ context.Context, id string) (Outcome, error) {
			mu.Lock()
			defer mu.Unlock()
			seen[id] = append(seen[id], time.Now())
			return Outcome{Again: time.Minute}, nil
		})
		for i := range 1000 {
			r.Wake(key(fmt.Sprint(i)))
		}
		synctest.Wait()
		if live := clock.live.Load(); live > 1 {
			t.Errorf("%d timers for 1000 waiting actors, want one", live)
		}
		advance(30 * time.Second)
		r.Wake(key("7"))
		advance(37 * time.Second)
		synctest.Wait()
		distinct := map[time.Duration]bool{}
		for id, at := range seen {
			want := 2
			if len(at) != want {
				t.Fatalf("actor %s looked %d times in 67 s, want %d: %v", id, len(at), want, at)
			}
			if wait := at[1].Sub(at[0]); id != "7" && (wait < 54*time.Second || wait > 66*time.Second) {
				t.Errorf("actor %s looked again after %v, want a minute give or take a tenth", id, wait)
			} else {
				distinct[wait] = true
			}
		}
		if len(distinct) < 500 {
			t.Errorf("only %d different waits of 1000: no jitter", len(distinct))
		}
	})
}

// countingClock is the real clock; it counts the timers that are pending.
type countingClock struct{ live atomic.Int32 }

func (*countingClock) Now() time.Time { return time.Now() }

func (c *countingClock) AfterFunc(d time.Duration, f func()) Timer {
	c.live.Add(1)
	return countedTimer{c, time.AfterFunc(d, func() { c.live.Add(-1); f() })}
}

type countedTimer struct {
	clock *countingClock
	timer *time.Timer
}

func (t countedTimer) Stop() bool {
	stopped := t.timer.Stop()
	if stopped {
		t.clock.live.Add(-1)
	}
	return stopped
}

func TestParallelPassesAreBoundedAndSlowOnesGiveUpTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, fast atomic.Int32
		hang := make(chan struct{})
		r := start(t, Config{Parallel: 4, SlotTimeout: 10 * time.Second}, func(_ context.Context, id string) (Outcome, error) {
			if strings.HasPrefix(id, "hangs") {
				<-hang
				return Outcome{}, nil
			}
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			advance(time.Second)
			now.Add(-1)
			fast.Add(1)
			return Outcome{}, nil
		})
		for i := range 4 {
			r.Wake(key(fmt.Sprint("hangs", i)))
		}
		for i := range 20 {
			r.Wake(key(fmt.Sprint("fast", i)))
		}
		advance(9 * time.Second)
		if got := fast.Load(); got != 0 {
			t.Fatalf("%d passes ran beyond the bound", got)
		}
		advance(7 * time.Second)
		synctest.Wait()
		if fast.Load() != 20 || most.Load() != 4 {
			t.Errorf("%d passes ended, at most %d at once; want 20, 4", fast.Load(), most.Load())
		}
		if s := r.Stats(); s.Slow != 4 || s.Running != 4 || s.Delayed != 0 {
			t.Errorf("stats %+v, want 4 slow passes", s)
		}
		r.Wake(key("hangs0")) // a slow pass keeps its actor's lock
		close(hang)
		synctest.Wait()
		if s := r.Stats(); s.Slow != 0 || s.Running != 0 || s.Passes != 25 {
			t.Errorf("stats %+v, want nothing running after 25 passes", s)
		}
	})
}

func TestPassDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		r := start(t, Config{PassTimeout: 5 * time.Second}, func(ctx context.Context, id string) (Outcome, error) {
			Doing(ctx, "clone x")
			<-ctx.Done()
			err = ctx.Err()
			return Outcome{}, nil
		})
		r.Wake(key("a"))
		synctest.Wait()
		if status, _ := r.Status(key("a")); status.Step != "clone x" || status.Since.IsZero() {
			t.Errorf("status %+v, want the step and since when it runs", status)
		}
		advance(6 * time.Second)
		synctest.Wait()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the pass saw %v, want its deadline", err)
		}
	})
}

func TestCloseEndsContextsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		stubborn := make(chan struct{})
		r := New(Config{Parallel: 2})
		r.Handle(cairn.KindReplica, actorFunc(func(ctx context.Context, id string) (Outcome, error) {
			if id == "stubborn" {
				<-stubborn
				return Outcome{}, nil
			}
			<-ctx.Done()
			advance(time.Second)
			ended.Store(true)
			return Outcome{}, ctx.Err()
		}))
		for _, id := range []string{"polite", "stubborn", "queued"} {
			r.Wake(key(id))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := r.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 passes still run") {
			t.Errorf("Close: %v, want that one pass still runs", err)
		}
		if !ended.Load() {
			t.Error("Close did not wait for the pass that ended in time")
		}
		close(stubborn)
		if err := r.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		r.Wake(key("late"))
		if s := r.Stats(); s.Passes != 2 || s.Running != 0 {
			t.Errorf("stats %+v, want no pass after Close", s)
		}
	})
}

// advance lets the virtual time of the synctest bubble go on.
func advance(d time.Duration) { <-time.After(d) }
