package consensus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/cluster/lease"
	"github.com/cairn-storage/cairn/fsm"
)

// hanging is a log whose writes hang while there is a channel, until it is closed.
type hanging struct {
	raft.LogStore
	hung atomic.Pointer[chan struct{}]
}

func (h *hanging) StoreLogs(logs []*raft.Log) error {
	if hung := h.hung.Load(); hung != nil {
		<-*hung
	}
	return h.LogStore.StoreLogs(logs)
}

// TestStoppedRaftAnswersTransfers: one that waits behind a write, whose disk hangs until Raft is told to stop, is answered. Raft as it comes
// forgets it, more often than not.
func TestStoppedRaftAnswersTransfers(t *testing.T) {
	for range 5 {
		at, log := address(t), &hanging{}
		timing := DefaultTiming()
		timing.Heartbeat = 100 * time.Millisecond
		e, err := Open(Config{
			Dir: t.TempDir(), ID: "n1", Machine: fsm.New(), Timing: timing, Clock: lease.Boottime, Logger: slog.New(slog.DiscardHandler),
			Middleware: func(inner raft.LogStore) raft.LogStore {
				log.LogStore = inner
				return log
			},
			Streams: func() raft.StreamLayer {
				listener, err := net.Listen("tcp", at)
				if err != nil {
					t.Error(err)
				}
				return &tcp{Listener: listener}
			},
		}, alone("n1", at))
		if err != nil {
			t.Fatal(err)
		}
		<-e.Terms()
		hung := make(chan struct{})
		log.hung.Store(&hung)
		go e.Raft().Barrier(0)
		waitFor(t, "the disk hangs", func() bool { return e.DiskWaiting() > 0 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		answered := make(chan error, 1)
		go func() { answered <- e.TransferLeadership(ctx, nil) }()
		waitFor(t, "Raft is asked for a transfer", func() bool { return e.instance.Load().transfer.Load() != nil })
		closed := make(chan error, 1)
		go func() { closed <- e.Close() }()
		<-e.watched
		close(hung)
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want what Raft says", err)
		}
		cancel()
	}
}
