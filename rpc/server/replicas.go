package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/placement"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type replicaService struct {
	pb.UnimplementedReplicaServiceServer
	*Server
}

// replicaOf finds a replica of the share by its ID or by its node's name: a share has no two on one node.
func replicaOf(v *fsm.View, share *cairn.Share, text string) (*cairn.Replica, error) {
	var nodes []string
	for r := range v.ReplicasOf(share.ID) {
		name := nodeName(v, r.Node)
		if string(r.ID) == strings.ToLower(text) || name == text {
			return r, nil
		}
		nodes = append(nodes, name)
	}
	if text == "" {
		return nil, fmt.Errorf("share %s: which replica? It has one on %s: %w", share.Name, strings.Join(nodes, ", "), cairn.ErrInvalid)
	}
	return nil, fmt.Errorf("share %s: no replica %s; it has one on %s: %w", share.Name, shown(text), strings.Join(nodes, ", "), cairn.ErrNotFound)
}

// AddReplica is described in the proto file.
func (s *replicaService) AddReplica(ctx context.Context, req *pb.AddReplicaRequest) (*pb.AddReplicaResponse, error) {
	id := cairn.ReplicaID(newID())
	out, _, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(v *fsm.View, share *cairn.Share) (fsm.Command, error) {
			pool, err := s.placeAnother(v, share, req)
			return &fsm.AddReplica{Share: share.ID, Replica: fsm.Placement{ID: id, Pool: pool}}, err
		},
		func(share cairn.ShareID) fsm.Command {
			return &fsm.AddReplica{Share: share, Replica: fsm.Placement{ID: id}}
		})
	if err != nil {
		return nil, err
	}
	row := out.view.Replica(cairn.ReplicaID(out.id))
	switch {
	case row == nil && out.dry:
		pool := out.cmd.(*fsm.AddReplica).Replica.Pool
		node, _ := pool.Split()
		row = &cairn.Replica{ID: id, Node: node, Pool: pool, State: cairn.ReplicaOutOfSync}
	case row == nil:
		return nil, gone(cairn.KindReplica, out.id)
	}
	return &pb.AddReplicaResponse{Replica: replicaPB(out.view, row), Event: out.view.LastEvent()}, nil
}

// placeAnother chooses a pool for one more replica.
func (s *Server) placeAnother(v *fsm.View, share *cairn.Share, req *pb.AddReplicaRequest) (cairn.PoolID, error) {
	want := placement.Request{
		Size: share.Size, Format: share.Format, Protocol: share.Protocol, Type: v.Type(share.Type), Zone: req.GetZone(),
	}
	if want.Type != nil && want.Type.Replication == cairn.ReplicationNone {
		return "", fmt.Errorf("share %s: type %s does not offer replicas: %w", share.Name, share.Type, cairn.ErrNotSupported)
	}
	for r := range v.ReplicasOf(share.ID) {
		want.Apart = append(want.Apart, r.Node)
		if pool := v.Pool(r.Pool); pool != nil {
			want.Driver = pool.Driver
		}
	}
	if req.GetPool() != "" {
		pool, err := findPool(v, req.GetPool())
		if err != nil {
			return "", err
		}
		want.Pool = pool.ID
	}
	pool, _, err := placement.Place(want, s.candidates(v))
	if err != nil {
		return "", err
	}
	return pool.ID, nil
}

// onReplica commits a change of one replica of a share.
func (s *Server) onReplica(ctx context.Context, m *pb.Mutation, share, project, replica string, command func(cairn.ReplicaID) fsm.Command) (outcome, error) {
	return s.commit(ctx, change{
		mutation: m,
		build: func(v *fsm.View) (fsm.Command, error) {
			found, err := callerOf(ctx).share(v, share, project)
			if err != nil {
				return nil, err
			}
			row, err := replicaOf(v, found, replica)
			if err != nil {
				return nil, err
			}
			return command(row.ID), nil
		},
		again: func(id string) fsm.Command { return command(cairn.ReplicaID(id)) },
	})
}

// RemoveReplica is described in the proto file.
func (s *replicaService) RemoveReplica(ctx context.Context, req *pb.RemoveReplicaRequest) (*pb.RemoveReplicaResponse, error) {
	out, err := s.onReplica(ctx, req.GetMutation(), req.GetShare(), req.GetProject(), req.GetReplica(),
		func(id cairn.ReplicaID) fsm.Command { return &fsm.RemoveReplica{Replica: id, Force: req.GetForce()} })
	if err != nil {
		return nil, err
	}
	return &pb.RemoveReplicaResponse{Id: out.id, Event: out.view.LastEvent()}, nil
}

// ResyncReplica is described in the proto file.
func (s *replicaService) ResyncReplica(ctx context.Context, req *pb.ResyncReplicaRequest) (*pb.ResyncReplicaResponse, error) {
	_, err := s.onReplica(ctx, req.GetMutation(), req.GetShare(), req.GetProject(), req.GetReplica(),
		func(id cairn.ReplicaID) fsm.Command { return &fsm.ResyncReplica{Replica: id} })
	return &pb.ResyncReplicaResponse{}, err
}

// ListReplicas is described in the proto file.
func (s *replicaService) ListReplicas(ctx context.Context, req *pb.ListReplicasRequest) (*pb.ListReplicasResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	share, err := callerOf(ctx).share(v, req.GetShare(), req.GetProject())
	if err != nil {
		return nil, err
	}
	answer := &pb.ListReplicasResponse{Waits: s.cfg.Replication.Waits(share.ID)}
	rows := slices.SortedStableFunc(v.ReplicasOf(share.ID), func(a, b *cairn.Replica) int { return cmp.Compare(a.Role, b.Role) })
	states := s.syncStates(ctx, v, rows)
	for _, row := range rows {
		answer.Replicas = append(answer.Replicas, syncPB(v, row, states[row.ID]))
	}
	for snap := range v.SnapshotsOf(share.ID) {
		if snap.Diverged {
			answer.Diverged = append(answer.Diverged, snapshotPB(v, snap))
		}
	}
	return answer, nil
}

// syncStates asks the nodes of the standbys, all at once. Who does not answer is left out.
func (s *Server) syncStates(ctx context.Context, v *fsm.View, rows []*cairn.Replica) map[cairn.ReplicaID]*SyncState {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers := make([][]SyncState, len(rows))
	var asking errgroup.Group
	for i, row := range rows {
		if node := v.Node(row.Node); row.Role != cairn.RoleStandby || node == nil || node.State != cairn.NodeUp {
			continue
		}
		asking.Go(func() error {
			states, err := s.cfg.Replication.SyncStates(ctx, row.Node, []cairn.ReplicaID{row.ID})
			if err != nil {
				states = []SyncState{{Replica: row.ID, Lag: -1, Behind: -1, Error: err.Error()}}
			}
			answers[i] = states
			return nil
		})
	}
	_ = asking.Wait() // no function fails
	known := make(map[cairn.ReplicaID]*SyncState)
	for _, states := range answers {
		for _, state := range states {
			known[state.Replica] = &state
		}
	}
	return known
}

func syncPB(v *fsm.View, row *cairn.Replica, state *SyncState) *pb.ReplicaSync {
	out := &pb.ReplicaSync{Replica: replicaPB(v, row)}
	switch {
	case row.Role == cairn.RoleActive:
	case state == nil:
		out.LagMs, out.LagBytes = -1, -1
	default:
		out.LagMs, out.LagBytes, out.Received, out.Total, out.Error = state.Lag.Milliseconds(), state.Behind, state.Received, state.Total, state.Error
		if state.Lag < 0 {
			out.LagMs = -1
		}
	}
	return out
}

// PromoteShare is described in the proto file.
func (s *replicaService) PromoteShare(ctx context.Context, req *pb.PromoteShareRequest) (*pb.PromoteShareResponse, error) {
	if req.GetForce() {
		return s.force(ctx, req)
	}
	task := &cairn.Task{ID: cairn.TaskID(newID()), Kind: cairn.TaskPromote}
	command := func(id cairn.ShareID) fsm.Command {
		return &fsm.PromoteShare{Share: id, Replica: task.Replica, Task: task.ID}
	}
	out, found, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(v *fsm.View, share *cairn.Share) (fsm.Command, error) {
			row, err := successor(v, share, req.GetReplica())
			if err != nil {
				return nil, err
			}
			task.Replica = row.ID
			return command(share.ID), nil
		}, command)
	if err != nil {
		return nil, err
	}
	share, err := s.withTask(out, out.cmd.(*fsm.PromoteShare).Share, found, task)
	if err != nil {
		return nil, err
	}
	return &pb.PromoteShareResponse{Share: share, Event: out.view.LastEvent()}, nil
}

// successor is the replica that the request names, or the first that is in sync.
func successor(v *fsm.View, share *cairn.Share, text string) (*cairn.Replica, error) {
	if text != "" {
		return replicaOf(v, share, text)
	}
	var states []string
	for r := range v.ReplicasOf(share.ID) {
		node := v.Node(r.Node)
		if r.State == cairn.ReplicaInSync && node != nil && node.State == cairn.NodeUp && !node.Draining {
			return r, nil
		}
		states = append(states, nodeName(v, r.Node)+" "+string(r.State))
	}
	return nil, fmt.Errorf("share %s: no replica is in sync (%s): %w", share.Name, strings.Join(states, ", "), cairn.ErrPrecondition)
}

// force takes over without the active replica. It is not repeated under a token: a second one finds the first one done.
func (s *replicaService) force(ctx context.Context, req *pb.PromoteShareRequest) (*pb.PromoteShareResponse, error) {
	if req.GetMutation().GetDryRun() {
		return nil, fmt.Errorf("promote: a forced one cannot be tried, because it asks the replica at that moment; look at `replica list`: %w", cairn.ErrNotSupported)
	}
	meta, err := s.meta(ctx, req.GetMutation())
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, nil)
	if err != nil {
		return nil, err
	}
	share, err := callerOf(ctx).share(v, req.GetShare(), req.GetProject())
	if err != nil {
		return nil, err
	}
	row, err := successor(v, share, req.GetReplica())
	if err != nil {
		return nil, err
	}
	window, err := s.cfg.Replication.Force(ctx, meta, share.ID, row.ID)
	if err != nil {
		return nil, err
	}
	after, err := s.view(ctx, nil)
	if err != nil {
		return nil, err
	}
	answer, err := storedShare(after, string(share.ID))
	return &pb.PromoteShareResponse{Share: answer, Event: after.LastEvent(), LeftBehindMs: window.Milliseconds()}, err
}
