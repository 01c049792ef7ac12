package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
)

// Sweeper is the actor of a pool. It lists the pool and wakes the actor of every object that has no row; that actor
// decides, under its own lock, what becomes of it. It also wakes those of orphans that were there before, so that one
// that an operator has removed is forgotten.
type Sweeper struct {
	Actor *Actor
	Wake  func(actors.Key)
	// Every is how often the pool is listed. 0 is once an hour.
	Every time.Duration
}

// Reconcile sweeps the pool of the given ID.
func (s *Sweeper) Reconcile(ctx context.Context, id string) (actors.Outcome, error) {
	cfg := s.Actor.cfg
	pool := cfg.Pools[cairn.PoolID(id)]
	if pool == nil {
		return actors.Outcome{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*cfg.StepTimeout)
	defer cancel()
	objects, err := pool.List(ctx)
	if err != nil {
		return actors.Outcome{}, fmt.Errorf("sweep: list: %w", err)
	}
	view, err := cfg.Viewer.ReadView(ctx)
	if err != nil {
		return actors.Outcome{}, fmt.Errorf("sweep: %w", err)
	}
	ids := Orphans(view, objects)
	for _, known := range s.Actor.Orphans() {
		if known.Pool == cairn.PoolID(id) && !slices.Contains(ids, known.Replica) {
			ids = append(ids, known.Replica)
		}
	}
	for _, orphan := range ids {
		s.Wake(actors.Key{Kind: cairn.KindReplica, ID: string(orphan)})
	}
	every := s.Every
	if every <= 0 {
		every = time.Hour
	}
	return actors.Outcome{Again: every}, nil
}
