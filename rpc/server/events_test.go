package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/rpc/client"
	"github.com/cairn-storage/cairn/rpc/errs"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// stir makes n events about pool n1/data.
func (c *testCluster) stir(n int) {
	pool := cairn.MakePoolID(c.node("n1").id, "data")
	frozen := c.machine.View().Pool(pool).Frozen
	for range n {
		frozen = !frozen
		c.must(&fsm.FreezePool{Pool: pool, Frozen: frozen})
	}
}

func follow(t *testing.T, api *client.Client, req *pb.FollowEventsRequest) pb.EventService_FollowEventsClient {
	t.Helper()
	stream, err := api.Events().FollowEvents(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestFollowersMissNothing: events that are made while followers read arrive complete and in order at each of them, also at one that
// is interrupted again and again and resumes, and also if many are of one log entry.
func TestFollowersMissNothing(t *testing.T) {
	c := newCluster(t, 1)
	api := c.admin()
	const events, writers, followers = 300, 4, 3
	last := c.machine.View().LastEvent() + events
	var wg sync.WaitGroup
	for n := range followers {
		wg.Go(func() {
			next, stream := uint64(1), follow(t, api, &pb.FollowEventsRequest{Project: allProjects})
			for got := 0; next <= last; got++ {
				message, err := stream.Recv()
				if err != nil {
					t.Errorf("follower %d: %v", n, err)
					return
				}
				if message.GetEvent() == nil {
					continue
				}
				if message.GetEvent().GetSeq() != next || message.GetSeq() != next {
					t.Errorf("follower %d: got event %d, want %d", n, message.GetEvent().GetSeq(), next)
					return
				}
				next++
				if n > 0 && got%(20*n) == 0 {
					stream = follow(t, api, &pb.FollowEventsRequest{After: next - 1, Project: allProjects})
				}
			}
		})
	}
	for n := range writers {
		wg.Go(func() {
			bundle := 1 + 4*(n%2) // every other writer puts five commands into an entry
			for i := range events / writers / bundle {
				var commands []fsm.Command
				for k := range bundle {
					commands = append(commands, &fsm.SetQuota{Quota: cairn.Quota{Project: cairn.ProjectID(fmt.Sprintf("p%d-%d-%d", n, i, k))}})
				}
				c.must(commands...)
			}
		})
	}
	wg.Wait()
}

// TestFollowersSeeWhatTheyAskFor: filters leave events out, and the sign of life says how far everything was considered.
func TestFollowersSeeWhatTheyAskFor(t *testing.T) {
	c := newCluster(t, 1)
	c.node("n1").server.limits.alive = 20 * time.Millisecond
	api, ann := c.admin(), c.user("ann", cairn.UserMember, "p")
	share := c.share(api, "a", gib)
	mine := c.share(ann, "b", gib)
	for name, test := range map[string]struct {
		api  *client.Client
		req  *pb.FollowEventsRequest
		want string
	}{
		"one share":           {api, &pb.FollowEventsRequest{Id: share.GetId()}, "share.creating share.created"},
		"a share of a member": {ann, &pb.FollowEventsRequest{Id: mine.GetId()}, "share.creating share.created"},
		"one of another":      {ann, &pb.FollowEventsRequest{Id: share.GetId()}, ""},
		"member's project":    {ann, &pb.FollowEventsRequest{}, "user.created share.creating share.created"},
		"the default project": {api, &pb.FollowEventsRequest{}, "share.creating share.created"},
	} {
		t.Run(name, func(t *testing.T) {
			var kinds []string
			for stream := follow(t, test.api, test.req); ; {
				message, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if message.GetEvent() == nil {
					if newest := c.machine.View().LastEvent(); message.GetSeq() != newest {
						t.Errorf("sign of life at %d, want %d", message.GetSeq(), newest)
					}
					break
				}
				kinds = append(kinds, message.GetEvent().GetKind())
			}
			if got := strings.Join(kinds, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestForgottenEvents: who asks for what is not kept any more is told so, with the place to go on from.
func TestForgottenEvents(t *testing.T) {
	c := newCluster(t, 1)
	api := c.admin()
	c.stir(17_000)
	first := c.machine.View().FirstEvent()
	if first < 2 {
		t.Fatalf("the oldest event is %d: nothing was forgotten", first)
	}
	_, err := follow(t, api, &pb.FollowEventsRequest{After: 1, Project: allProjects}).Recv()
	if !errors.Is(err, cairn.ErrStale) || !strings.Contains(err.Error(), fmt.Sprintf("the oldest is %d", first)) {
		t.Errorf("follow: %v", err)
	}
	if _, err := api.Events().ListEvents(t.Context(), &pb.ListEventsRequest{After: 1, Project: allProjects}); !errors.Is(err, cairn.ErrStale) {
		t.Errorf("list: %v", err)
	}
	for after, want := range map[uint64]uint64{0: first, first - 1: first, first + 9: first + 10} {
		message, err := follow(t, api, &pb.FollowEventsRequest{After: after, Project: allProjects}).Recv()
		if err != nil || message.GetEvent().GetSeq() != want {
			t.Errorf("after %d: %v, %v; want event %d", after, message, err, want)
		}
	}
	var seqs uint64
	for after := uint64(0); ; {
		list, err := api.Events().ListEvents(t.Context(), &pb.ListEventsRequest{After: after, Project: allProjects})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.GetEvents()) == 0 {
			break
		}
		seqs += uint64(len(list.GetEvents()))
		after = list.GetEvents()[len(list.GetEvents())-1].GetSeq()
	}
	if newest := c.machine.View().LastEvent(); seqs != newest-first+1 {
		t.Errorf("pages hold %d events of %d", seqs, newest-first+1)
	}
}

// TestSlowReader: a follower that takes nothing is disconnected, and told where it can go on: after the last message that it
// finds in its buffers, or the one before. It has missed nothing.
func TestSlowReader(t *testing.T) {
	c := newCluster(t, 2)
	c.node("n1").server.limits.slowReader = 50 * time.Millisecond
	// A fixed window of 64 KiB is full long before this many events are sent.
	conn := c.raw(c.ca.issue(t, "user", "admin", serialOf("admin")), "n1", grpc.WithInitialWindowSize(64<<10))
	stream, err := pb.NewEventServiceClient(conn).FollowEvents(t.Context(), &pb.FollowEventsRequest{Project: allProjects})
	if err != nil {
		t.Fatal(err)
	}
	c.stir(2_000)
	c.awaitLog("is disconnected")
	var seq uint64
	for {
		message, err := stream.Recv()
		if err != nil {
			var told uint64
			if _, text, ok := strings.Cut(err.Error(), "resume after "); ok {
				fmt.Sscan(strings.TrimSuffix(strings.Fields(text)[0], ":"), &told)
			}
			if !errors.Is(errs.FromStatus(err), cairn.ErrUnavailable) || told != seq && told+1 != seq {
				t.Errorf("after event %d the stream ended with: %v", seq, err)
			}
			break
		}
		if message.GetSeq() != seq+1 {
			t.Fatalf("event %d follows %d", message.GetSeq(), seq)
		}
		seq = message.GetSeq()
	}
	newest := c.machine.View().LastEvent()
	if seq >= newest {
		t.Fatalf("the reader got all %d events: it was never slow", newest)
	}
	for resumed := follow(t, c.admin("n2"), &pb.FollowEventsRequest{After: seq, Project: allProjects}); seq < newest; seq++ {
		message, err := resumed.Recv()
		if err != nil || message.GetSeq() != seq+1 {
			t.Fatalf("after resuming: %v, %v; want event %d", message, err, seq+1)
		}
	}
}

// TestWaiting waits for what happens only after the waiting has begun, and through an election.
func TestWaiting(t *testing.T) {
	c := newCluster(t, 2)
	c.node("n1").server.limits.alive = 50 * time.Millisecond
	api, ctx := c.admin("n1", "n2"), t.Context()
	made, err := api.Shares().CreateShare(ctx, &pb.CreateShareRequest{Name: "a", Size: gib})
	if err != nil {
		t.Fatal(err)
	}
	id := made.GetShare().GetId()
	var working sync.WaitGroup
	defer working.Wait()
	var begin sync.Once
	err = api.Wait(ctx, id, made.GetEvent(), func(ctx context.Context) (bool, error) {
		begin.Do(func() { working.Go(c.settle) })
		answer, err := api.Shares().GetShare(ctx, &pb.GetShareRequest{Share: id})
		return answer.GetShare().GetStatus() == "available", err
	})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if _, err := api.Shares().DeleteShare(ctx, &pb.DeleteShareRequest{Share: id}); err != nil {
		t.Fatal(err)
	}
	election := fmt.Errorf("election: %w", cairn.ErrUnavailable)
	c.fail(election, election, nil)
	working.Go(c.settle)
	err = api.Wait(ctx, id, 1, func(ctx context.Context) (bool, error) {
		_, err := api.Shares().GetShare(ctx, &pb.GetShareRequest{Share: id})
		if errors.Is(err, cairn.ErrNotFound) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		t.Fatalf("delete: %v", err)
	}
	unheard, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := api.Wait(unheard, id, 0, func(context.Context) (bool, error) { return false, nil }); !errors.Is(err, cairn.ErrTimeout) {
		t.Errorf("what never happens: %v", err)
	}
}
