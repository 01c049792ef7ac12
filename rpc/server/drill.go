package server

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Drill is what trying out a standby has shown. Times count from its start.
type Drill struct {
	Snapshot                   cairn.SnapshotID
	Cloned, Exported, Answered time.Duration
	Lag                        time.Duration // negative: not known
	Behind                     int64         // bytes, estimate
	Content, Source            Content       // of the clone; of the snapshot at the active replica
}

// Content is what a directory holds.
type Content struct {
	SHA256       []byte
	Files, Bytes int64
}

// DrillShare is described in the proto file. Any node can answer: the standby's does it all.
func (s *replicaService) DrillShare(ctx context.Context, req *pb.DrillShareRequest) (*pb.DrillShareResponse, error) {
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
	node := v.Node(row.Node)
	switch {
	case row.State != cairn.ReplicaInSync:
		return nil, fmt.Errorf("share %s: its replica on %s is %s; a drill needs a standby that is in sync: %w", share.Name, nodeName(v, row.Node), row.State, cairn.ErrPrecondition)
	case node == nil || node.State != cairn.NodeUp:
		return nil, fmt.Errorf("share %s: node %s of its standby is down: %w", share.Name, nodeName(v, row.Node), cairn.ErrPrecondition)
	}
	drill, err := s.cfg.Replication.Drill(ctx, row.Node, row.ID)
	if err != nil {
		return nil, fmt.Errorf("share %s: drill on %s: %w", share.Name, node.Name, err)
	}
	answer := &pb.DrillShareResponse{
		Replica: replicaPB(v, row), Snapshot: string(drill.Snapshot), CloneMs: drill.Cloned.Milliseconds(), ExportMs: drill.Exported.Milliseconds(),
		RtoMs: drill.Answered.Milliseconds(), RpoMs: -1, RpoBytes: drill.Behind,
		Sha256: hex.EncodeToString(drill.Content.SHA256), SourceSha256: hex.EncodeToString(drill.Source.SHA256),
		Files: drill.Content.Files, Bytes: drill.Content.Bytes,
	}
	answer.Identical = answer.Sha256 == answer.SourceSha256
	if drill.Lag >= 0 {
		answer.RpoMs = drill.Lag.Milliseconds()
	}
	return answer, nil
}
