package sim

import (
	"slices"
	"testing"
	"time"
)

// race lets three coroutines take turns and returns the order in which they did.
func race(seed uint64) (order []int, hash uint64) {
	w := New(seed, nil)
	for i := range 3 {
		w.Go(func() {
			for range 5 {
				order = append(order, i)
				w.Yield()
			}
		})
	}
	w.RunUntil(func() bool { return false }, 1000)
	return order, w.Hash()
}

func TestSeedDecidesTheOrder(t *testing.T) {
	distinct := make(map[uint64]bool)
	for seed := range uint64(50) {
		order, hash := race(seed)
		again, hashAgain := race(seed)
		if !slices.Equal(order, again) || hash != hashAgain {
			t.Fatalf("seed %d: %v and %v", seed, order, again)
		}
		distinct[hash] = true
	}
	if len(distinct) < 45 {
		t.Errorf("50 seeds gave %d orders", len(distinct))
	}
}

func TestTimePassesOnlyWhenNothingCanRun(t *testing.T) {
	w := New(1, nil)
	begin := w.Now()
	var seen []string
	note := func(what string) { seen = append(seen, what+" "+w.Now().Sub(begin).String()) }
	w.Go(func() {
		note("start")
		w.Sleep(2 * time.Second)
		note("slept")
	})
	w.AfterFunc(time.Second, func() { note("timer") })
	stopped := w.AfterFunc(1500*time.Millisecond, func() { note("stopped timer") })
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop of a pending timer, then of a stopped one: want true, false")
	}
	fired := w.AfterFunc(3*time.Second, func() { note("last") })
	for w.Step() {
	}
	if fired.Stop() {
		t.Error("Stop of a timer that has fired: want false")
	}
	want := []string{"start 0s", "timer 1s", "slept 2s", "last 3s"}
	if !slices.Equal(seen, want) {
		t.Errorf("%q, want %q", seen, want)
	}
}

func TestRunUntil(t *testing.T) {
	w := New(1, nil)
	n := 0
	var tick func()
	tick = func() { n++; w.AfterFunc(time.Second, tick) }
	tick()
	if !w.RunUntil(func() bool { return n == 10 }, 1000) || n != 10 {
		t.Errorf("stopped at %d", n)
	}
	if w.RunUntil(func() bool { return false }, 7) {
		t.Error("a condition that never holds was met")
	}
}
