package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
)

func TestPull(t *testing.T) {
	l := newLab(t)
	for _, size := range []int{0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := noise(size)
			var got taken
			offer, err := l.client("n2", "n1", l.serve("n1", sendingBytes(data))).Pull(t.Context(), "n1", request(), got.take)
			must(t, err)
			if offer.Snapshot != "snap" || !got.whole || !bytes.Equal(got.data, data) {
				t.Errorf("%d bytes of %q came, whole %t", len(got.data), offer.Snapshot, got.whole)
			}
		})
	}
}

// TestMessages: every field of a question and of its answer arrives.
func TestMessages(t *testing.T) {
	l := newLab(t)
	asked := replica.PullRequest{
		Share: "s1", Standby: "s1-n2", Epoch: 1, Have: []cairn.SnapshotID{"a", "b"}, Resume: "token", Resuming: "c",
	}
	offered := replica.Offer{
		Snapshot: "c", Base: "b", Resume: "token", Size: 5, Newest: "d", Age: 1500 * time.Millisecond, Behind: 6,
		Keep: []cairn.SnapshotID{"d"},
	}
	h := l.serve("n1", source{offer: func(_ context.Context, request replica.PullRequest) (replica.Offer, replica.SendFunc, error) {
		if !reflect.DeepEqual(request, asked) {
			t.Errorf("asked %+v", request)
		}
		return offered, func(context.Context, io.Writer) error { return nil }, nil
	}})
	returned, err := l.client("n2", "n1", h).Pull(t.Context(), "n1", asked, func(offer replica.Offer, r io.Reader) error {
		if !reflect.DeepEqual(offer, offered) {
			t.Errorf("taken %+v", offer)
		}
		_, err := io.Copy(io.Discard, r)
		return err
	})
	must(t, err)
	if !reflect.DeepEqual(returned, offered) {
		t.Errorf("returned %+v", returned)
	}
}

func TestNothingToSend(t *testing.T) {
	l := newLab(t)
	h := l.serve("n1", source{offer: func(context.Context, replica.PullRequest) (replica.Offer, replica.SendFunc, error) {
		return replica.Offer{Newest: "d", Keep: []cairn.SnapshotID{"d"}}, nil, nil
	}})
	var got taken
	offer, err := l.client("n2", "n1", h).Pull(t.Context(), "n1", request(), got.take)
	must(t, err)
	if offer.Newest != "d" || len(offer.Keep) != 1 || got.called {
		t.Errorf("offer %+v, taken %t", offer, got.called)
	}
}

func TestWhoMayPull(t *testing.T) {
	l := newLab(t)
	served := source{offer: func(context.Context, replica.PullRequest) (replica.Offer, replica.SendFunc, error) {
		t.Error("the source was asked")
		return replica.Offer{}, nil, nil
	}}
	hosts := map[cairn.NodeID]*host{"n1": l.serve("n1", served), "n3": l.serve("n3", served)}
	l.copies("copy", "done")
	l.report("done-n2")
	for _, test := range []struct {
		name     string
		from, to cairn.NodeID
		request  replica.PullRequest
		want     error
	}{
		{"older epoch", "n2", "n1", replica.PullRequest{Share: "s1", Standby: "s1-n2", Epoch: 0}, cairn.ErrStale},
		{"newer epoch", "n2", "n1", replica.PullRequest{Share: "s1", Standby: "s1-n2", Epoch: 2}, cairn.ErrStale},
		{"another node's replica", "n3", "n1", request(), cairn.ErrDenied},
		{"share of which the state knows nothing", "n2", "n1", replica.PullRequest{Share: "s9", Standby: "s1-n2", Epoch: 1}, cairn.ErrStale},
		{"replica of which the state knows nothing", "n2", "n1", replica.PullRequest{Share: "s1", Standby: "s9-n2", Epoch: 1}, cairn.ErrStale},
		{"replica of another share", "n2", "n1", replica.PullRequest{Share: "s1", Standby: "s2-n2", Epoch: 1}, cairn.ErrInvalid},
		{"a node without the active replica", "n2", "n3", request(), cairn.ErrStale},
		{"a copy, from a node without the snapshot", "n2", "n3", replica.PullRequest{Share: "copy", Standby: "copy-n2", Epoch: 1}, cairn.ErrStale},
		{"a copy of another node", "n3", "n1", replica.PullRequest{Share: "copy", Standby: "copy-n2", Epoch: 1}, cairn.ErrDenied},
		{"a copy in another epoch", "n2", "n1", replica.PullRequest{Share: "copy", Standby: "copy-n2", Epoch: 2}, cairn.ErrStale},
		{"a copy for another share", "n2", "n1", replica.PullRequest{Share: "s1", Standby: "copy-n2", Epoch: 1}, cairn.ErrInvalid},
		{"a copy that is there already", "n2", "n1", replica.PullRequest{Share: "done", Standby: "done-n2", Epoch: 1}, cairn.ErrStale},
		{"the active replica itself", "n1", "n1", replica.PullRequest{Share: "s1", Standby: "s1-n1", Epoch: 1}, cairn.ErrStale},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got taken
			_, err := NewClient(l.dialer(test.from, hosts), 0).Pull(t.Context(), test.to, test.request, got.take)
			if !errors.Is(err, test.want) || got.called {
				t.Errorf("error %v, want %v; taken %t", err, test.want, got.called)
			}
		})
	}
}

// TestSourceRefuses: what a source says before the first byte arrives as it is, and nothing was offered.
func TestSourceRefuses(t *testing.T) {
	l := newLab(t)
	for _, sentinel := range cairn.Sentinels() {
		refusal := fmt.Errorf("a reason: %w", sentinel)
		for name, source := range map[string]source{
			"offer": {offer: func(context.Context, replica.PullRequest) (replica.Offer, replica.SendFunc, error) {
				return replica.Offer{}, nil, refusal
			}},
			"send": sending(func(context.Context, io.Writer) error { return refusal }),
		} {
			var got taken
			_, err := l.client("n2", "n1", l.serve("n1", source)).Pull(t.Context(), "n1", request(), got.take)
			if !errors.Is(err, sentinel) || got.called {
				t.Errorf("%s refuses with %v: %v, taken %t", name, sentinel, err, got.called)
			}
		}
	}
}

// TestSenderBreaksOff: after the first byte the sender's trouble is a stream that broke off, whatever it is, so that nobody
// takes it for the standby's own.
func TestSenderBreaksOff(t *testing.T) {
	l := newLab(t)
	for _, trouble := range append(cairn.Sentinels(), errors.New("a surprise"), context.Canceled) {
		for _, size := range []int{1, chunkBytes, 2*chunkBytes + 1} {
			h := l.serve("n1", sending(func(_ context.Context, w io.Writer) error {
				if _, err := w.Write(noise(size)); err != nil {
					return err
				}
				return trouble
			}))
			var got taken
			_, err := l.client("n2", "n1", h).Pull(t.Context(), "n1", request(), got.take)
			if !errors.Is(err, cairn.ErrUnavailable) || trouble != cairn.ErrUnavailable && errors.Is(err, trouble) || got.whole {
				t.Errorf("%v after %d bytes: %v, whole %t", trouble, size, err, got.whole)
			}
		}
	}
}

// TestPullerLeaves: the sender's context ends when the puller's does, when take fails, and when take wants nothing.
func TestPullerLeaves(t *testing.T) {
	l := newLab(t)
	full := errors.New("disk full")
	for _, test := range []struct {
		name string
		take func(cancel context.CancelFunc, r io.Reader) error
		want error
	}{
		{"cancelled", func(cancel context.CancelFunc, r io.Reader) error {
			cancel()
			_, err := io.Copy(io.Discard, r)
			return err
		}, context.Canceled},
		{"take fails", func(_ context.CancelFunc, r io.Reader) error {
			if _, err := io.CopyN(io.Discard, r, chunkBytes); err != nil {
				return err
			}
			return full
		}, full},
		{"take wants nothing", func(context.CancelFunc, io.Reader) error { return nil }, nil},
		{"take has not read all", func(_ context.CancelFunc, r io.Reader) error {
			_, err := io.CopyN(io.Discard, r, 1)
			return err
		}, cairn.ErrCorrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			left := make(chan error, 1)
			h := l.serve("n1", sending(func(ctx context.Context, w io.Writer) (err error) {
				defer func() { left <- ctx.Err() }()
				for chunk := noise(1000); err == nil; {
					_, err = w.Write(chunk)
				}
				return err
			}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := l.client("n2", "n1", h).Pull(ctx, "n1", request(), func(_ replica.Offer, r io.Reader) error { return test.take(cancel, r) })
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if await(t, "the sender ends", left) == nil {
				t.Error("the sender's context has not ended")
			}
		})
	}
}

// TestReadOutlivesTake: what feeds a tool may be in a Read when the tool is done. It ends with the call, and it does not
// make a stream whole that is not, or broken that is whole.
func TestReadOutlivesTake(t *testing.T) {
	l := newLab(t)
	data := noise(1000)
	for _, whole := range []bool{true, false} {
		reading, release := make(chan struct{}), make(chan struct{})
		h := l.serve("n1", sending(func(ctx context.Context, w io.Writer) error {
			if _, err := w.Write(data); err != nil {
				return err
			}
			<-release
			if whole {
				return nil
			}
			return errors.New("a surprise")
		}))
		read := make(chan error, 1)
		_, err := l.client("n2", "n1", h).Pull(t.Context(), "n1", request(), func(_ replica.Offer, r io.Reader) error {
			if _, err := io.ReadFull(r, data); err != nil {
				return err
			}
			go func() {
				close(reading)
				_, err := r.Read(make([]byte, 1))
				read <- err
			}()
			<-reading
			close(release)
			return nil
		})
		if whole && err != nil || !whole && !errors.Is(err, cairn.ErrUnavailable) {
			t.Errorf("whole %t: %v", whole, err)
		}
		if err := await(t, "the read ends", read); err == nil {
			t.Errorf("whole %t: there was more to read", whole)
		}
	}
}

func TestManyPullsAtOnce(t *testing.T) {
	l := newLab(t)
	h := l.serve("n1", source{offer: func(_ context.Context, request replica.PullRequest) (replica.Offer, replica.SendFunc, error) {
		seed := len(request.Resume)
		return replica.Offer{Snapshot: "snap"}, func(_ context.Context, w io.Writer) error {
			_, err := w.Write(noise(2*chunkBytes + seed))
			return err
		}, nil
	}})
	conn := map[cairn.NodeID]*Client{"n2": l.client("n2", "n1", h), "n3": l.client("n3", "n1", h)}
	var pulls errgroup.Group
	for i := range 8 {
		node := []cairn.NodeID{"n2", "n3"}[i%2]
		pulls.Go(func() error {
			request := replica.PullRequest{Share: "s1", Standby: replicaOf("s1", node), Epoch: 1, Resume: string(make([]byte, i))}
			var got taken
			if _, err := conn[node].Pull(t.Context(), "n1", request, got.take); err != nil {
				return err
			}
			if !got.whole || !bytes.Equal(got.data, noise(2*chunkBytes+i)) {
				return fmt.Errorf("pull %d: %d bytes of another stream", i, len(got.data))
			}
			return nil
		})
	}
	must(t, pulls.Wait())
}

// TestServerStops: streams that would go on for ever end when the server is closed, and nothing begins any more.
func TestServerStops(t *testing.T) {
	l := newLab(t)
	h := l.serve("n1", sending(func(ctx context.Context, w io.Writer) error {
		if _, err := w.Write(noise(chunkBytes)); err != nil {
			return err
		}
		<-ctx.Done()
		return errors.New("the tool was killed")
	}))
	client := l.client("n2", "n1", h)
	_, err := client.Pull(t.Context(), "n1", request(), func(_ replica.Offer, r io.Reader) error {
		if _, err := io.CopyN(io.Discard, r, chunkBytes); err != nil {
			return err
		}
		h.Close()
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("in progress: %v", err)
	}
	h.grpc.GracefulStop()
	if _, err := client.Pull(t.Context(), "n1", request(), nil); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestSyncStates(t *testing.T) {
	l := newLab(t)
	long := replica.SyncState{Replica: "s1-n2", Newest: "d", AsOf: time.Now().Add(-time.Hour), Behind: 1, Received: 2, Total: 3, Error: "why"}
	h := l.serve("n2", source{states: func(ids []cairn.ReplicaID) []replica.SyncState {
		if len(ids) == 1 && ids[0] == "s2-n2" {
			return []replica.SyncState{{Replica: "s2-n2"}}
		}
		return []replica.SyncState{long}
	}})
	client := l.client("n1", "n2", h)
	all, err := client.SyncStates(t.Context(), "n2", nil)
	must(t, err)
	off := all[0].AsOf.Sub(long.AsOf).Abs()
	if all[0].AsOf = long.AsOf; !reflect.DeepEqual(all[0], long) || off > patience {
		t.Errorf("all: %+v, off by %s", all, off)
	}
	one, err := client.SyncStates(t.Context(), "n2", []cairn.ReplicaID{"s2-n2"})
	must(t, err)
	if len(one) != 1 || one[0] != (replica.SyncState{Replica: "s2-n2"}) {
		t.Errorf("one: %+v; a standby that never had anything has no time", one)
	}
	if _, err := l.client("n4", "n2", h).SyncStates(t.Context(), "n2", nil); !errors.Is(err, cairn.ErrDenied) {
		t.Errorf("a node that is in no row: %v", err)
	}
}
