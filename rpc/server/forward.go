package server

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/errs"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// forward hands a request that belongs on the leader to the leader, as it is and once: a leader that is none any more
// refuses it, so requests cannot go round in circles.
func (s *Server) forward(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !methods[info.FullMethod].leader || s.cfg.Leadership.IsLeader() || readsStale(req) {
		return handler(ctx, req)
	}
	caller := callerOf(ctx)
	if caller.forwarded {
		return nil, fmt.Errorf("node %s: is not the leader any more; try again: %w", s.cfg.Self, cairn.ErrUnavailable)
	}
	leader, address, err := s.cfg.Leadership.AwaitLeader(ctx)
	if err != nil {
		return nil, fmt.Errorf("nothing can be changed now: %w", undecided(err))
	}
	if leader == s.cfg.Self {
		return nil, fmt.Errorf("node %s: has only just become the leader; try again: %w", s.cfg.Self, cairn.ErrUnavailable)
	}
	answer, err := answerOf(info.FullMethod)
	if err != nil {
		return nil, err
	}
	conn, err := s.cfg.Leadership.Conn(ctx, leader)
	if err != nil {
		return nil, fmt.Errorf("leader at %s: cannot be reached: %w", address, err)
	}
	out := metadata.NewOutgoingContext(ctx, metadata.Pairs(forwardedFor, caller.claim.user, forwardedSerial, caller.claim.serial))
	reached := &peer.Peer{}
	err = conn.Invoke(out, info.FullMethod, req, answer, grpc.Peer(reached))
	if err := errs.FromCall(err, reached.Addr != nil, mutationOf(req) != nil); err != nil {
		return nil, err
	}
	return answer, nil
}

// answerOf makes an empty response of the method.
func answerOf(method string) (proto.Message, error) {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil, fmt.Errorf("method %s: %w", method, err)
	}
	described, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("method %s: is a %T", method, found)
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(described.Output().FullName())
	if err != nil {
		return nil, fmt.Errorf("method %s: %w", method, err)
	}
	return kind.New().Interface(), nil
}

// mutationOf returns what a request that changes something says about that; nil of any other. It is never nil for a request
// that has the field.
func mutationOf(req any) *pb.Mutation {
	m, ok := req.(interface{ GetMutation() *pb.Mutation })
	if !ok {
		return nil
	}
	if mutation := m.GetMutation(); mutation != nil {
		return mutation
	}
	return &pb.Mutation{}
}

// readsStale reports whether a request is content with this node's own copy.
func readsStale(req any) bool {
	r, ok := req.(interface{ GetRead() *pb.Read })
	return ok && r.GetRead().GetStale()
}
