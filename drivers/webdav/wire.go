package webdav

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Counters are totals since the exporter was made.
type Counters struct {
	Requests int64
	Refused  int64 // answered with a status of 400 or more
	BytesIn  int64 // request bodies
	BytesOut int64 // response bodies
}

type counters struct{ requests, refused, bytesIn, bytesOut atomic.Int64 }

// Counters returns the totals now.
func (e *Exporter) Counters() Counters {
	c := &e.counters
	return Counters{c.requests.Load(), c.refused.Load(), c.bytesIn.Load(), c.bytesOut.Load()}
}

// wire is the two directions of one request. It counts bytes, ends a transfer that stalls, and can be cut from another
// goroutine: contexts do not interrupt a read or write that blocks, deadlines of the connection do.
type wire struct {
	http.ResponseWriter
	control  *http.ResponseController
	counters *counters
	stall    time.Duration
	begun    bool // a status has been sent
	broken   bool // the handler gave up after that

	mu     sync.Mutex
	closed bool // cut or finished: deadlines stay as they are
}

func newWire(w http.ResponseWriter, c *counters, stall time.Duration) *wire {
	return &wire{ResponseWriter: w, control: http.NewResponseController(w), counters: c, stall: stall}
}

// deadline sets one deadline. A writer that has none (ErrNotSupported) cannot stall either, so errors do not matter; a
// connection that is gone shows itself at the next read or write.
func (w *wire) deadline(set func(time.Time) error, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		_ = set(at)
	}
}

// cut makes reads and writes that block, and all later ones, fail.
func (w *wire) cut() {
	past := time.Unix(1, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		_ = w.control.SetReadDeadline(past)
		_ = w.control.SetWriteDeadline(past)
	}
}

// finish leaves the connection to its next request, for which the server resets the deadlines.
func (w *wire) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

func (w *wire) WriteHeader(status int) {
	if w.begun {
		w.broken = w.broken || status >= http.StatusInternalServerError
		return
	}
	w.begun = true
	if status >= http.StatusBadRequest {
		w.counters.refused.Add(1)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *wire) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	w.deadline(w.control.SetWriteDeadline, time.Now().Add(w.stall))
	n, err := w.ResponseWriter.Write(p)
	w.counters.bytesOut.Add(int64(n))
	return n, err
}

// refuse answers with one line, or breaks off an answer that has begun.
func (w *wire) refuse(r *refusal) {
	if w.begun {
		w.broken = true
		return
	}
	header := w.Header()
	switch {
	case r.status == http.StatusUnauthorized:
		header.Set("WWW-Authenticate", `Basic realm="cairn", charset="UTF-8"`)
	case r.status == http.StatusMethodNotAllowed:
		header.Set("Allow", methods)
	case r.retry != "":
		header.Set("Retry-After", r.retry)
	}
	if r.unchanged {
		header.Set(Unchanged, "1")
	}
	header.Del("ETag")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(r.line)+1))
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, r.line+"\n") // a client that is gone needs no answer
}

// body is the request body of a wire.
type body struct {
	io.ReadCloser
	wire *wire
}

// Read turns what goes wrong on the way into a refusal, so that it is never taken for a fault of the storage.
func (b *body) Read(p []byte) (int, error) {
	w := b.wire
	w.deadline(w.control.SetReadDeadline, time.Now().Add(w.stall))
	n, err := b.ReadCloser.Read(p)
	w.counters.bytesIn.Add(int64(n))
	if err == nil {
		return n, nil
	}
	// Past the body the server watches the connection for its end; a deadline would look like one.
	w.deadline(w.control.SetReadDeadline, time.Time{})
	switch {
	case errors.Is(err, io.EOF):
		return n, io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, refuse(http.StatusRequestTimeout, "the upload sent nothing for too long, or the export was withdrawn; nothing was changed")
	}
	return n, refuse(http.StatusBadRequest, "the upload broke off; nothing was changed")
}
