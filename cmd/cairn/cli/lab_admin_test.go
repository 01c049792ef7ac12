package cli

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/errs"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func (l *lab) GetClusterStatus(context.Context, *pb.GetClusterStatusRequest) (*pb.GetClusterStatusResponse, error) {
	return &pb.GetClusterStatusResponse{
		Id: "c1", Name: "lab", AnsweredBy: "n2", Leader: "n1", Term: 7, AppliedIndex: 1234, Digest: "00ff12",
		Members: []*pb.Member{
			{Node: "n1", Address: "10.0.0.1:7450", Role: "leader", State: "up", LastIndex: 1234},
			{Node: "n2", Address: "10.0.0.2:7450", Role: "voter", State: "down", ClockOffsetMs: -12, LastIndex: 1200},
		},
	}, nil
}

func (l *lab) TransferLeadership(_ context.Context, in *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	return &pb.TransferLeadershipResponse{Leader: in.GetNode()}, nil
}

func (l *lab) Why(context.Context, *pb.WhyRequest) (*pb.WhyResponse, error) {
	return &pb.WhyResponse{
		Summary: "share media is being extended and waits for space in its pool.",
		Lines: []*pb.WhyLine{
			{Topic: "task", Text: "extend to 2GiB, running for 3m"}, {Topic: "last error", Text: "pool n1/data is full:\n0 bytes are left"},
			{Topic: "next attempt", Text: "in 12s on n1"},
		},
	}, nil
}

func (l *lab) ExplainPlacement(_ context.Context, in *pb.ExplainPlacementRequest) (*pb.ExplainPlacementResponse, error) {
	refused := &pb.PlacementVerdict{Pool: "n2/data", Filter: "frozen", Reason: "the pool takes no new replicas"}
	if in.GetZone() == "b" {
		return &pb.ExplainPlacementResponse{Verdicts: []*pb.PlacementVerdict{refused}}, nil
	}
	return &pb.ExplainPlacementResponse{Chosen: "n1/data", Verdicts: []*pb.PlacementVerdict{{
		Pool: "n1/data", Accepted: true, Score: 1.25,
		Terms: []*pb.PlacementTerm{{Name: "free", Value: 0.75, Weight: 1}, {Name: "leaders", Value: 0.5, Weight: 1}},
	}, refused}}, nil
}

func (l *lab) CreateNodeToken(_ context.Context, in *pb.CreateNodeTokenRequest) (*pb.CreateNodeTokenResponse, error) {
	if in.GetMutation().GetDryRun() {
		return &pb.CreateNodeTokenResponse{ExpiresAt: ago(-time.Hour)}, nil
	}
	return &pb.CreateNodeTokenResponse{Token: "eyJzZWNyZXQiOiJ4In0", Id: tokenID, ExpiresAt: ago(-time.Hour)}, nil
}

func (l *lab) ListNodeTokens(context.Context, *pb.ListNodeTokensRequest) (*pb.ListNodeTokensResponse, error) {
	return &pb.ListNodeTokensResponse{Tokens: []*pb.NodeToken{{Id: tokenID, Name: "n3", ExpiresAt: ago(-30 * time.Minute)}}}, nil
}

func (l *lab) DeleteNodeToken(context.Context, *pb.DeleteNodeTokenRequest) (*pb.DeleteNodeTokenResponse, error) {
	return &pb.DeleteNodeTokenResponse{}, nil
}

func (l *lab) ListNodes(context.Context, *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	return &pb.ListNodesResponse{Nodes: l.nodes}, nil
}

func (l *lab) findNode(key string) (*pb.Node, error) {
	return find(l.nodes, "node", key, (*pb.Node).GetId)
}

func (l *lab) GetNode(_ context.Context, in *pb.GetNodeRequest) (*pb.GetNodeResponse, error) {
	node, err := l.findNode(in.GetNode())
	return &pb.GetNodeResponse{Node: node, Pools: l.pools[:1]}, err
}

func (l *lab) DrainNode(_ context.Context, in *pb.DrainNodeRequest) (*pb.DrainNodeResponse, error) {
	return locked(l, func() (*pb.DrainNodeResponse, error) {
		node, err := l.findNode(in.GetNode())
		if err != nil {
			return nil, err
		}
		if !in.GetMutation().GetDryRun() {
			l.step(node.GetId())
		}
		node.Draining = !in.GetUndo()
		return &pb.DrainNodeResponse{Node: node, Shares: l.held}, nil
	})
}

func (l *lab) RemoveNode(_ context.Context, in *pb.RemoveNodeRequest) (*pb.RemoveNodeResponse, error) {
	return locked(l, func() (*pb.RemoveNodeResponse, error) {
		if len(l.held) > 0 && !in.GetForce() {
			return nil, errs.ToStatus(fmt.Errorf("node n1: holds the only copy of default/docs: %w", cairn.ErrInUse))
		}
		return &pb.RemoveNodeResponse{LostShares: l.held}, nil
	})
}

func (l *lab) CheckNodeStop(_ context.Context, in *pb.CheckNodeStopRequest) (*pb.CheckNodeStopResponse, error) {
	if in.GetNode() == "n1" {
		return &pb.CheckNodeStopResponse{Reasons: []string{"1 of 2 voters would be left: no quorum", "share docs would not be served"}}, nil
	}
	return &pb.CheckNodeStopResponse{Ok: true}, nil
}

func (l *lab) ListPools(context.Context, *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	return &pb.ListPoolsResponse{Pools: l.pools}, nil
}

func (l *lab) GetPool(_ context.Context, in *pb.GetPoolRequest) (*pb.GetPoolResponse, error) {
	pool, err := find(l.pools, "pool", in.GetPool(), (*pb.Pool).GetName)
	return &pb.GetPoolResponse{Pool: pool}, err
}

func (l *lab) FreezePool(_ context.Context, in *pb.FreezePoolRequest) (*pb.FreezePoolResponse, error) {
	pool, err := find(l.pools, "pool", in.GetPool(), (*pb.Pool).GetName)
	if err != nil {
		return nil, err
	}
	pool.Frozen = !in.GetThaw()
	return &pb.FreezePoolResponse{Pool: pool}, nil
}

func fixedType() *pb.ShareType {
	return &pb.ShareType{
		Name: "default", Description: "what every cluster begins with", Format: "files", CreatedAt: ago(400 * 24 * time.Hour),
		Specs: map[string]string{"snapshot_support": "true", "driver": "dir"},
	}
}

func (l *lab) CreateType(_ context.Context, in *pb.CreateTypeRequest) (*pb.CreateTypeResponse, error) {
	made := proto.Clone(in.GetType()).(*pb.ShareType)
	made.CreatedAt = ago(0)
	return &pb.CreateTypeResponse{Type: made}, nil
}

func (l *lab) ListTypes(context.Context, *pb.ListTypesRequest) (*pb.ListTypesResponse, error) {
	return &pb.ListTypesResponse{Types: []*pb.ShareType{fixedType()}}, nil
}

func (l *lab) GetType(context.Context, *pb.GetTypeRequest) (*pb.GetTypeResponse, error) {
	return &pb.GetTypeResponse{Type: fixedType()}, nil
}

func (l *lab) DeleteType(context.Context, *pb.DeleteTypeRequest) (*pb.DeleteTypeResponse, error) {
	return &pb.DeleteTypeResponse{}, nil
}

func fixedQuota() *pb.Quota {
	return &pb.Quota{
		Project: "team-a", Limits: &pb.Amounts{Shares: 10, Bytes: 1 << 40, Snapshots: -1, SnapshotBytes: -1},
		Usage: &pb.Amounts{Shares: 2, Bytes: 2560 << 20, Snapshots: 1, SnapshotBytes: 1 << 30},
	}
}

func (l *lab) GetQuota(context.Context, *pb.GetQuotaRequest) (*pb.GetQuotaResponse, error) {
	return &pb.GetQuotaResponse{Quota: fixedQuota()}, nil
}

func (l *lab) SetQuota(context.Context, *pb.SetQuotaRequest) (*pb.SetQuotaResponse, error) {
	return &pb.SetQuotaResponse{Quota: fixedQuota()}, nil
}

func (l *lab) ListQuotas(context.Context, *pb.ListQuotasRequest) (*pb.ListQuotasResponse, error) {
	return &pb.ListQuotasResponse{Quotas: []*pb.Quota{fixedQuota()}}, nil
}

// ListTasks has pages of one task.
func (l *lab) ListTasks(_ context.Context, in *pb.ListTasksRequest) (*pb.ListTasksResponse, error) {
	if in.GetPageToken() == "" {
		return &pb.ListTasksResponse{Tasks: []*pb.Task{mediaShare().GetTask()}, NextPageToken: "more"}, nil
	}
	return &pb.ListTasksResponse{Tasks: []*pb.Task{{
		Id: taskID + "9", Share: docsID, Kind: "revert", State: "succeeded", Snapshot: beforeID, StartedAt: ago(time.Hour), EndedAt: ago(time.Hour - 1500*time.Millisecond),
	}}}, nil
}

func (l *lab) GetTask(context.Context, *pb.GetTaskRequest) (*pb.GetTaskResponse, error) {
	return &pb.GetTaskResponse{Task: mediaShare().GetTask()}, nil
}

func (l *lab) CancelTask(context.Context, *pb.CancelTaskRequest) (*pb.CancelTaskResponse, error) {
	task := mediaShare().GetTask()
	task.State, task.EndedAt = "cancelled", ago(0)
	return &pb.CancelTaskResponse{Task: task}, nil
}

func (l *lab) CreateUser(_ context.Context, in *pb.CreateUserRequest) (*pb.CreateUserResponse, error) {
	user := proto.Clone(in.GetUser()).(*pb.User)
	user.ExpiresAt = ago(-time.Duration(in.GetTtlDays()) * 24 * time.Hour)
	return &pb.CreateUserResponse{User: user, Certificate: "the certificate\n", Ca: "the CA\n"}, nil
}

func (l *lab) ListUsers(context.Context, *pb.ListUsersRequest) (*pb.ListUsersResponse, error) {
	return &pb.ListUsersResponse{Users: []*pb.User{
		{Name: "admin", Role: "admin", ExpiresAt: ago(-365 * 24 * time.Hour)}, {Name: "ann", Role: "member", Project: "team-a", ExpiresAt: ago(-3 * time.Hour)},
	}}, nil
}

func (l *lab) DeleteUser(context.Context, *pb.DeleteUserRequest) (*pb.DeleteUserResponse, error) {
	return &pb.DeleteUserResponse{}, nil
}
