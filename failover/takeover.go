package failover

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// stranded is a share whose active replica is on a node that is down.
type stranded struct {
	share    *cairn.Share
	from     *cairn.Replica
	node     *cairn.Node
	kind     *cairn.ShareType
	standbys []standby
}

// strandedShares returns the shares that have to fail over. Nothing but the committed state of a node counts.
func strandedShares(view *fsm.View) (out []stranded) {
	for node := range view.Nodes() {
		if node.State != cairn.NodeDown {
			continue
		}
		for from := range view.ReplicasOn(node.ID) {
			share := view.Share(from.Share)
			if share.Active != from.ID || share.Status != cairn.StatusAvailable {
				continue
			}
			if standbys := standbysOf(view, share); len(standbys) > 0 {
				out = append(out, stranded{share, from, node, view.Type(share.Type), standbys})
			}
		}
	}
	return out
}

// takeover is a decision.
type takeover struct {
	part    fsm.Failover
	attempt attempt
}

// failOver decides for every stranded share, and adds to found why it cannot.
func (t *term) failOver(ctx context.Context, view *fsm.View, found map[cairn.ShareID]reason) {
	shares := strandedShares(view)
	ask(ctx, t.Config, candidates(shares))
	var decided []takeover
	for i := range shares {
		s := &shares[i]
		best, window, why := choose(s.kind, s.standbys, t.watch.lastWrite(s.node.ID))
		if best == nil {
			found[s.share.ID] = why
			continue
		}
		next := takeover{
			fsm.Failover{Share: s.share.ID, Replica: best.row.ID, Epoch: s.from.Epoch, Snapshot: best.newest, Window: int64(window)},
			attempt{s.share, view.Task(s.share.ID), s.from, best.row, s.node, best.node, best.newest, s.kind},
		}
		if old := t.reasons.of(s.share.ID); old.refused == next.attempt {
			found[s.share.ID] = old
			continue
		}
		decided = append(decided, next)
	}
	t.commit(ctx, decided, found)
}

// candidates are the standbys whose nodes are asked.
func candidates(shares []stranded) (out []*standby) {
	for _, s := range shares {
		if s.kind.Failover != cairn.FailoverAuto {
			continue
		}
		for i := range s.standbys {
			if s.standbys[i].ready() {
				out = append(out, &s.standbys[i])
			}
		}
	}
	return out
}

// commit proposes the decisions. After one whose outcome is not known it stops: the next pass reads what has become of it.
func (t *term) commit(ctx context.Context, decided []takeover, found map[cairn.ShareID]reason) {
	began, done := time.Now(), 0
	for len(decided) > 0 {
		some := decided[:min(batch, len(decided))]
		// failpoint: taking-over
		result, err := t.propose(ctx, command(some))
		// failpoint: taken-over
		if err == nil {
			err = result.Err
		}
		if err != nil {
			for _, d := range decided {
				found[d.part.Share] = undecided(err)
			}
			break
		}
		decided = decided[len(some):]
		for i, refusal := range result.Each {
			if refusal != nil {
				found[some[i].part.Share] = reason{cause: "refused", text: "refused: " + refusal.Error(), refused: some[i].attempt}
			} else {
				done++
			}
		}
	}
	if done > 0 {
		t.Logger.Warn("failover: standbys took over", "shares", done, "commit", time.Since(began).Round(time.Millisecond))
	}
}

func command(some []takeover) *fsm.FailoverShares {
	c := &fsm.FailoverShares{Failovers: make([]fsm.Failover, len(some))}
	for i := range some {
		c.Failovers[i] = some[i].part
		c.Failovers[i].Keep = cairn.SnapshotID(newID())
	}
	return c
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }
