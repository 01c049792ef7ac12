package replication

import (
	"context"
	"sync"
	"time"
)

// limiter is a bucket of tokens, one for each byte, that holds what flows in within burst. nil limits nothing. It counts on
// the monotonic clock. All streams of a node draw from one, in the order in which they come.
type limiter struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	next time.Time // when the bucket is empty of debts
}

// burst is what may be sent at once after a pause, and piecesPerSecond how finely a slow rate is cut: a stream must be seen to
// go on even if many share the rate.
const (
	burst           = 100 * time.Millisecond
	piecesPerSecond = 8
)

func newLimiter(rate int64) *limiter {
	if rate <= 0 {
		return nil
	}
	return &limiter{rate: rate}
}

// piece is the most that should be sent in one go.
func (l *limiter) piece(most int) int {
	if l == nil {
		return most
	}
	return int(min(max(l.rate/piecesPerSecond, 1), int64(most)))
}

// wait takes n tokens and returns when the bytes may be sent.
func (l *limiter) wait(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}
	timer := time.NewTimer(l.take(time.Now(), n))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take returns how long to wait for n tokens that are taken at now.
func (l *limiter) take(now time.Time, n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if earliest := now.Add(-burst); l.next.Before(earliest) {
		l.next = earliest
	}
	delay := l.next.Sub(now)
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return max(delay, 0)
}
