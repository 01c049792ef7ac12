package server

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type taskService struct {
	pb.UnimplementedTaskServiceServer
	*Server
}

// ListTasks is described in the proto file.
func (s *taskService) ListTasks(ctx context.Context, req *pb.ListTasksRequest) (*pb.ListTasksResponse, error) {
	project, err := callerOf(ctx).projects(req.GetProject())
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	rows := slices.SortedFunc(v.Tasks(project), func(a, b *cairn.Task) int { return cmp.Compare(taskKey(a), taskKey(b)) })
	if req.GetRunning() {
		rows = slices.DeleteFunc(rows, func(t *cairn.Task) bool { return !t.Running() })
	}
	tasks, next, err := page(slices.Values(rows), req.GetPageSize(), req.GetPageToken(), taskKey, taskPB)
	return &pb.ListTasksResponse{Tasks: tasks, NextPageToken: next}, err
}

// taskKey sorts running tasks first, then newer ones before older ones.
func taskKey(t *cairn.Task) string {
	group := "ended"
	if t.Running() {
		group = "a running"
	}
	return fmt.Sprintf("%s %019d %s", group, math.MaxInt64-t.StartedAt, t.Share)
}

// GetTask is described in the proto file.
func (s *taskService) GetTask(ctx context.Context, req *pb.GetTaskRequest) (*pb.GetTaskResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	share, err := callerOf(ctx).share(v, req.GetShare(), req.GetProject())
	if err != nil {
		return nil, err
	}
	task := v.Task(share.ID)
	if task == nil {
		return nil, fmt.Errorf("task of share %s: there never was one: %w", share.Name, cairn.ErrNotFound)
	}
	return &pb.GetTaskResponse{Task: taskPB(task)}, nil
}

// CancelTask is described in the proto file.
func (s *taskService) CancelTask(ctx context.Context, req *pb.CancelTaskRequest) (*pb.CancelTaskResponse, error) {
	command := func(id cairn.ShareID) fsm.Command { return &fsm.StopTask{Share: id} }
	out, found, err := s.onShare(ctx, req.GetMutation(), req.GetShare(), req.GetProject(),
		func(v *fsm.View, share *cairn.Share) (fsm.Command, error) {
			stop := &fsm.StopTask{Share: share.ID}
			if task := v.Task(share.ID); task != nil {
				stop.Task = task.ID
			}
			return stop, nil
		}, command)
	if err != nil {
		return nil, err
	}
	task := out.view.Task(out.cmd.(*fsm.StopTask).Share)
	switch {
	case task == nil:
		return nil, gone(cairn.KindTask, out.id)
	case out.dry && found != nil:
		row := *task
		row.State, row.EndedAt = cairn.TaskCancelled, s.at()
		task = &row
	}
	return &pb.CancelTaskResponse{Task: taskPB(task)}, nil
}
