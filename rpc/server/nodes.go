package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type nodeService struct {
	pb.UnimplementedNodeServiceServer
	*Server
}

// How long a join token is good for.
const (
	tokenTTL        = time.Hour
	longestTokenTTL = day
)

// CreateNodeToken is described in the proto file.
func (s *nodeService) CreateNodeToken(ctx context.Context, req *pb.CreateNodeTokenRequest) (*pb.CreateNodeTokenResponse, error) {
	if err := checkName(cairn.KindNode, req.GetName()); err != nil {
		return nil, err
	}
	ttl, err := lifetime("seconds that the token is good for", req.GetTtlSeconds(), time.Second, tokenTTL, longestTokenTTL)
	if err != nil {
		return nil, err
	}
	if req.GetMutation().GetDryRun() {
		row := cairn.JoinToken{
			ID: cairn.TokenID(newID()), Node: cairn.NodeID(newID()), Name: req.GetName(), SecretHash: make([]byte, sha256.Size),
			ExpiresAt: s.cfg.Now().Add(ttl).UnixNano(),
		}
		_, err := s.commit(ctx, plainly(req.GetMutation(), &fsm.CreateJoinToken{Token: row}))
		return &pb.CreateNodeTokenResponse{ExpiresAt: timestamp(row.ExpiresAt)}, err
	}
	meta, err := s.meta(ctx, req.GetMutation())
	if err != nil {
		return nil, err
	}
	token, node, err := s.cfg.Authority.CreateToken(ctx, meta, req.GetName(), ttl)
	if err != nil {
		return nil, undecided(err)
	}
	v, err := s.readBack(ctx, newest)
	if err != nil {
		return nil, err
	}
	for row := range v.Tokens() {
		if row.Node == node {
			return &pb.CreateNodeTokenResponse{Token: token, Id: string(row.ID), ExpiresAt: timestamp(row.ExpiresAt)}, nil
		}
	}
	return nil, gone(cairn.KindToken, req.GetName())
}

// ListNodeTokens is described in the proto file.
func (s *nodeService) ListNodeTokens(ctx context.Context, req *pb.ListNodeTokensRequest) (*pb.ListNodeTokensResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	answer := &pb.ListNodeTokensResponse{}
	for token := range v.Tokens() {
		if len(token.UsedBy) == 0 && token.ExpiresAt > s.at() {
			answer.Tokens = append(answer.Tokens, &pb.NodeToken{Id: string(token.ID), Name: token.Name, ExpiresAt: timestamp(token.ExpiresAt)})
		}
	}
	slices.SortFunc(answer.Tokens, func(a, b *pb.NodeToken) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Id, b.Id)) })
	return answer, nil
}

// DeleteNodeToken is described in the proto file.
func (s *nodeService) DeleteNodeToken(ctx context.Context, req *pb.DeleteNodeTokenRequest) (*pb.DeleteNodeTokenResponse, error) {
	if req.GetId() == "" {
		return nil, fmt.Errorf("token: ID is missing: %w", cairn.ErrInvalid)
	}
	_, err := s.commit(ctx, plainly(req.GetMutation(), &fsm.DeleteJoinToken{ID: cairn.TokenID(req.GetId())}))
	return &pb.DeleteNodeTokenResponse{}, err
}

// ListNodes is described in the proto file.
func (s *nodeService) ListNodes(ctx context.Context, req *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	raft, answer := s.cfg.Membership.Status(), &pb.ListNodesResponse{}
	for n := range v.Nodes() {
		answer.Nodes = append(answer.Nodes, nodePB(v, n, raft))
	}
	slices.SortFunc(answer.Nodes, func(a, b *pb.Node) int { return cmp.Compare(a.Name, b.Name) })
	return answer, nil
}

// GetNode is described in the proto file.
func (s *nodeService) GetNode(ctx context.Context, req *pb.GetNodeRequest) (*pb.GetNodeResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	n, err := findNode(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	answer := &pb.GetNodeResponse{Node: nodePB(v, n, s.cfg.Membership.Status())}
	for p := range v.PoolsOf(n.ID) {
		answer.Pools = append(answer.Pools, poolPB(v, p, s.cfg.PoolFree(p.ID)))
	}
	return answer, nil
}

// onNode commits a change of one node.
func (s *Server) onNode(ctx context.Context, m *pb.Mutation, text string, command func(cairn.NodeID) fsm.Command) (outcome, *cairn.Node, error) {
	var found *cairn.Node
	out, err := s.commit(ctx, change{
		mutation: m,
		build: func(v *fsm.View) (cmd fsm.Command, err error) {
			if found, err = findNode(v, text); err != nil {
				return nil, err
			}
			return command(found.ID), nil
		},
		again: func(id string) fsm.Command { return command(cairn.NodeID(id)) },
	})
	return out, found, err
}

// DrainNode is described in the proto file.
func (s *nodeService) DrainNode(ctx context.Context, req *pb.DrainNodeRequest) (*pb.DrainNodeResponse, error) {
	out, found, err := s.onNode(ctx, req.GetMutation(), req.GetNode(),
		func(id cairn.NodeID) fsm.Command { return &fsm.DrainNode{Node: id, Draining: !req.GetUndo()} })
	if err != nil {
		return nil, err
	}
	n := out.view.Node(cairn.NodeID(out.id))
	switch {
	case n == nil:
		return nil, gone(cairn.KindNode, out.id)
	case out.dry && found != nil:
		row := *n
		row.Draining = !req.GetUndo()
		n = &row
	}
	answer := &pb.DrainNodeResponse{Node: nodePB(out.view, n, s.cfg.Membership.Status())}
	for _, share := range sharesOn(out.view, n.ID) {
		answer.Shares = append(answer.Shares, string(share.Project)+"/"+share.Name)
	}
	return answer, nil
}

// sharesOn returns the shares that have a replica on the node, by project and name.
func sharesOn(v *fsm.View, node cairn.NodeID) []*cairn.Share {
	var shares []*cairn.Share
	for r := range v.ReplicasOn(node) {
		if s := v.Share(r.Share); s != nil {
			shares = append(shares, s)
		}
	}
	slices.SortFunc(shares, func(a, b *cairn.Share) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(shares)
}

// onlyCopies returns those of them that have no replica elsewhere.
func onlyCopies(v *fsm.View, node cairn.NodeID) []string {
	var names []string
	for _, s := range sharesOn(v, node) {
		elsewhere := false
		for r := range v.ReplicasOf(s.ID) {
			elsewhere = elsewhere || r.Node != node
		}
		if !elsewhere {
			names = append(names, string(s.Project)+"/"+s.Name)
		}
	}
	return names
}

// RemoveNode is described in the proto file.
func (s *nodeService) RemoveNode(ctx context.Context, req *pb.RemoveNodeRequest) (*pb.RemoveNodeResponse, error) {
	meta, err := s.meta(ctx, req.GetMutation())
	if err != nil {
		return nil, err
	}
	var lost []string
	build := func(v *fsm.View) (fsm.Command, error) {
		n, err := findNode(v, req.GetNode())
		if err != nil {
			return nil, err
		}
		if lost = onlyCopies(v, n.ID); len(lost) > 0 && !req.GetForce() {
			return nil, fmt.Errorf("node %s: holds the only copy of %s; delete or move them first, or --force to give them up: %w",
				n.Name, some(lost), cairn.ErrInUse)
		}
		return &fsm.RemoveNode{Node: n.ID, Force: req.GetForce()}, nil
	}
	c := change{
		mutation: req.GetMutation(),
		build:    build,
		again:    func(id string) fsm.Command { return &fsm.RemoveNode{Node: cairn.NodeID(id), Force: req.GetForce()} },
	}
	if req.GetMutation().GetDryRun() {
		_, err := s.commit(ctx, c)
		return &pb.RemoveNodeResponse{LostShares: lost}, err
	}
	v, cmd, err := s.build(ctx, c)
	if err != nil {
		if cmd = s.repeated(v, meta, c); cmd == nil {
			return nil, err
		}
	}
	if err := s.cfg.Membership.RemoveMember(ctx, meta, cmd.(*fsm.RemoveNode).Node, req.GetForce()); err != nil {
		return nil, undecided(err)
	}
	return &pb.RemoveNodeResponse{LostShares: lost}, nil
}

// some lists names, but not more than fit into a line.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// CheckNodeStop is described in the proto file.
func (s *nodeService) CheckNodeStop(ctx context.Context, req *pb.CheckNodeStopRequest) (*pb.CheckNodeStopResponse, error) {
	v, err := s.view(ctx, nil)
	if err != nil {
		return nil, err
	}
	n, err := findNode(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	reasons := stopCosts(v, n, s.cfg.Membership.Status())
	return &pb.CheckNodeStopResponse{Ok: len(reasons) == 0, Reasons: reasons}, nil
}

// stopCosts says what stopping a node now would cost, one line for each thing.
func stopCosts(v *fsm.View, n *cairn.Node, raft Status) (reasons []string) {
	voters, left := 0, 0
	for _, m := range raft.Members {
		if !m.Voter {
			continue
		}
		voters++
		if other := v.Node(m.Node); m.Node != n.ID && other != nil && other.State == cairn.NodeUp {
			left++
		}
	}
	if need := voters/2 + 1; raft.role(n.ID) != "non-voter" && left < need {
		reasons = append(reasons, fmt.Sprintf("quorum: %d of %d voters would be left, and %d are needed to change anything", left, voters, need))
	}
	for _, s := range sharesOn(v, n.ID) {
		if r := v.Replica(s.Active); r != nil && r.Node == n.ID {
			reasons = append(reasons, fmt.Sprintf("share %s/%s: is served by this node and would not be reachable", s.Project, s.Name))
		}
	}
	return reasons
}
