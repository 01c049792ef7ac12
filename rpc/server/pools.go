package server

import (
	"cmp"
	"context"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type poolService struct {
	pb.UnimplementedPoolServiceServer
	*Server
}

// ListPools is described in the proto file.
func (s *poolService) ListPools(ctx context.Context, req *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	answer := &pb.ListPoolsResponse{}
	for p := range v.Pools() {
		answer.Pools = append(answer.Pools, poolPB(v, p, s.cfg.PoolFree(p.ID)))
	}
	slices.SortFunc(answer.Pools, func(a, b *pb.Pool) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name)) })
	return answer, nil
}

// GetPool is described in the proto file.
func (s *poolService) GetPool(ctx context.Context, req *pb.GetPoolRequest) (*pb.GetPoolResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	p, err := findPool(v, req.GetPool())
	if err != nil {
		return nil, err
	}
	return &pb.GetPoolResponse{Pool: poolPB(v, p, s.cfg.PoolFree(p.ID))}, nil
}

// FreezePool is described in the proto file.
func (s *poolService) FreezePool(ctx context.Context, req *pb.FreezePoolRequest) (*pb.FreezePoolResponse, error) {
	command := func(id cairn.PoolID) fsm.Command { return &fsm.FreezePool{Pool: id, Frozen: !req.GetThaw()} }
	out, err := s.commit(ctx, change{
		mutation: req.GetMutation(),
		build: func(v *fsm.View) (fsm.Command, error) {
			p, err := findPool(v, req.GetPool())
			if err != nil {
				return nil, err
			}
			return command(p.ID), nil
		},
		again: func(id string) fsm.Command { return command(cairn.PoolID(id)) },
	})
	if err != nil {
		return nil, err
	}
	p := out.view.Pool(cairn.PoolID(out.id))
	switch {
	case p == nil:
		return nil, gone(cairn.KindPool, out.id)
	case out.dry:
		row := *p
		row.Frozen = !req.GetThaw()
		p = &row
	}
	return &pb.FreezePoolResponse{Pool: poolPB(out.view, p, s.cfg.PoolFree(p.ID))}, nil
}
