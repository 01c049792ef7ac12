package server

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type eventService struct {
	pb.UnimplementedEventServiceServer
	*Server
}

// selection is which events a caller wants.
type selection struct {
	project cairn.ProjectID // "" is every project, and the cluster
	id      string          // "" is every resource
	since   int64
}

// selects is what a request asks for. An ID is enough to find its events, so it takes no project.
func (c *caller) selects(project, id string) (selection, error) {
	if id != "" && project == "" {
		return selection{project: c.bound(), id: id}, nil
	}
	in, err := c.projects(project)
	return selection{project: in, id: id}, err
}

func (s selection) has(e *cairn.Event) bool {
	return (s.project == "" || e.Project == s.project) && (s.id == "" || e.Ref.ID == s.id) && e.At >= s.since
}

// ListEvents is described in the proto file.
func (s *eventService) ListEvents(ctx context.Context, req *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	want, err := callerOf(ctx).selects(req.GetProject(), req.GetId())
	if err != nil {
		return nil, err
	}
	if req.GetSince() != "" {
		at, err := time.Parse(time.RFC3339, req.GetSince())
		if err != nil {
			return nil, fmt.Errorf("since %s: want RFC 3339, such as 2026-01-31T12:00:00Z: %w", shown(req.GetSince()), cairn.ErrInvalid)
		}
		want.since = at.UnixNano()
	}
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	if err := kept(v, req.GetAfter()); err != nil {
		return nil, err
	}
	rows := func(yield func(*cairn.Event) bool) {
		for e := range v.Events(req.GetAfter()) {
			if want.has(e) && !yield(e) {
				return
			}
		}
	}
	key := func(e *cairn.Event) string { return fmt.Sprintf("%020d", e.Seq) }
	events, _, err := page(rows, req.GetPageSize(), "", key, eventPB)
	return &pb.ListEventsResponse{Events: events, Newest: v.LastEvent()}, err
}

// kept refuses to go on from an event whose successor is forgotten: something would be missing. 0 is the beginning of what
// there is.
func kept(v *fsm.View, after uint64) error {
	if first := v.FirstEvent(); after != 0 && first > after+1 {
		return fmt.Errorf("events: those after %d are not kept any more; the oldest is %d, so look at the resources and go on after %d: %w",
			after, first, first-1, cairn.ErrStale)
	}
	return nil
}

// follower is one stream of events. Its pump sends; the handler watches over it, because only the end of the handler can
// interrupt a message that the client does not take.
type follower struct {
	*eventService
	caller *caller
	want   selection
	stream pb.EventService_FollowEventsServer
	wake   chan struct{} // depth one: it says only "look again"
	sent   atomic.Uint64 // the client resumes after this
	sends  *time.Timer   // runs while a message is being sent
	ended  atomic.Bool   // nothing more is sent, so that the client is told the right place to resume
}

// FollowEvents is described in the proto file.
func (s *eventService) FollowEvents(req *pb.FollowEventsRequest, stream pb.EventService_FollowEventsServer) error {
	caller := callerOf(stream.Context())
	want, err := caller.selects(req.GetProject(), req.GetId())
	if err != nil {
		return err
	}
	f := &follower{
		eventService: s, caller: caller, want: want, stream: stream,
		wake: make(chan struct{}, 1), sends: time.NewTimer(s.limits.slowReader),
	}
	f.sends.Stop()
	defer f.sends.Stop()
	f.sent.Store(req.GetAfter())
	defer s.cfg.State.Machine().Subscribe(func([]fsm.Change) {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	})()
	done := make(chan error, 1)
	go func() { done <- f.pump() }()
	select {
	case err := <-done:
		return err
	case <-f.sends.C:
		f.ended.Store(true)
		return fmt.Errorf("events: the reader took nothing for %s and is disconnected; resume after %d: %w", s.limits.slowReader, f.sent.Load(), cairn.ErrUnavailable)
	}
}

// pump sends what is new whenever it is woken, and a sign of life in between. It ends with the stream.
func (f *follower) pump() error {
	alive := time.NewTicker(f.limits.alive)
	defer alive.Stop()
	for {
		seq, err := f.catchUp()
		if err != nil {
			return err
		}
		select {
		case <-f.stream.Context().Done():
			return f.stream.Context().Err()
		case <-f.wake:
		case <-alive.C:
			if err := f.send(&pb.FollowEventsResponse{Seq: seq}); err != nil {
				return err
			}
		}
	}
}

// catchUp sends the events that the node has beyond the last one, as far as the client wants them, and returns the last one
// that was looked at.
func (f *follower) catchUp() (uint64, error) {
	v := f.cfg.State.View()
	if err := f.caller.claim.check(v, f.at()); err != nil {
		return 0, err
	}
	seq := f.sent.Load()
	if err := kept(v, seq); err != nil {
		return 0, err
	}
	for e := range v.Events(seq) {
		if f.want.has(e) {
			if err := f.send(&pb.FollowEventsResponse{Event: eventPB(e), Seq: e.Seq}); err != nil {
				return 0, err
			}
		}
		f.sent.Store(e.Seq)
	}
	return f.sent.Load(), nil
}

// send sends one message. When the handler gives up, the message that is under way may still arrive, and no other.
func (f *follower) send(m *pb.FollowEventsResponse) error {
	if f.ended.Load() {
		return context.Canceled
	}
	f.sends.Reset(f.limits.slowReader)
	defer f.sends.Stop()
	return f.stream.Send(m)
}
