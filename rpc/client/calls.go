package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/errs"
)

// calls is what every call goes through.
type calls struct {
	project string
}

// Wait between two attempts: from the first, twice as long each time up to the last, and between half and all of it at
// random, so that clients which failed together do not come back together.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// patience is how long a request is repeated that certainly had no effect, after it first failed: longer than an election
// takes, and short enough that a cluster without a quorum is noticed.
const patience = 3 * time.Second

type pause time.Duration

// sleep waits before the next attempt and reports whether there is time for one.
func (p *pause) sleep(ctx context.Context) bool {
	if *p = min(2*(*p), pause(lastPause)); *p == 0 {
		*p = pause(firstPause)
	}
	timer := time.NewTimer(time.Duration(*p)/2 + rand.N(time.Duration(*p)/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// again reports whether the same request may be sent again. Whatever else happened, another attempt would not change it, or
// nobody knows what it would do.
func again(err error) bool {
	return errors.Is(err, cairn.ErrUnavailable) || errors.Is(err, cairn.ErrUnknownOutcome)
}

func (c calls) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	message, changes := c.fill(req)
	var wait pause
	var failing time.Time // since
	for open := false; ; {
		reached := &peer.Peer{}
		err := errs.FromCall(invoke(ctx, method, message, reply, conn, append(opts, grpc.Peer(reached))...), reached.Addr != nil, changes)
		if err == nil || !again(err) {
			return unsettled(err, open)
		}
		open = open || errors.Is(err, cairn.ErrUnknownOutcome)
		if failing.IsZero() {
			failing = time.Now()
		}
		if !open && time.Since(failing) > patience || !wait.sleep(ctx) {
			return unsettled(err, open)
		}
	}
}

// unsettled is the last error of a call. If an earlier attempt may have been carried out, the last one must not claim that
// nothing was changed; a refusal by the cluster itself holds for all attempts, since they had one token.
func unsettled(err error, open bool) error {
	if open && errors.Is(err, cairn.ErrUnavailable) {
		return fmt.Errorf("%v; an earlier attempt may have been carried out: %w", err, cairn.ErrUnknownOutcome)
	}
	return err
}

// fill returns the request with an idempotency token, if it changes something, and with the configured project, if it names
// none. The caller's message stays as it is.
func (c calls) fill(req any) (filled any, changes bool) {
	original, ok := req.(proto.Message)
	if !ok {
		return req, false
	}
	fields := original.ProtoReflect().Descriptor().Fields()
	mutation := fields.ByName("mutation")
	if mutation == nil && !names(fields, "project") && !names(fields, "target") {
		return req, false
	}
	message := proto.Clone(original).ProtoReflect()
	if mutation != nil {
		setEmpty(message.Mutable(mutation).Message(), "token", uuid.NewString())
	}
	c.fillProject(message)
	return message.Interface(), mutation != nil
}

// fillProject leaves requests alone that name a resource by ID only: it may be in any project.
func (c calls) fillProject(message protoreflect.Message) {
	fields := message.Descriptor().Fields()
	if id := fields.ByName("id"); c.project == "" || id != nil && message.Get(id).String() != "" {
		return
	}
	setEmpty(message, "project", c.project)
	if target := fields.ByName("target"); target != nil && message.Has(target) {
		setEmpty(message.Mutable(target).Message(), "project", c.project)
	}
}

func names(fields protoreflect.FieldDescriptors, name protoreflect.Name) bool {
	return fields.ByName(name) != nil
}

func setEmpty(message protoreflect.Message, name protoreflect.Name, value string) {
	field := message.Descriptor().Fields().ByName(name)
	if field != nil && field.Kind() == protoreflect.StringKind && message.Get(field).String() == "" {
		message.Set(field, protoreflect.ValueOfString(value))
	}
}

func (c calls) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, errs.FromStatus(err)
	}
	return &stream{s, c}, nil
}

// stream is a stream whose errors wrap sentinels.
type stream struct {
	grpc.ClientStream
	calls calls
}

// SendMsg is as of grpc.ClientStream.
func (s *stream) SendMsg(m any) error {
	filled, _ := s.calls.fill(m)
	return errs.FromStatus(s.ClientStream.SendMsg(filled))
}

// RecvMsg is as of grpc.ClientStream; the end of the stream is io.EOF.
func (s *stream) RecvMsg(m any) error { return errs.FromStatus(s.ClientStream.RecvMsg(m)) }
