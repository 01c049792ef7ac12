package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// stall ends a transfer that moves no byte; nodes have the same limit for what they serve themselves.
const stall = 2 * time.Minute

// errDetached is read from a body whose request has gone elsewhere.
var errDetached = errors.New("request body: was taken away")

// body is the request's body in one attempt. It knows whether any of it was read, and after the attempt nobody reads it any
// more: the next one may begin with its first byte.
type body struct {
	inner   io.ReadCloser
	control *http.ResponseController

	mu       sync.Mutex
	touched  bool
	detached bool
}

func newBody(inner io.ReadCloser, control *http.ResponseController) *body {
	return &body{inner: inner, control: control}
}

// Read reads from the client.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.detached {
		b.mu.Unlock()
		return 0, errDetached
	}
	b.touched = true
	b.mu.Unlock()
	_ = b.control.SetReadDeadline(time.Now().Add(stall)) // what has no deadline cannot stall either
	n, err := b.inner.Read(p)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{}) // past the body the server watches the connection for its end
	}
	return n, err
}

// Close leaves the client's body as it is; the server closes it at the end of the request.
func (b *body) Close() error { return nil }

// detach ends the attempt's hold on the body, and reports whether it was left as it was.
func (b *body) detach() (untouched bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
	return !b.touched
}

// patient ends an answer that the client does not take.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patient) Write(data []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(stall)) // see body.Read
	return p.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// holder keeps back one answer: that nothing was changed because the share is not served here.
type holder struct {
	http.ResponseWriter
	unchanged string
	before    http.Header
	held      bool
}

// WriteHeader implements http.ResponseWriter.
func (h *holder) WriteHeader(status int) {
	if status != http.StatusServiceUnavailable || h.Header().Get(h.unchanged) == "" {
		h.ResponseWriter.WriteHeader(status)
		return
	}
	h.held = true
	header := h.Header()
	clear(header)
	for name, values := range h.before {
		header[name] = values
	}
}

func (h *holder) Write(data []byte) (int, error) {
	if h.held {
		return len(data), nil
	}
	return h.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (h *holder) Unwrap() http.ResponseWriter { return h.ResponseWriter }
