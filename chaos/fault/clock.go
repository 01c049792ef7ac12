package fault

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
)

// clock kills a server and starts it with other monotonic clocks, which are ahead of those that it had, or behind. Afterwards it keeps them, and
// so they go back when the next such fault draws less; or it is killed once more, and they go back to the machine's.
func clock(_ context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
	units := []time.Duration{time.Second, time.Minute, time.Hour}
	ahead := time.Duration(1+random.IntN(120)) * units[random.IntN(len(units))]
	back := random.IntN(2) == 0
	w.Log("%s: its monotonic clocks are %s ahead of the machine's, and were %s; back afterwards: %t", target.Name, ahead, target.Clock(), back)
	heal := func(ctx context.Context) error {
		if back {
			if err := turn(target, 0); err != nil {
				return err
			}
			back = false
		}
		if err := revive(target); err != nil {
			return err
		}
		return w.Cluster.AwaitUp(ctx, target) // the one that was killed may have had the pool for a moment longer
	}
	return heal, turn(target, ahead)
}

func turn(s *local.Server, ahead time.Duration) error {
	if err := s.Kill(); err != nil {
		return err
	}
	s.SetClock(ahead)
	return s.Start()
}
