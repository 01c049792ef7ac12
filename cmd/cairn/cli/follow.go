package cli

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Pauses between attempts to resume a stream.
const (
	resumeMin = 100 * time.Millisecond
	resumeMax = 5 * time.Second
)

// follow prints events as they happen until the context ends, which is how it is stopped. A broken connection is resumed
// after the last event that was seen, at whatever node answers; an error that says that events are gone is not passed over.
func (l *eventLog) follow(ctx context.Context) error {
	pause := resumeMin
	for {
		seen := l.next
		err := l.stream(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case !resumable(err):
			return err
		case l.next > seen:
			pause = resumeMin
		}
		if pause == resumeMin {
			l.notef("events: interrupted after event %d, going on when a node answers: %s", l.next, err)
		}
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, resumeMax)
	}
}

// stream prints what one stream delivers and returns why it ended.
func (l *eventLog) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := l.FollowEvents(ctx, &pb.FollowEventsRequest{After: l.next})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if event := message.GetEvent(); event != nil {
			if err := l.show(event); err != nil {
				return err
			}
		}
		l.next = max(l.next, message.GetSeq())
	}
}

// resumable reports whether a stream ended for a reason that the next one need not meet: its node went away.
func resumable(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, cairn.ErrUnavailable)
}

// sleep reports whether the pause passed before the context ended.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
