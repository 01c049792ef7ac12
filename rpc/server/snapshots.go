package server

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type snapshotService struct {
	pb.UnimplementedSnapshotServiceServer
	*Server
}

// CreateSnapshot is described in the proto file.
func (s *snapshotService) CreateSnapshot(ctx context.Context, req *pb.CreateSnapshotRequest) (*pb.CreateSnapshotResponse, error) {
	if err := checkName(cairn.KindSnapshot, req.GetName()); err != nil {
		return nil, err
	}
	if err := checkDescription(req.GetDescription()); err != nil {
		return nil, err
	}
	if err := checkMetadata(req.GetMetadata()); err != nil {
		return nil, err
	}
	row := cairn.Snapshot{ID: cairn.SnapshotID(newID()), Name: req.GetName(), Description: req.GetDescription(), Metadata: req.GetMetadata()}
	command := func(id cairn.ShareID) fsm.Command {
		snap := row
		snap.Share = id
		return &fsm.CreateSnapshot{Snapshot: snap}
	}
	out, share, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(_ *fsm.View, share *cairn.Share) (fsm.Command, error) { return command(share.ID), nil }, command)
	if err != nil {
		return nil, err
	}
	snap, err := s.newSnapshot(out, share, row)
	return &pb.CreateSnapshotResponse{Snapshot: snap, Event: out.view.LastEvent()}, err
}

// newSnapshot is the snapshot that a command has made of row, or would make.
func (s *snapshotService) newSnapshot(out outcome, share *cairn.Share, row cairn.Snapshot) (*pb.Snapshot, error) {
	snap := out.view.Snapshot(cairn.SnapshotID(out.id))
	switch {
	case snap == nil && out.dry:
		row.Share, row.Project, row.Size, row.Status, row.CreatedAt = share.ID, share.Project, share.Size, cairn.StatusCreating, s.at()
		snap = &row
	case snap == nil:
		return nil, gone(cairn.KindSnapshot, out.id)
	}
	return snapshotPB(out.view, snap), nil
}

// GetSnapshot is described in the proto file.
func (s *snapshotService) GetSnapshot(ctx context.Context, req *pb.GetSnapshotRequest) (*pb.GetSnapshotResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	snap, err := callerOf(ctx).snapshot(v, req.GetSnapshot(), req.GetShare(), req.GetProject())
	if err != nil {
		return nil, err
	}
	return &pb.GetSnapshotResponse{Snapshot: snapshotPB(v, snap), Event: v.LastEvent()}, nil
}

// ListSnapshots is described in the proto file.
func (s *snapshotService) ListSnapshots(ctx context.Context, req *pb.ListSnapshotsRequest) (*pb.ListSnapshotsResponse, error) {
	caller := callerOf(ctx)
	project, err := caller.projects(req.GetProject())
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	rows := snapshotsIn(v, project)
	if req.GetShare() != "" {
		share, err := caller.share(v, req.GetShare(), string(project))
		if err != nil {
			return nil, err
		}
		rows = v.SnapshotsOf(share.ID)
	}
	key := func(snap *cairn.Snapshot) string {
		return fmt.Sprintf("%s\x00%s\x00%s\x00%020d", snap.Project, v.Share(snap.Share).Name, snap.Share, snap.Order)
	}
	snaps, next, err := page(rows, req.GetPageSize(), req.GetPageToken(), key,
		func(snap *cairn.Snapshot) *pb.Snapshot { return snapshotPB(v, snap) })
	return &pb.ListSnapshotsResponse{Snapshots: snaps, NextPageToken: next}, err
}

// snapshotsIn yields the snapshots of a project, or of all, by project and share, and of each share the oldest first.
func snapshotsIn(v *fsm.View, project cairn.ProjectID) iter.Seq[*cairn.Snapshot] {
	return func(yield func(*cairn.Snapshot) bool) {
		for share := range v.Shares(project) {
			for snap := range v.SnapshotsOf(share.ID) {
				if !yield(snap) {
					return
				}
			}
		}
	}
}

// DeleteSnapshot is described in the proto file.
func (s *snapshotService) DeleteSnapshot(ctx context.Context, req *pb.DeleteSnapshotRequest) (*pb.DeleteSnapshotResponse, error) {
	caller := callerOf(ctx)
	out, err := s.commit(ctx, change{
		mutation: req.GetMutation(),
		build: func(v *fsm.View) (fsm.Command, error) {
			snap, err := caller.snapshot(v, req.GetSnapshot(), req.GetShare(), req.GetProject())
			if err != nil {
				return nil, err
			}
			return &fsm.DeleteSnapshot{ID: snap.ID}, nil
		},
		again: func(id string) fsm.Command { return &fsm.DeleteSnapshot{ID: cairn.SnapshotID(id)} },
	})
	if err != nil {
		return nil, err
	}
	return &pb.DeleteSnapshotResponse{Id: out.id, Event: out.view.LastEvent()}, nil
}

// ManageSnapshot is described in the proto file.
func (s *snapshotService) ManageSnapshot(ctx context.Context, req *pb.ManageSnapshotRequest) (*pb.ManageSnapshotResponse, error) {
	name := cmp.Or(req.GetName(), req.GetObject())
	if err := cairn.CheckObjectName("object", req.GetObject()); err != nil {
		return nil, err
	}
	if err := checkName(cairn.KindSnapshot, name); err != nil {
		return nil, err
	}
	if err := checkDescription(req.GetDescription()); err != nil {
		return nil, err
	}
	row := cairn.Snapshot{ID: cairn.SnapshotID(newID()), Name: name, Description: req.GetDescription()}
	command := func(id cairn.ShareID) fsm.Command {
		snap := row
		snap.Share = id
		return &fsm.ManageSnapshot{Snapshot: snap, Object: req.GetObject()}
	}
	out, share, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(_ *fsm.View, share *cairn.Share) (fsm.Command, error) { return command(share.ID), nil }, command)
	if err != nil {
		return nil, err
	}
	snap, err := s.newSnapshot(out, share, row)
	return &pb.ManageSnapshotResponse{Snapshot: snap, Event: out.view.LastEvent()}, err
}

// UnmanageSnapshot is described in the proto file.
func (s *snapshotService) UnmanageSnapshot(ctx context.Context, req *pb.UnmanageSnapshotRequest) (*pb.UnmanageSnapshotResponse, error) {
	caller, object := callerOf(ctx), ""
	out, err := s.commit(ctx, change{
		mutation: req.GetMutation(),
		build: func(v *fsm.View) (fsm.Command, error) {
			snap, err := caller.snapshot(v, req.GetSnapshot(), req.GetShare(), req.GetProject())
			if err != nil {
				return nil, err
			}
			object = v.ObjectOf(snap)
			return &fsm.UnmanageSnapshot{ID: snap.ID}, nil
		},
		again: func(id string) fsm.Command { return &fsm.UnmanageSnapshot{ID: cairn.SnapshotID(id)} },
	})
	if err != nil {
		return nil, err
	}
	return &pb.UnmanageSnapshotResponse{Id: out.id, Object: object, Event: out.view.LastEvent()}, nil
}
