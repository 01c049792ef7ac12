package systemtest

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// writer is a client that changes metadata of a share all the time, counting up: number n is written before n+1. The client
// library repeats what was not decided, with the same token; an error that is left is a failure that a user would have seen.
type writer struct {
	t       *testing.T
	api     *client.Client
	share   string
	stop    chan struct{}
	moved   chan struct{}
	done    chan struct{}
	written int
	slowest time.Duration
	err     error
}

func startWriter(t *testing.T, cfg client.Config, share string) *writer {
	t.Helper()
	api, err := client.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, api: api, share: share, stop: make(chan struct{}), moved: make(chan struct{}), done: make(chan struct{})}
	go w.run(t.Context())
	t.Cleanup(func() {
		select {
		case <-w.done:
		default:
			w.end()
		}
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *writer) run(ctx context.Context) {
	defer close(w.done)
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		began := time.Now()
		_, w.err = w.api.Shares().UpdateShare(ctx, &cairnv1.UpdateShareRequest{
			Share: w.share, SetMetadata: map[string]string{"touched": strconv.Itoa(w.written + 1)},
		})
		if w.err != nil {
			return
		}
		w.written++
		w.slowest = max(w.slowest, time.Since(began))
		select {
		case w.moved <- struct{}{}:
		default:
		}
	}
}

// flow waits for so many writes.
func (w *writer) flow(writes int) {
	w.t.Helper()
	for range writes {
		select {
		case <-w.moved:
		case <-w.done:
			w.t.Fatalf("write %d: %v", w.written+1, w.err)
		}
	}
}

// end stops the writer and returns how many writes it made and how long the slowest took.
func (w *writer) end() (written int, slowest time.Duration) {
	w.t.Helper()
	close(w.stop)
	<-w.done
	if w.err != nil {
		w.t.Errorf("write %d: %v", w.written+1, w.err)
	}
	return w.written, w.slowest
}
