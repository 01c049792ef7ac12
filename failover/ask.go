package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
)

// ask lets the nodes of all candidates say how far these are: one call for each node, all at once. What is not answered in
// time stays unknown; a node that does not answer is silent, and nothing else is concluded from that.
func ask(ctx context.Context, config Config, candidates []*standby) {
	ctx, cancel := context.WithTimeout(ctx, config.Timing.Ask)
	defer cancel()
	byNode := make(map[cairn.NodeID][]*standby)
	for _, s := range candidates {
		byNode[s.node.ID] = append(byNode[s.node.ID], s)
	}
	var calls sync.WaitGroup
	for node, standbys := range byNode {
		calls.Go(func() { askNode(ctx, config, node, standbys) })
	}
	calls.Wait()
}

func askNode(ctx context.Context, config Config, node cairn.NodeID, standbys []*standby) {
	ids := make([]cairn.ReplicaID, len(standbys))
	about := make(map[cairn.ReplicaID]*standby, len(standbys))
	for i, s := range standbys {
		ids[i], about[s.row.ID] = s.row.ID, s
	}
	slices.Sort(ids)
	states, err := config.Asker.SyncStates(ctx, node, ids)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not within %s", config.Timing.Ask)
		}
		for _, s := range standbys {
			s.silent = err
		}
		return
	}
	for _, state := range states {
		if s := about[state.Replica]; s != nil { // a node speaks for what it was asked about
			s.hear(state)
		}
	}
}

// hear takes an answer over. A node that was restarted since its last sync does not know its age; then the wall clock of the
// cut has to do, which nodes agree on to within the skew that the cluster admits.
func (s *standby) hear(state replica.SyncState) {
	point, ok := replica.ParseSyncPoint(state.Newest)
	if !ok {
		return
	}
	s.newest, s.point, s.asOf = state.Newest, point, state.AsOf
	if s.asOf.IsZero() {
		s.asOf = point.At
	}
}
