package server

import (
	"context"
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type quotaService struct {
	pb.UnimplementedQuotaServiceServer
	*Server
}

// GetQuota is described in the proto file.
func (s *quotaService) GetQuota(ctx context.Context, req *pb.GetQuotaRequest) (*pb.GetQuotaResponse, error) {
	project, err := callerOf(ctx).project(req.GetProject())
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	return &pb.GetQuotaResponse{Quota: quotaPB(v, project, v.Quota(project).Limits)}, nil
}

// SetQuota is described in the proto file.
func (s *quotaService) SetQuota(ctx context.Context, req *pb.SetQuotaRequest) (*pb.SetQuotaResponse, error) {
	project := cairn.ProjectID(req.GetProject())
	if err := cairn.CheckName("project", req.GetProject()); err != nil {
		return nil, err
	}
	for name, limit := range map[string]*int64{
		"shares": req.Shares, "bytes": req.Bytes, "snapshots": req.Snapshots, "snapshot bytes": req.SnapshotBytes,
	} {
		if limit != nil && *limit < cairn.Unlimited {
			return nil, fmt.Errorf("quota of %s: %d: want a number that is not negative, or -1 for unlimited: %w", name, *limit, cairn.ErrInvalid)
		}
	}
	change := change{
		mutation: req.GetMutation(),
		build: func(*fsm.View) (fsm.Command, error) {
			return &fsm.ChangeQuota{Project: project, Shares: req.Shares, Bytes: req.Bytes, Snapshots: req.Snapshots, SnapshotBytes: req.SnapshotBytes}, nil
		},
		again: func(string) fsm.Command { return &fsm.ChangeQuota{Project: project} },
	}
	out, err := s.commit(ctx, change)
	if err != nil {
		return nil, err
	}
	limits := out.view.Quota(project).Limits
	if out.dry {
		limits = changedLimits(limits, req)
	}
	return &pb.SetQuotaResponse{Quota: quotaPB(out.view, project, limits)}, nil
}

// changedLimits is what a dry run would have made of the limits.
func changedLimits(l cairn.Limits, req *pb.SetQuotaRequest) cairn.Limits {
	for _, field := range []struct {
		limit *int64
		asked *int64
	}{{&l.Shares, req.Shares}, {&l.Bytes, req.Bytes}, {&l.Snapshots, req.Snapshots}, {&l.SnapshotBytes, req.SnapshotBytes}} {
		if field.asked != nil {
			*field.limit = *field.asked
		}
	}
	return l
}

// ListQuotas is described in the proto file.
func (s *quotaService) ListQuotas(ctx context.Context, req *pb.ListQuotasRequest) (*pb.ListQuotasResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	answer := &pb.ListQuotasResponse{}
	for project := range v.Projects() {
		answer.Quotas = append(answer.Quotas, quotaPB(v, project, v.Quota(project).Limits))
	}
	return answer, nil
}
