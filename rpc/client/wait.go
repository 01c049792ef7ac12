package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Wait calls look until it says that it is done or returns an error: at once, and again after every event of the resource with
// this ID that is newer than the sequence number after, as answers to requests carry it. Nothing is polled. Wait outlives
// restarts of nodes and changes of leader; what ends it besides is the context, which should have a deadline: then
// the error is cairn.ErrTimeout or context.Canceled.
func (c *Client) Wait(ctx context.Context, id string, after uint64, look func(context.Context) (done bool, err error)) error {
	f := &following{client: c, id: id, after: after, look: look}
	for {
		err := f.once(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ended(ctx, id)
		case errors.Is(err, cairn.ErrStale):
			err = f.skip(ctx)
		}
		if err != nil && !again(err) {
			return err
		}
		if !f.pause.sleep(ctx) {
			return ended(ctx, id)
		}
	}
}

// ended says why waiting ended before it was done.
func ended(ctx context.Context, id string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("wait for %s: %w", id, cairn.ErrTimeout)
	}
	return fmt.Errorf("wait for %s: %w", id, ctx.Err())
}

type following struct {
	client *Client
	id     string
	after  uint64
	look   func(context.Context) (bool, error)
	pause  pause
}

// once looks, and follows one stream until the end of either. It returns nil if look is done.
func (f *following) once(ctx context.Context) error {
	if done, err := f.look(ctx); err != nil || done {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := f.client.Events().FollowEvents(ctx, &pb.FollowEventsRequest{After: f.after, Id: f.id})
	if err != nil {
		return err
	}
	for {
		message, err := events.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("events: the server ended the stream: %w", cairn.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		f.after, f.pause = max(f.after, message.GetSeq()), 0
		// A sign of life says as well that there may be something new: not everything that changes is an event.
		if done, err := f.look(ctx); err != nil || done {
			return err
		}
	}
}

// skip goes on from now, where the events in between are not kept any more: the next look sees what they led to.
func (f *following) skip(ctx context.Context) error {
	answer, err := f.client.Events().ListEvents(ctx, &pb.ListEventsRequest{Id: f.id, PageSize: 1})
	if err == nil {
		f.after = answer.GetNewest()
	}
	return err
}
