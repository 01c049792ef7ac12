package guard

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Transfer notices a leadership transfer that never ends: a leader that goes on to refuse every write. Raft gives a
// transfer one election timeout, so one that is refused for twice as long has stuck.
type Transfer struct {
	// Probe attempts a write that changes nothing and returns Raft's error.
	Probe func(context.Context) error
	// Limit is how long refusals are normal; Interval is how often to look.
	Limit, Interval time.Duration

	watching atomic.Bool
}

// Refused tells the guard that a write was refused because of a transfer. The first one makes it watch, in the calling
// goroutine, until a write is taken or answered otherwise (false), or the transfer has stuck (true). Later calls return
// false at once while it watches.
func (t *Transfer) Refused(ctx context.Context) (stuck bool) {
	if !t.watching.CompareAndSwap(false, true) {
		return false
	}
	defer t.watching.Store(false)
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(t.Interval):
		}
		if err := t.Probe(ctx); !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return false
		}
		if time.Since(began) > t.Limit {
			return true
		}
	}
}
