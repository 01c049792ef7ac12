package failover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// callOff ends planned promotions that have kept a share from being written to for too long. One whose roles have changed
// has no way back, and needs none: its new active replica only has to be served.
func (t *term) callOff(ctx context.Context, view *fsm.View) {
	_, overdue := t.watch.running()
	for _, p := range overdue {
		share, task := view.Share(p.task.Share), view.Task(p.task.Share)
		if share == nil || !task.Running() || task.ID != p.task.ID || share.Active == task.Replica {
			continue
		}
		result, err := t.propose(ctx, &fsm.StopTask{Share: share.ID, Task: task.ID})
		switch {
		case err != nil:
			return // the next pass reads what has become of it
		case result.Err != nil:
			t.Logger.Warn("promotion: is overdue and was not called off", "share", share.ID, "error", result.Err)
		default:
			t.Logger.Warn("promotion: called off, because it was not done in "+t.Timing.Promotion.String(), "share", share.ID, "replica", task.Replica)
		}
	}
}

// drain moves active replicas away from nodes that are draining, a few at a time, and adds to found why one does not move.
func (t *term) drain(ctx context.Context, view *fsm.View, found map[cairn.ShareID]reason) {
	running, _ := t.watch.running()
	load := make(leaders)
	for _, share := range leaving(view) {
		to, why := t.successor(view, share, load)
		switch {
		case to == nil:
			found[share.ID] = why
			continue
		case running >= promotionsAtOnce:
			found[share.ID] = reason{text: fmt.Sprintf("its node is draining, and it waits for its turn: %d shares move at a time", promotionsAtOnce)}
			continue
		}
		why, err := t.promote(ctx, view, share, to)
		switch {
		case err != nil:
			found[share.ID] = undecided(err)
			return // the next pass reads what has become of it
		case why != reason{}:
			found[share.ID] = why
		default:
			running++
			load[to.node.ID] = load.of(view, to.node.ID) + 1
		}
	}
}

// leaving returns the shares that are served by nodes that are draining. Of a node that is down failOver takes care.
func leaving(view *fsm.View) (shares []*cairn.Share) {
	for node := range view.Nodes() {
		if !node.Draining || node.State != cairn.NodeUp {
			continue
		}
		for row := range view.ReplicasOn(node.ID) {
			share := view.Share(row.Share)
			if share.Active == row.ID && share.Status != cairn.StatusDeleting && heir(view, share.ID) == "" {
				shares = append(shares, share)
			}
		}
	}
	return shares
}

// promote starts a planned promotion, or says why the state machine refuses it. An error means that nothing is known to have
// been decided.
func (t *term) promote(ctx context.Context, view *fsm.View, share *cairn.Share, to *standby) (why reason, err error) {
	from := view.Replica(share.Active)
	next := attempt{share, view.Task(share.ID), from, to.row, view.Node(from.Node), to.node, "", view.Type(share.Type)}
	if old := t.reasons.of(share.ID); old.refused == next {
		return old, nil
	}
	result, err := t.propose(ctx, &fsm.PromoteShare{Share: share.ID, Replica: to.row.ID, Task: cairn.TaskID(newID())})
	if err == nil && result.Err != nil {
		why = reason{cause: "refused", text: "refused: " + result.Err.Error(), refused: next}
	}
	return why, err
}

// successor chooses who serves a share whose node is draining, or says why nobody can. All that are in sync end with the
// same data, so the one whose node serves the fewest shares is the best.
func (t *term) successor(view *fsm.View, share *cairn.Share, load leaders) (*standby, reason) {
	standbys, task := standbysOf(view, share), view.Task(share.ID)
	tried, left := t.watch.restOf(share.ID)
	switch {
	case len(standbys) == 0:
		return nil, draining("no other replica", "it has no other replica: add one, or delete it")
	case share.Status != cairn.StatusAvailable:
		return nil, draining("not available yet", fmt.Sprintf("it is %s", share.Status))
	case task.Running():
		return nil, draining("another task runs", fmt.Sprintf("task %s (%s) is running", task.ID, task.Kind))
	case left > 0:
		return nil, draining("a promotion was called off", fmt.Sprintf(
			"its last promotion was called off; it is left alone for another %s", left.Round(time.Second)))
	}
	candidates := slices.DeleteFunc(slices.Clone(standbys), func(s standby) bool { return !s.ready() || s.node.Draining })
	if len(candidates) == 0 {
		return nil, draining("no replica can take over", "no replica can take over: "+conditions(standbys, "is draining, too"))
	}
	best := slices.MinFunc(candidates, func(a, b standby) int {
		return cmp.Or(
			last(a.row.ID == tried, b.row.ID == tried),
			cmp.Compare(load.of(view, a.node.ID), load.of(view, b.node.ID)),
			cmp.Compare(a.row.ID, b.row.ID),
		)
	})
	return &best, reason{}
}

func draining(cause, text string) reason {
	return reason{cause: "node is draining: " + cause, text: "its node is draining, and " + text}
}

// last orders what is true behind what is not.
func last(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// heir is the replica that a running promotion makes active; "" if there is none.
func heir(view *fsm.View, share cairn.ShareID) cairn.ReplicaID {
	if task := view.Task(share); task.Running() && task.Kind == cairn.TaskPromote {
		return task.Replica
	}
	return ""
}

// leaders counts the shares that nodes serve, or soon will. It is filled when it is asked.
type leaders map[cairn.NodeID]int

func (l leaders) of(view *fsm.View, node cairn.NodeID) int {
	n, known := l[node]
	if !known {
		for row := range view.ReplicasOn(node) {
			if row.Role == cairn.RoleActive || heir(view, row.Share) == row.ID {
				n++
			}
		}
		l[node] = n
	}
	return n
}
