// Package traffic is the clients of a chaos run: they use every kind of thing that the API offers, write numbered records to
// shares, follow the events, and remember all of it as a history. A client never concludes anything from an answer but what to
// ask next. The package knows the API and WebDAV; it knows nothing of faults, nor of what the answers should be.
package traffic

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/model"
)

// Record is what clients remember. It may be used concurrently.
type Record struct {
	began time.Time // with both clocks

	mu      sync.Mutex
	history model.History
	odd     []string
}

// NewRecord begins one now.
func NewRecord() *Record { return &Record{began: time.Now()} }

// Now is the time since the run began.
func (r *Record) Now() time.Duration { return time.Since(r.began) }

// On is a time of the wall clock as the time since the run began.
func (r *Record) On(wall time.Time) time.Duration { return wall.Sub(r.began.Round(0)) }

// Fault adds what was done to the cluster.
func (r *Record) Fault(f model.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Faults = append(r.history.Faults, f)
}

// History is a copy of what has been remembered.
func (r *Record) History() model.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.history
	h.Operations, h.Acks, h.Faults = slices.Clone(h.Operations), slices.Clone(h.Acks), slices.Clone(h.Faults)
	return h
}

// Odd lists answers that no client should ever get, such as an internal error.
func (r *Record) Odd() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.odd)
}

func (r *Record) ack(a model.Ack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Acks = append(r.history.Acks, a)
}

// attempts bounds one operation, the repetitions of the client library included.
const attempts = 6 * time.Second

// do runs one operation and remembers it. The output is that of an operation that was done.
func (r *Record) do(ctx context.Context, op model.Operation, call func(ctx context.Context) (model.Output, error)) model.Operation {
	ctx, cancel := context.WithTimeout(ctx, attempts)
	defer cancel()
	op.Call = r.Now()
	out, err := call(ctx)
	op.Return, op.Outcome, op.Output = r.Now(), model.Known, out
	if err != nil {
		op.Output = model.Output{}
		op.Output.Refusal, op.Outcome = refusal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && op.Outcome == model.Known && op.Output.Refusal == "" {
		r.odd = append(r.odd, op.String()+": "+err.Error())
		op.Outcome = model.Unknown
	}
	r.history.Operations = append(r.history.Operations, op)
	return op
}

// expected are the refusals that a client has to expect which does not wait for what it has asked for.
var expected = []error{
	cairn.ErrNotFound, cairn.ErrExists, cairn.ErrBusy, cairn.ErrPrecondition, cairn.ErrInUse, cairn.ErrInvalid, cairn.ErrQuota, cairn.ErrCapacity,
	cairn.ErrNoSpace, cairn.ErrUnavailable, cairn.ErrStale,
}

// carriedOut is in an answer of "not found" that is no refusal: what was changed is gone again before it could be shown. Of what it
// was nothing is known, so it counts as an unknown outcome.
const carriedOut = "the request was carried out"

// refusal is the name of the sentinel in an error that certainly changed nothing; "" of a known outcome is an error that nobody expects.
func refusal(err error) (string, model.Outcome) {
	for _, open := range []error{cairn.ErrUnknownOutcome, cairn.ErrTimeout, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, open) {
			return "", model.Unknown
		}
	}
	if strings.Contains(err.Error(), carriedOut) {
		return "", model.Unknown
	}
	for _, sentinel := range expected {
		if errors.Is(err, sentinel) {
			return sentinel.Error(), model.Known
		}
	}
	return "", model.Known
}
