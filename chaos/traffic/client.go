package traffic

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cairn-storage/cairn/rpc/client"
)

// actor is one client: it decides with a random source of its own, and knows the cluster by a connection of its own.
type actor struct {
	*Record
	api    *client.Client
	number int
	random *rand.Rand
	pause  time.Duration // between two operations, in the mean
}

// chance is true in so many of a hundred cases.
func (a *actor) chance(percent int) bool { return a.random.IntN(100) < percent }

// rest lets some time pass, and reports whether there is more to come.
func (a *actor) rest(ctx context.Context) bool {
	timer := time.NewTimer(a.pause/2 + time.Duration(a.random.Int64N(int64(a.pause))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
