package cluster

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairn-storage/cairn"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// Errors that are answers travel inside messages, with their sentinel. What a call itself can fail with is a gRPC status:
// few kinds, told apart because the caller acts on them.

func failure(err error) *peerv1.Failure {
	if err == nil {
		return nil
	}
	f := &peerv1.Failure{Message: err.Error()}
	for _, sentinel := range cairn.Sentinels() {
		if errors.Is(err, sentinel) {
			f.Sentinel = sentinel.Error()
			break
		}
	}
	return f
}

// remote is an error that another node has found. Its text is that node's.
type remote struct {
	message  string
	sentinel error
}

func (r *remote) Error() string { return r.message }
func (r *remote) Unwrap() error { return r.sentinel }

func failureError(f *peerv1.Failure) error {
	if f == nil {
		return nil
	}
	for _, sentinel := range cairn.Sentinels() {
		if sentinel.Error() == f.GetSentinel() {
			return &remote{f.GetMessage(), sentinel}
		}
	}
	return errors.New(f.GetMessage())
}

var statusCodes = []struct {
	sentinel error
	code     codes.Code
}{
	{cairn.ErrNotFound, codes.NotFound}, {cairn.ErrDenied, codes.PermissionDenied}, {cairn.ErrUnauthenticated, codes.Unauthenticated},
	{cairn.ErrPrecondition, codes.FailedPrecondition}, {cairn.ErrInvalid, codes.InvalidArgument}, {cairn.ErrUnavailable, codes.Unavailable},
	{cairn.ErrUnknownOutcome, codes.Unknown}, {cairn.ErrTimeout, codes.DeadlineExceeded},
}

func toStatus(err error) error {
	for _, s := range statusCodes {
		if errors.Is(err, s.sentinel) {
			return status.Error(s.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}

// fromStatus names the sentinel of a call that failed. A call that did not come through is unavailable.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	s, _ := status.FromError(err)
	for _, known := range statusCodes {
		if s.Code() == known.code {
			return &remote{s.Message(), known.sentinel}
		}
	}
	return fmt.Errorf("%w: %w", err, cairn.ErrUnavailable)
}
