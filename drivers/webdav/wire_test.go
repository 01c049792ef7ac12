package webdav

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// passed waits until d has gone by.
func (f *fixture) passed(d time.Duration) {
	f.Helper()
	start := time.Now()
	f.eventually("time goes by", func() bool { return time.Since(start) > d })
}

func TestStalledUploadEnds(t *testing.T) {
	f := newFixture(t)
	f.write("file", "old")
	f.e.stall = 20 * time.Millisecond
	f.export()
	w, verdict, err := begin(f.ctx, f.server, f.client, f.url("/file"), "half")
	f.must(err)
	defer w.Close()
	select {
	case res := <-verdict:
		if res.err == nil && res.status != 408 {
			t.Errorf("a stalled upload ended with %d %q", res.status, res.body)
		}
	case <-f.ctx.Done():
		t.Fatal("a stalled upload goes on for ever")
	}
	f.onDisk("file", "old")
}

// TestWaitingIsNoStall: once its body is there a request may wait for a snapshot as long as that takes, and an idle
// connection is fit for the next request.
func TestWaitingIsNoStall(t *testing.T) {
	f := newFixture(t)
	f.e.stall = 20 * time.Millisecond
	f.write("other", "content")
	f.export()
	resume, err := f.e.Quiesce(f.ctx, f.spec.ID)
	f.must(err)
	verdict := make(chan result, 1)
	go func() { verdict <- f.do("PUT", "/file", "") }() // no body: the server watches for the end of the connection from the start
	f.waitingAtGate(1)
	f.passed(5 * f.e.stall)
	resume()
	if res := <-verdict; res.err != nil || res.status != 201 {
		t.Errorf("a PUT that waited for its commit: %d %q %v", res.status, res.body, res.err)
	}
	f.want(200, "GET", "/other", "")
	f.passed(5 * f.e.stall)
	w, written, err := begin(f.ctx, f.server, f.client, f.url("/file"), "not to be repeated, ") // a stream: the client cannot try twice
	f.must(err)
	f.must(w.Close())
	if res := <-written; res.err != nil || res.status != 204 {
		t.Errorf("a PUT over a connection that was idle: %d %q %v", res.status, res.body, res.err)
	}
}

// cancelling ends the request's context at the first byte of the answer.
type cancelling struct {
	http.ResponseWriter
	cancel context.CancelFunc
}

func (c cancelling) Write(p []byte) (int, error) {
	c.cancel()
	return c.ResponseWriter.Write(p)
}

// TestHalfAnAnswerIsNoAnswer: a list that could not be finished must not look complete to the client.
func TestHalfAnAnswerIsNoAnswer(t *testing.T) {
	f := newFixture(t)
	f.write("a", "")
	f.write("b", "")
	f.export()
	ctx, cancel := context.WithCancel(f.ctx)
	r := httptest.NewRequestWithContext(ctx, "PROPFIND", "https://host/shares/share-1/", http.NoBody)
	r.RemoteAddr = "127.0.0.1:1"
	defer func() {
		if cause, _ := recover().(error); !errors.Is(cause, http.ErrAbortHandler) {
			t.Errorf("half a list was sent as a whole one (%v)", cause)
		}
	}()
	f.e.ServeHTTP(cancelling{httptest.NewRecorder(), cancel}, r)
}
