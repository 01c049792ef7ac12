package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// rounds is how often everything is measured; the median counts. What is compared takes turns, so that a slow moment of the
// machine hurts all of it.
const rounds = 5

// sample is what clients saw that called something again and again.
type sample struct {
	p50, p99  time.Duration
	perSecond float64
}

func (s sample) String() string {
	return fmt.Sprintf("p50 %v, p99 %v, %.0f/s", s.p50.Round(time.Microsecond), s.p99.Round(time.Microsecond), s.perSecond)
}

// load has a number of clients make calls, calls in all, each client one after the other.
func load(ctx context.Context, clients, calls int, call func(ctx context.Context, n int) error) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	errs := make([]error, clients)
	took := make([]time.Duration, calls)
	began := time.Now()
	for client := range clients {
		group.Go(func() {
			for n := client; n < calls; n += clients {
				start := time.Now()
				if err := call(ctx, n); err != nil {
					errs[client] = err
					cancel()
					return
				}
				took[n] = time.Since(start)
			}
		})
	}
	group.Wait()
	elapsed := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return sample{}, err
		}
	}
	slices.Sort(took)
	return sample{took[calls/2], took[calls*99/100], float64(calls) / elapsed.Seconds()}, nil
}

// ratioOf is the median of the ratios of each round: what disturbed a round is in both.
func ratioOf(measured, limit []sample, value func(sample) float64) float64 {
	ratios := make([]float64, len(measured))
	for i := range measured {
		ratios[i] = value(measured[i]) / value(limit[i])
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

func rate(s sample) float64 { return s.perSecond }

// median is of each value by itself.
func median(samples []sample) sample {
	middle := len(samples) / 2
	pick := func(less func(a, b sample) int) sample {
		sorted := slices.Clone(samples)
		slices.SortFunc(sorted, less)
		return sorted[middle]
	}
	return sample{
		p50:       pick(func(a, b sample) int { return int(a.p50 - b.p50) }).p50,
		p99:       pick(func(a, b sample) int { return int(a.p99 - b.p99) }).p99,
		perSecond: pick(func(a, b sample) int { return int(a.perSecond - b.perSecond) }).perSecond,
	}
}
