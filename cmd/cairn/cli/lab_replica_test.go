package cli

import (
	"context"
	"strings"

	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// ListReplicas shows docs with a standby that can be read, and one that is being fed.
func (l *lab) ListReplicas(_ context.Context, in *pb.ListReplicasRequest) (*pb.ListReplicasResponse, error) {
	return locked(l, func() (*pb.ListReplicasResponse, error) {
		share, err := l.findShare(in.GetShare())
		if err != nil {
			return nil, err
		}
		answer := &pb.ListReplicasResponse{Replicas: []*pb.ReplicaSync{{Replica: share.GetReplicas()[0]}}}
		if share.GetName() == "docs" {
			answer.Replicas = append(answer.Replicas, &pb.ReplicaSync{
				Replica: &pb.Replica{
					Id: "r3", Node: "n2", Pool: "data", State: "in_sync", Epoch: 1, Settled: true,
					Locations: []*pb.ExportLocation{{Url: "https://10.0.0.9:7452/replicas/r3/", ReadOnly: true}},
				},
				LagMs: 2300, LagBytes: 4 << 20,
			}, &pb.ReplicaSync{
				Replica: &pb.Replica{Id: "r4", Node: "n3", Pool: "data", State: "out_of_sync", Epoch: 1}, LagMs: -1, LagBytes: -1, Received: 1 << 20, Total: 1 << 30,
			})
		}
		return answer, nil
	})
}

// DrillShare finds that the standby of media differs from its active replica.
func (l *lab) DrillShare(_ context.Context, in *pb.DrillShareRequest) (*pb.DrillShareResponse, error) {
	return locked(l, func() (*pb.DrillShareResponse, error) {
		share, err := l.findShare(in.GetShare())
		if err != nil {
			return nil, err
		}
		answer := &pb.DrillShareResponse{
			Replica:  &pb.Replica{Id: "r3", Node: "n2", Pool: "data", State: "in_sync", Epoch: 1, Settled: true},
			Snapshot: "sync-00000001-00000007-019900000000", CloneMs: 41, ExportMs: 44, RtoMs: 57, RpoMs: 2300, RpoBytes: 4 << 20,
			Sha256: strings.Repeat("ab", 32), SourceSha256: strings.Repeat("ab", 32), Files: 12, Bytes: 3 << 20, Identical: true,
		}
		if share.GetName() == "media" {
			answer.Identical, answer.SourceSha256, answer.RpoMs = false, strings.Repeat("cd", 32), -1
		}
		return answer, nil
	})
}
