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
	return c.follow(ctx, id, after, func(string) {}, look)
}

// follow is Wait that also tells what the events say.
func (c *Client) follow(ctx context.Context, id string, after uint64, tell func(string), look func(context.Context) (bool, error)) error {
	f := &following{client: c, id: id, after: after, tell: tell, look: look}
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
	tell   func(string)
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
		if message.GetEvent() != nil {
			f.tell(message.GetEvent().GetMessage())
		}
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

// WaitShare waits until the share is as it should be, and returns it. event is where to listen from, as the answer that
// began it said; tell is given every event of the share in words and may be nil. A share that is gone is cairn.ErrNotFound.
func (c *Client) WaitShare(ctx context.Context, id string, event uint64, until func(*pb.Share) (done bool, err error), tell func(string)) (share *pb.Share, err error) {
	err = c.follow(ctx, id, event, teller(tell), func(ctx context.Context) (bool, error) {
		answer, err := c.Shares().GetShare(ctx, &pb.GetShareRequest{Share: id})
		if err != nil {
			return false, err
		}
		share = answer.GetShare()
		return until(share)
	})
	return share, err
}

// Settled is for WaitShare: the share is available and no task is running. A task that failed is an error.
func Settled(s *pb.Share) (bool, error) {
	if task := s.GetTask(); task.GetState() == string(cairn.TaskFailed) {
		sentinel := cairn.ErrPrecondition
		if task.GetFault().GetCode() == string(cairn.FaultDataLoss) {
			sentinel = cairn.ErrDataLoss
		}
		return false, fmt.Errorf("share %s: %s: %s: %w", s.GetName(), task.GetKind(), task.GetFault().GetMessage(), sentinel)
	}
	return s.GetStatus() == string(cairn.StatusAvailable) && s.GetTask().GetState() != string(cairn.TaskRunning), nil
}

// WaitSnapshot waits until the snapshot is available, and returns it.
func (c *Client) WaitSnapshot(ctx context.Context, id string, event uint64, tell func(string)) (snap *pb.Snapshot, err error) {
	err = c.follow(ctx, id, event, teller(tell), func(ctx context.Context) (bool, error) {
		answer, err := c.Snapshots().GetSnapshot(ctx, &pb.GetSnapshotRequest{Snapshot: id})
		if err != nil {
			return false, err
		}
		snap = answer.GetSnapshot()
		return snap.GetStatus() == string(cairn.StatusAvailable), nil
	})
	return snap, err
}

// WaitShareGone waits until a share that is being deleted, or let go of, is not there any more.
func (c *Client) WaitShareGone(ctx context.Context, id string, event uint64, tell func(string)) error {
	return c.follow(ctx, id, event, teller(tell), func(ctx context.Context) (bool, error) {
		_, err := c.Shares().GetShare(ctx, &pb.GetShareRequest{Share: id})
		return gone(err)
	})
}

// WaitSnapshotGone waits until a snapshot that is being deleted is not there any more.
func (c *Client) WaitSnapshotGone(ctx context.Context, id string, event uint64, tell func(string)) error {
	return c.follow(ctx, id, event, teller(tell), func(ctx context.Context) (bool, error) {
		_, err := c.Snapshots().GetSnapshot(ctx, &pb.GetSnapshotRequest{Snapshot: id})
		return gone(err)
	})
}

func gone(err error) (bool, error) {
	if errors.Is(err, cairn.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// WaitAccess waits until every rule of the share, or of its snapshot if that is not "", is in force and every denied one is
// gone, and returns the rules. Both are IDs. A rule that cannot be applied is an error.
func (c *Client) WaitAccess(ctx context.Context, share, snapshot string, event uint64, tell func(string)) (rules []*pb.AccessRule, err error) {
	id := share
	if snapshot != "" {
		id = snapshot
	}
	err = c.follow(ctx, id, event, teller(tell), func(ctx context.Context) (bool, error) {
		answer, err := c.Access().ListAccess(ctx, &pb.ListAccessRequest{Target: &pb.AccessTarget{Share: share, Snapshot: snapshot}})
		if err != nil {
			return false, err
		}
		rules = answer.GetRules()
		return enforced(rules)
	})
	return rules, err
}

func enforced(rules []*pb.AccessRule) (bool, error) {
	all := true
	for _, rule := range rules {
		switch cairn.RuleState(rule.GetState()) {
		case cairn.RuleActive:
		case cairn.RuleError:
			return false, fmt.Errorf("access of %s %s: cannot be applied; see `cairn why`: %w", rule.GetKind(), rule.GetWho(), cairn.ErrPrecondition)
		default:
			all = false
		}
	}
	return all, nil
}

func teller(tell func(string)) func(string) {
	if tell == nil {
		return func(string) {}
	}
	return tell
}
