// Package errs carries Cairn's errors over gRPC: one table turns each sentinel of package cairn into a status code with an
// ErrorInfo reason, and back into the same sentinel. It knows gRPC and the sentinels, and nothing of what failed.
package errs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairn-storage/cairn"
)

// Domain is the ErrorInfo domain of Cairn's reasons.
const Domain = "cairn"

// table is the one place that says how a sentinel travels. Several sentinels share a code; the reason tells them apart.
var table = []struct {
	sentinel error
	code     codes.Code
	reason   string
}{
	{cairn.ErrInvalid, codes.InvalidArgument, "INVALID"},
	{cairn.ErrNotFound, codes.NotFound, "NOT_FOUND"},
	{cairn.ErrExists, codes.AlreadyExists, "EXISTS"},
	{cairn.ErrBusy, codes.Aborted, "BUSY"},
	{cairn.ErrPrecondition, codes.FailedPrecondition, "PRECONDITION"},
	{cairn.ErrInUse, codes.FailedPrecondition, "IN_USE"},
	{cairn.ErrQuota, codes.ResourceExhausted, "QUOTA"},
	{cairn.ErrCapacity, codes.ResourceExhausted, "CAPACITY"},
	{cairn.ErrNoSpace, codes.ResourceExhausted, "NO_SPACE"},
	{cairn.ErrDataLoss, codes.FailedPrecondition, "DATA_LOSS"},
	{cairn.ErrStale, codes.OutOfRange, "STALE"},
	{cairn.ErrNotSupported, codes.Unimplemented, "NOT_SUPPORTED"},
	{cairn.ErrDenied, codes.PermissionDenied, "DENIED"},
	{cairn.ErrUnauthenticated, codes.Unauthenticated, "UNAUTHENTICATED"},
	{cairn.ErrUnavailable, codes.Unavailable, "UNAVAILABLE"},
	{cairn.ErrUnknownOutcome, codes.Unknown, "UNKNOWN_OUTCOME"},
	{cairn.ErrTimeout, codes.DeadlineExceeded, "TIMEOUT"},
	{cairn.ErrUpgrade, codes.FailedPrecondition, "UPGRADE"},
	{cairn.ErrCorrupt, codes.DataLoss, "CORRUPT"},
}

// foreign says what a status without a reason of ours means: it was made by gRPC itself, on either side.
var foreign = map[codes.Code]error{
	codes.Canceled:          context.Canceled,
	codes.DeadlineExceeded:  cairn.ErrTimeout,
	codes.Unavailable:       cairn.ErrUnavailable,
	codes.Unimplemented:     cairn.ErrNotSupported,
	codes.InvalidArgument:   cairn.ErrInvalid,
	codes.ResourceExhausted: cairn.ErrInvalid, // a message that is larger than the limit
	codes.Unauthenticated:   cairn.ErrUnauthenticated,
	codes.PermissionDenied:  cairn.ErrDenied,
}

// ToStatus returns the error as a gRPC status error with one line of text. What is a status already, such as the answer to
// a forwarded request, stays as it is; an error that wraps no sentinel becomes codes.Internal.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	st, isStatus := status.FromError(err)
	if isStatus && reasonOf(st) != "" {
		return st.Err()
	}
	for _, row := range table {
		if errors.Is(err, row.sentinel) {
			return withReason(row.code, row.reason, oneLine(err.Error()))
		}
	}
	switch {
	case isStatus:
		return st.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return withReason(codes.DeadlineExceeded, "TIMEOUT", oneLine(err.Error()))
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, oneLine(err.Error()))
	}
	return status.Error(codes.Internal, oneLine(err.Error()))
}

func withReason(code codes.Code, reason, message string) error {
	st := status.New(code, message)
	detailed, err := st.WithDetails(&errdetails.ErrorInfo{Domain: Domain, Reason: reason})
	if err != nil {
		return st.Err() // the code alone still tells most of it
	}
	return detailed.Err()
}

// FromStatus turns the error of a call into one with the same text that wraps the same sentinel. An error that is no status
// is returned as it is; a status that says nothing known wraps no sentinel, so nobody retries it.
func FromStatus(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	if reason := reasonOf(st); reason != "" {
		for _, row := range table {
			if row.reason == reason {
				return &remote{st, row.sentinel}
			}
		}
	}
	if sentinel := foreign[st.Code()]; sentinel != nil {
		return &remote{st, sentinel}
	}
	return &remote{st, nil}
}

// FromCall is FromStatus for a call of which it is known whether it reached a server, and whether it changes something. A
// connection that broke after a change was sent leaves the outcome open, where FromStatus would say that nothing was changed;
// a deadline that passed before any server was reached is no server's fault, and nothing was changed.
func FromCall(err error, reached, changes bool) error {
	st, ok := status.FromError(err)
	if err == nil || !ok || reasonOf(st) != "" {
		return FromStatus(err)
	}
	switch code := st.Code(); {
	case reached && changes && code == codes.Unavailable:
		return fmt.Errorf("%s: %w", oneLine(st.Message()), cairn.ErrUnknownOutcome)
	case !reached && (code == codes.DeadlineExceeded || code == codes.Unavailable):
		return fmt.Errorf("no server answers: %s: %w", dialing(oneLine(st.Message())), cairn.ErrUnavailable)
	}
	return FromStatus(err)
}

// dialing is what the network said, without what gRPC wraps around it.
func dialing(text string) string {
	if _, said, ok := strings.Cut(text, "Error while dialing: "); ok {
		return strings.TrimSuffix(said, `"`)
	}
	return text
}

// reasonOf is the ErrorInfo reason of a status that Cairn made, "" of any other.
func reasonOf(st *status.Status) string {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info.GetReason()
		}
	}
	return ""
}

// remote is an error that came over the wire.
type remote struct {
	status   *status.Status
	sentinel error // nil if nobody knows
}

// Error is the text that the server wrote.
func (r *remote) Error() string {
	text := oneLine(r.status.Message())
	if r.sentinel != nil && !strings.Contains(text, r.sentinel.Error()) {
		return text + ": " + r.sentinel.Error()
	}
	return text
}

// Unwrap is the sentinel.
func (r *remote) Unwrap() error { return r.sentinel }

// GRPCStatus lets a server hand on an answer that it got from another one.
func (r *remote) GRPCStatus() *status.Status { return r.status }

// oneLine keeps an error readable in a log and on a terminal, whatever a library put into it.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
