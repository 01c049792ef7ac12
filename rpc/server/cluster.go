package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/placement"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type clusterService struct {
	pb.UnimplementedClusterServiceServer
	*Server
}

// GetClusterStatus is described in the proto file.
func (s *clusterService) GetClusterStatus(context.Context, *pb.GetClusterStatusRequest) (*pb.GetClusterStatusResponse, error) {
	v, raft := s.cfg.State.View(), s.cfg.Membership.Status()
	_, diverged := s.cfg.State.Machine().Divergence()
	answer := &pb.GetClusterStatusResponse{
		AnsweredBy: nodeName(v, s.cfg.Self), Term: raft.Term, AppliedIndex: v.Index(), Diverged: diverged,
		Digest: fmt.Sprintf("%016x", v.Digest()),
	}
	if c := v.Cluster(); c != nil {
		answer.Id, answer.Name = string(c.ID), c.Name
	}
	if raft.Leader != "" {
		answer.Leader = nodeName(v, raft.Leader)
	}
	for _, m := range raft.Members {
		member := &pb.Member{
			Node: nodeName(v, m.Node), Address: m.Address, Role: raft.role(m.Node), LastIndex: m.LastIndex, ClockOffsetMs: m.ClockOffset.Milliseconds(),
		}
		if n := v.Node(m.Node); n != nil {
			member.State = string(n.State)
		}
		answer.Members = append(answer.Members, member)
	}
	slices.SortFunc(answer.Members, func(a, b *pb.Member) int { return cmp.Compare(a.Node, b.Node) })
	return answer, nil
}

// TransferLeadership is described in the proto file.
func (s *clusterService) TransferLeadership(ctx context.Context, req *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	v, err := s.view(ctx, nil)
	if err != nil {
		return nil, err
	}
	raft := s.cfg.Membership.Status()
	to := cairn.NodeID("")
	if req.GetNode() != "" {
		n, err := findNode(v, req.GetNode())
		if err != nil {
			return nil, err
		}
		switch to = n.ID; {
		case to == raft.Leader:
			return &pb.TransferLeadershipResponse{Leader: n.Name}, nil
		case raft.role(to) != "voter":
			return nil, fmt.Errorf("node %s: is no voter, so it cannot lead: %w", n.Name, cairn.ErrPrecondition)
		case n.State != cairn.NodeUp:
			return nil, fmt.Errorf("node %s: is %s, so it cannot lead: %w", n.Name, n.State, cairn.ErrPrecondition)
		}
	}
	if to == "" && !slices.ContainsFunc(raft.Members, func(m Member) bool { return m.Voter && m.Node != raft.Leader }) {
		return nil, fmt.Errorf("cluster: has no other voter that could lead: %w", cairn.ErrPrecondition)
	}
	if req.GetMutation().GetDryRun() {
		return &pb.TransferLeadershipResponse{Leader: req.GetNode()}, nil
	}
	if err := s.cfg.Leadership.TransferLeadership(ctx, to); err != nil {
		return nil, undecided(err)
	}
	answer := &pb.TransferLeadershipResponse{}
	if leader, _ := s.cfg.Leadership.Leader(); leader != "" {
		answer.Leader = nodeName(v, leader)
	}
	return answer, nil
}

// ExplainPlacement is described in the proto file.
func (s *clusterService) ExplainPlacement(ctx context.Context, req *pb.ExplainPlacementRequest) (*pb.ExplainPlacementResponse, error) {
	if err := cairn.CheckSize(req.GetSize()); err != nil {
		return nil, err
	}
	protocol, err := parseProtocol(req.GetProtocol())
	if err != nil {
		return nil, err
	}
	v, err := s.view(ctx, nil)
	if err != nil {
		return nil, err
	}
	kind := v.Type(cmp.Or(req.GetType(), cairn.DefaultType))
	if kind == nil {
		return nil, fmt.Errorf("type %s: %w", strconv.Quote(req.GetType()), cairn.ErrNotFound)
	}
	if kind.Format == cairn.FormatBlock {
		protocol = ""
	}
	// The error says no more than the verdicts do.
	chosen, verdicts, _ := placement.Place(placement.Request{
		Size: req.GetSize(), Format: kind.Format, Protocol: protocol, Type: kind, Zone: req.GetZone(),
	}, s.candidates(v))
	answer := &pb.ExplainPlacementResponse{}
	if chosen != nil {
		answer.Chosen = poolName(v, chosen.ID)
	}
	slices.SortStableFunc(verdicts, func(a, b placement.Verdict) int {
		if a.Accepted != b.Accepted {
			return map[bool]int{true: -1, false: 1}[a.Accepted]
		}
		return cmp.Compare(b.Score, a.Score)
	})
	for i := range verdicts {
		answer.Verdicts = append(answer.Verdicts, verdictPB(&verdicts[i]))
	}
	return answer, nil
}

func verdictPB(v *placement.Verdict) *pb.PlacementVerdict {
	out := &pb.PlacementVerdict{Pool: v.Node + "/" + v.PoolName, Accepted: v.Accepted, Filter: v.Filter, Reason: v.Reason, Score: v.Score}
	for _, t := range v.Terms {
		out.Terms = append(out.Terms, &pb.PlacementTerm{Name: t.Name, Value: t.Value, Weight: t.Weight})
	}
	return out
}
