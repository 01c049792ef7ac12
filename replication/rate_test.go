package replication

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestRate: streams share the rate from the first byte on, and what was not used in a pause is not made up for.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, each, streams = 1 << 20, 5 << 20, 3
		l := newLimiter(rate)
		for round := range 2 {
			began := time.Now()
			var sending errgroup.Group
			for range streams {
				sending.Go(func() error {
					piece := l.piece(chunkBytes)
					for sent := 0; sent < each; sent += piece {
						if err := l.wait(t.Context(), piece); err != nil {
							return err
						}
					}
					return nil
				})
			}
			must(t, sending.Wait())
			want := streams * each / rate * time.Second
			if took := time.Since(began); (want - took).Abs() > burst+time.Second/piecesPerSecond {
				t.Errorf("round %d: took %s, want %s", round, took, want)
			}
			pause(t.Context(), time.Hour)
		}
	})
}

func TestRateWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		must(t, l.wait(ctx, 1000))
		if err := l.wait(ctx, 1000); !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
	})
}

func TestPieces(t *testing.T) {
	for rate, want := range map[int64]int{0: chunkBytes, 1: 1, 8000: 1000, 1 << 40: chunkBytes} {
		if got := newLimiter(rate).piece(chunkBytes); got != want {
			t.Errorf("at %d bytes/s: %d, want %d", rate, got, want)
		}
	}
}
