package server

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type shareService struct {
	pb.UnimplementedShareServiceServer
	*Server
}

// GetShare is described in the proto file.
func (s *shareService) GetShare(ctx context.Context, req *pb.GetShareRequest) (*pb.GetShareResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	share, err := callerOf(ctx).share(v, req.GetShare(), req.GetProject())
	if err != nil {
		return nil, err
	}
	return &pb.GetShareResponse{Share: sharePB(v, share, v.Task(share.ID)), Event: v.LastEvent()}, nil
}

// ListShares is described in the proto file.
func (s *shareService) ListShares(ctx context.Context, req *pb.ListSharesRequest) (*pb.ListSharesResponse, error) {
	project, err := callerOf(ctx).projects(req.GetProject())
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	key := func(s *cairn.Share) string {
		return string(s.Project) + "\x00" + s.Name + "\x00" + string(s.Format) + "\x00"
	}
	shares, next, err := page(v.Shares(project), req.GetPageSize(), req.GetPageToken(), key,
		func(share *cairn.Share) *pb.Share { return sharePB(v, share, v.Task(share.ID)) })
	return &pb.ListSharesResponse{Shares: shares, NextPageToken: next}, err
}

// onShare commits a change of one share that exists: command makes it from the share.
func (s *Server) onShare(ctx context.Context, m *pb.Mutation, text, project string,
	command func(v *fsm.View, share *cairn.Share) (fsm.Command, error), again func(cairn.ShareID) fsm.Command,
) (outcome, *cairn.Share, error) {
	var found *cairn.Share
	out, err := s.commit(ctx, change{
		mutation: m,
		build: func(v *fsm.View) (cmd fsm.Command, err error) {
			if found, err = callerOf(ctx).share(v, text, project); err != nil {
				return nil, err
			}
			return command(v, found)
		},
		again: func(id string) fsm.Command { return again(cairn.ShareID(id)) },
	})
	return out, found, err
}

// DeleteShare is described in the proto file.
func (s *shareService) DeleteShare(ctx context.Context, req *pb.DeleteShareRequest) (*pb.DeleteShareResponse, error) {
	command := func(id cairn.ShareID) fsm.Command { return &fsm.DeleteShare{ID: id} }
	out, _, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(_ *fsm.View, share *cairn.Share) (fsm.Command, error) { return command(share.ID), nil }, command)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteShareResponse{Id: out.id, Event: out.view.LastEvent()}, nil
}

// ResizeShare is described in the proto file.
func (s *shareService) ResizeShare(ctx context.Context, req *pb.ResizeShareRequest) (*pb.ResizeShareResponse, error) {
	if err := cairn.CheckSize(req.GetSize()); err != nil {
		return nil, err
	}
	task := &cairn.Task{ID: cairn.TaskID(newID()), Kind: cairn.TaskExtend, Size: req.GetSize()}
	if req.GetShrink() {
		task.Kind = cairn.TaskShrink
	}
	command := func(id cairn.ShareID) fsm.Command {
		return &fsm.SetSize{ID: id, Kind: task.Kind, Size: task.Size, Task: task.ID}
	}
	out, found, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(_ *fsm.View, share *cairn.Share) (fsm.Command, error) { return command(share.ID), nil }, command)
	if err != nil {
		return nil, err
	}
	share, err := s.withTask(out, out.cmd.(*fsm.SetSize).ID, found, task)
	if err != nil {
		return nil, err
	}
	return &pb.ResizeShareResponse{Share: share, Event: out.view.LastEvent()}, nil
}

// withTask renders the share after a task was started; of a dry run, as it would be.
func (s *Server) withTask(out outcome, id cairn.ShareID, found *cairn.Share, task *cairn.Task) (*pb.Share, error) {
	if !out.dry || found == nil {
		return storedShare(out.view, string(id))
	}
	task.Share, task.Project, task.State, task.StartedAt = found.ID, found.Project, cairn.TaskRunning, s.at()
	return sharePB(out.view, found, task), nil
}

// RevertShare is described in the proto file.
func (s *shareService) RevertShare(ctx context.Context, req *pb.RevertShareRequest) (*pb.RevertShareResponse, error) {
	caller := callerOf(ctx)
	task := &cairn.Task{ID: cairn.TaskID(newID()), Kind: cairn.TaskRevert}
	command := func(id cairn.ShareID) fsm.Command {
		return &fsm.RevertShare{ID: id, Snapshot: task.Snapshot, Task: task.ID}
	}
	out, found, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(v *fsm.View, share *cairn.Share) (fsm.Command, error) {
			snap, err := caller.snapshot(v, req.GetSnapshot(), string(share.ID), "")
			if err != nil {
				return nil, err
			}
			task.Snapshot = snap.ID
			return command(share.ID), nil
		}, command)
	if err != nil {
		return nil, err
	}
	share, err := s.withTask(out, out.cmd.(*fsm.RevertShare).ID, found, task)
	if err != nil {
		return nil, err
	}
	return &pb.RevertShareResponse{Share: share, Event: out.view.LastEvent()}, nil
}

// UpdateShare is described in the proto file.
func (s *shareService) UpdateShare(ctx context.Context, req *pb.UpdateShareRequest) (*pb.UpdateShareResponse, error) {
	if err := checkUpdate(req); err != nil {
		return nil, err
	}
	command := func(id cairn.ShareID) fsm.Command {
		return &fsm.UpdateShare{
			ID: id, Name: req.Name, Description: req.Description, SetMetadata: req.GetSetMetadata(), RemoveMetadata: req.GetRemoveMetadata(),
		}
	}
	out, found, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(_ *fsm.View, share *cairn.Share) (fsm.Command, error) {
			_, err := cairn.ParseSquash(share.Protocol, metadataAfter(share, req))
			return command(share.ID), err
		}, command)
	if err != nil {
		return nil, err
	}
	if out.dry && found != nil {
		return &pb.UpdateShareResponse{Share: updated(out.view, found, req)}, nil
	}
	share, err := storedShare(out.view, out.id)
	return &pb.UpdateShareResponse{Share: share}, err
}

func checkUpdate(req *pb.UpdateShareRequest) error {
	if req.Name != nil {
		if err := checkName(cairn.KindShare, req.GetName()); err != nil {
			return err
		}
	}
	if err := checkDescription(req.GetDescription()); err != nil {
		return err
	}
	if len(req.GetRemoveMetadata()) > maxMetadata {
		return fmt.Errorf("metadata: %d keys to remove, at most %d are allowed: %w", len(req.GetRemoveMetadata()), maxMetadata, cairn.ErrInvalid)
	}
	return checkMetadata(req.GetSetMetadata())
}

// updated is the share as it would be after the request.
func updated(v *fsm.View, share *cairn.Share, req *pb.UpdateShareRequest) *pb.Share {
	answer := sharePB(v, share, v.Task(share.ID))
	if req.Name != nil {
		answer.Name = req.GetName()
	}
	if req.Description != nil {
		answer.Description = req.GetDescription()
	}
	answer.Metadata = metadataAfter(share, req)
	return answer
}

func metadataAfter(share *cairn.Share, req *pb.UpdateShareRequest) map[string]string {
	metadata := maps.Clone(share.Metadata)
	maps.DeleteFunc(metadata, func(key, _ string) bool { return slices.Contains(req.GetRemoveMetadata(), key) })
	if metadata == nil {
		metadata = map[string]string{}
	}
	maps.Copy(metadata, req.GetSetMetadata())
	return metadata
}

// SetServiceAddress is described in the proto file.
func (s *shareService) SetServiceAddress(ctx context.Context, req *pb.SetServiceAddressRequest) (*pb.SetServiceAddressResponse, error) {
	command := func(id cairn.ShareID) fsm.Command {
		return &fsm.SetServiceAddress{Share: id, Address: req.GetServiceAddress()}
	}
	out, found, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(_ *fsm.View, share *cairn.Share) (fsm.Command, error) { return command(share.ID), nil }, command)
	if err != nil {
		return nil, err
	}
	if out.dry && found != nil {
		answer := sharePB(out.view, found, out.view.Task(found.ID))
		answer.ServiceAddress = req.GetServiceAddress()
		return &pb.SetServiceAddressResponse{Share: answer}, nil
	}
	share, err := storedShare(out.view, out.id)
	return &pb.SetServiceAddressResponse{Share: share}, err
}

// UnmanageShare is described in the proto file.
func (s *shareService) UnmanageShare(ctx context.Context, req *pb.UnmanageShareRequest) (*pb.UnmanageShareResponse, error) {
	if req.GetObject() != "" {
		if err := checkObject(req.GetObject()); err != nil {
			return nil, err
		}
	}
	task, object := cairn.TaskID(newID()), ""
	command := func(id cairn.ShareID) fsm.Command {
		return &fsm.UnmanageShare{ID: id, Task: task, Release: req.GetObject()}
	}
	out, _, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(v *fsm.View, share *cairn.Share) (fsm.Command, error) {
			name := req.GetObject()
			if name == "" {
				name = share.Name
			}
			object = left(v, share, name)
			return &fsm.UnmanageShare{ID: share.ID, Task: task, Release: name}, nil
		}, command)
	if err != nil {
		return nil, err
	}
	return &pb.UnmanageShareResponse{Id: string(out.cmd.(*fsm.UnmanageShare).ID), Object: object, Event: out.view.LastEvent()}, nil
}

// left says where the data of a share stays: node, pool and name.
func left(v *fsm.View, share *cairn.Share, name string) string {
	if r := v.Replica(share.Active); r != nil {
		return poolName(v, r.Pool) + "/" + name
	}
	return name
}
