package replication

import (
	"context"
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/rpc/errs"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// Driller tries out standbys of this node.
type Driller interface {
	Drill(ctx context.Context, standby cairn.ReplicaID) (replica.Drill, error)
}

// Drill implements peerv1.ReplicationServiceServer. A drill ends with its call, or with the server.
func (s *Server) Drill(ctx context.Context, request *peerv1.DrillRequest) (*peerv1.DrillResponse, error) {
	if _, err := s.member(ctx); err != nil {
		return nil, errs.ToStatus(err)
	}
	ctx, cancel := s.living(ctx)
	defer cancel(nil)
	drill, err := s.config.Driller.Drill(ctx, cairn.ReplicaID(request.GetStandby()))
	if err != nil {
		return nil, errs.ToStatus(err)
	}
	return drillMessage(drill), nil
}

// ReadContent implements peerv1.ReplicationServiceServer.
func (s *Server) ReadContent(ctx context.Context, request *peerv1.ReadContentRequest) (*peerv1.ReadContentResponse, error) {
	if _, err := s.member(ctx); err != nil {
		return nil, errs.ToStatus(err)
	}
	ctx, cancel := s.living(ctx)
	defer cancel(nil)
	content, err := s.config.Source.Content(ctx, cairn.ReplicaID(request.GetReplica()), cairn.SnapshotID(request.GetSnapshot()))
	if err != nil {
		return nil, errs.ToStatus(err)
	}
	return &peerv1.ReadContentResponse{Content: contentMessage(content)}, nil
}

// Drill has a node try out one of its standbys. The context's deadline is the drill's.
func (c *Client) Drill(ctx context.Context, node cairn.NodeID, standby cairn.ReplicaID) (replica.Drill, error) {
	conn, err := c.conn(ctx, node)
	if err != nil {
		return replica.Drill{}, err
	}
	answer, err := peerv1.NewReplicationServiceClient(conn).Drill(ctx, &peerv1.DrillRequest{Standby: string(standby)})
	if err != nil {
		return replica.Drill{}, failure(ctx, err)
	}
	return drill(standby, answer), nil
}

// Content has a node read a snapshot of one of its active replicas. It implements replica.Driller's Source.
func (c *Client) Content(ctx context.Context, node cairn.NodeID, id cairn.ReplicaID, snap cairn.SnapshotID) (replica.Content, error) {
	conn, err := c.conn(ctx, node)
	if err != nil {
		return replica.Content{}, err
	}
	request := &peerv1.ReadContentRequest{Replica: string(id), Snapshot: string(snap)}
	answer, err := peerv1.NewReplicationServiceClient(conn).ReadContent(ctx, request)
	if err != nil {
		return replica.Content{}, fmt.Errorf("node %s: %w", node, failure(ctx, err))
	}
	return contentOf(answer.GetContent()), nil
}

func drillMessage(d replica.Drill) *peerv1.DrillResponse {
	lag := int64(-1)
	if d.Lag >= 0 {
		lag = d.Lag.Milliseconds()
	}
	return &peerv1.DrillResponse{
		Snapshot: string(d.Snapshot), ClonedMs: d.Cloned.Milliseconds(), ExportedMs: d.Exported.Milliseconds(), AnsweredMs: d.Answered.Milliseconds(),
		LagMs: lag, Behind: d.Behind, Content: contentMessage(d.Content), Source: contentMessage(d.Source),
	}
}

func drill(standby cairn.ReplicaID, m *peerv1.DrillResponse) replica.Drill {
	return replica.Drill{
		Standby: standby, Snapshot: cairn.SnapshotID(m.GetSnapshot()), Cloned: milliseconds(m.GetClonedMs()), Exported: milliseconds(m.GetExportedMs()),
		Answered: milliseconds(m.GetAnsweredMs()), Lag: milliseconds(m.GetLagMs()), Behind: m.GetBehind(),
		Content: contentOf(m.GetContent()), Source: contentOf(m.GetSource()),
	}
}

func contentMessage(c replica.Content) *peerv1.Content {
	return &peerv1.Content{Sha256: c.SHA256[:], Files: c.Files, Bytes: c.Bytes}
}

func contentOf(m *peerv1.Content) (c replica.Content) {
	copy(c.SHA256[:], m.GetSha256())
	c.Files, c.Bytes = m.GetFiles(), m.GetBytes()
	return c
}
