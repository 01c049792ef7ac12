package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// askTimeout bounds how long Why waits for the node that hosts a replica.
const askTimeout = 2 * time.Second

// Why is described in the proto file. It is for bad days, so it answers from the node's own copy when there is no quorum.
func (s *clusterService) Why(ctx context.Context, req *pb.WhyRequest) (*pb.WhyResponse, error) {
	v, err := s.view(ctx, nil)
	var outdated error
	if err != nil {
		if !noQuorum(err) {
			return nil, err
		}
		outdated, v = err, s.cfg.State.View()
	}
	about, err := callerOf(ctx).subject(v, req.GetResource(), req.GetProject())
	if err != nil {
		return nil, err
	}
	q := &question{view: v, now: s.cfg.Now(), raft: s.cfg.Membership.Status(), live: s.ask(ctx, v, about)}
	if about.share != nil && stranded(v, about.share) != nil {
		q.sync, q.waits = s.syncStates(ctx, v, slices.Collect(v.ReplicasOf(about.share.ID))), s.cfg.Replication.Waits(about.share.ID)
	}
	answer := q.explain(about)
	if outdated != nil {
		answer.Lines = append(answer.Lines, &pb.WhyLine{Topic: "note", Text: fmt.Sprintf(
			"this is what node %s last knew, which may be old: %v", nodeName(v, s.cfg.Self), outdated)})
	}
	return answer, nil
}

// subject is what a question is about; one field is set.
type subject struct {
	share    *cairn.Share
	snapshot *cairn.Snapshot
	replica  *cairn.Replica
	node     *cairn.Node
	pool     *cairn.Pool
}

// subject reads kind/name or kind/ID.
func (c *caller) subject(v *fsm.View, resource, project string) (about subject, err error) {
	kind, name, _ := strings.Cut(resource, "/")
	switch cairn.Kind(kind) {
	case cairn.KindShare:
		about.share, err = c.share(v, name, project)
	case cairn.KindSnapshot:
		share, snap, named := strings.Cut(name, "/")
		if !named {
			share, snap = "", name
		}
		about.snapshot, err = c.snapshot(v, snap, share, project)
	case cairn.KindReplica:
		about.replica, err = c.replica(v, name)
	case cairn.KindTask:
		about.share, err = c.taskShare(v, name, project)
	case cairn.KindNode, cairn.KindPool:
		if c.bound() != "" {
			return about, fmt.Errorf("%s: user %s is bound to project %s: %w", shown(resource), c.user.Name, c.bound(), cairn.ErrDenied)
		}
		if cairn.Kind(kind) == cairn.KindNode {
			about.node, err = findNode(v, name)
		} else {
			about.pool, err = findPool(v, name)
		}
	default:
		err = fmt.Errorf("resource %s: want share/NAME, snapshot/SHARE/NAME, replica/ID, task/SHARE, node/NAME or pool/NODE/NAME: %w",
			shown(resource), cairn.ErrInvalid)
	}
	return about, err
}

func (c *caller) replica(v *fsm.View, id string) (*cairn.Replica, error) {
	r := v.Replica(cairn.ReplicaID(strings.ToLower(id)))
	if r != nil {
		if share := v.Share(r.Share); share != nil && c.sees(share.Project) {
			return r, nil
		}
	}
	return nil, fmt.Errorf("replica %s: %w", shown(id), cairn.ErrNotFound)
}

// taskShare finds the share of a task, by the task's ID or by the share.
func (c *caller) taskShare(v *fsm.View, text, project string) (*cairn.Share, error) {
	for task := range v.Tasks(c.bound()) {
		if string(task.ID) == text {
			return v.Share(task.Share), nil
		}
	}
	return c.share(v, text, project)
}

// live is what the node of a replica said about the actor, or why it said nothing.
type live struct {
	status ActorStatus
	err    error
}

// ask asks the nodes that host what the question is about. A node that is down is not asked.
func (s *Server) ask(ctx context.Context, v *fsm.View, about subject) map[cairn.ReplicaID]live {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers := map[cairn.ReplicaID]live{}
	for _, r := range about.replicas(v) {
		if n := v.Node(r.Node); n != nil && n.State == cairn.NodeUp {
			status, err := s.cfg.Explain(ctx, r.Node, r.ID)
			answers[r.ID] = live{status, err}
		}
	}
	return answers
}

// replicas are those whose actors know more.
func (about subject) replicas(v *fsm.View) (all []*cairn.Replica) {
	share := cairn.ShareID("")
	switch {
	case about.replica != nil:
		return []*cairn.Replica{about.replica}
	case about.share != nil:
		share = about.share.ID
	case about.snapshot != nil:
		share = about.snapshot.Share
	}
	for r := range v.ReplicasOf(share) {
		all = append(all, r)
	}
	return all
}

// noQuorum reports whether the cluster cannot be asked now, which says nothing against the caller.
func noQuorum(err error) bool {
	return errors.Is(err, cairn.ErrUnavailable) || errors.Is(err, cairn.ErrTimeout) || errors.Is(err, cairn.ErrUnknownOutcome)
}
