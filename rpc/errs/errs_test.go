package errs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/errs"
)

// wire sends an error as gRPC does: only code, message and details survive.
func wire(t *testing.T, err error) error {
	t.Helper()
	st, ok := status.FromError(errs.ToStatus(err))
	if !ok {
		t.Fatalf("ToStatus(%v) is no status", err)
	}
	return status.FromProto(st.Proto()).Err()
}

func TestEverySentinelComesBack(t *testing.T) {
	codesSeen := map[error]codes.Code{}
	for _, sentinel := range cairn.Sentinels() {
		sent := fmt.Errorf("share %q: a reason: %w", "backups", sentinel)
		over := wire(t, sent)
		got := errs.FromStatus(over)
		if got.Error() != sent.Error() {
			t.Errorf("%v: text is %q, want %q", sentinel, got, sent)
		}
		for _, other := range cairn.Sentinels() {
			if is := errors.Is(got, other); is != (other == sentinel) {
				t.Errorf("%v came back; errors.Is(%v) is %v", sentinel, other, is)
			}
		}
		codesSeen[sentinel] = status.Code(over)
		if c := codesSeen[sentinel]; c == codes.OK || c == codes.Internal {
			t.Errorf("%v has code %v: it is missing in the table", sentinel, c)
		}
		if again := wire(t, got); status.Code(again) != status.Code(over) || !errors.Is(errs.FromStatus(again), sentinel) {
			t.Errorf("%v was handed on as %v", sentinel, again)
		}
	}
}

func TestTextIsOneLine(t *testing.T) {
	got := errs.FromStatus(wire(t, fmt.Errorf("tool said:\n\tno\n: %w", cairn.ErrNoSpace))).Error()
	if strings.ContainsAny(got, "\n\t") {
		t.Errorf("text is %q", got)
	}
}

func TestUnknownErrorsWrapNothing(t *testing.T) {
	for _, err := range []error{errors.New("a surprise"), status.Error(codes.Internal, "x"), status.Error(codes.DataLoss, "x"),
		status.Error(codes.NotFound, "not ours"), status.Error(codes.Unknown, "x")} {
		got := errs.FromStatus(wire(t, err))
		for _, sentinel := range cairn.Sentinels() {
			if errors.Is(got, sentinel) {
				t.Errorf("%v came back as %v", err, sentinel)
			}
		}
	}
}

func TestErrorsOfTheTransport(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want error
	}{
		"no connection":    {status.Error(codes.Unavailable, "connection refused"), cairn.ErrUnavailable},
		"deadline":         {status.Error(codes.DeadlineExceeded, "x"), cairn.ErrTimeout},
		"local deadline":   {context.DeadlineExceeded, cairn.ErrTimeout},
		"cancelled":        {status.Error(codes.Canceled, "x"), context.Canceled},
		"locally":          {context.Canceled, context.Canceled},
		"older server":     {status.Error(codes.Unimplemented, "x"), cairn.ErrNotSupported},
		"message too long": {status.Error(codes.ResourceExhausted, "x"), cairn.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if got := errs.FromStatus(wire(t, test.err)); !errors.Is(got, test.want) {
				t.Errorf("got %v, want it to wrap %v", got, test.want)
			}
		})
	}
}

func TestBrokenConnectionLeavesOutcomeOpen(t *testing.T) {
	broken := status.Error(codes.Unavailable, "error reading from server: EOF")
	if got := errs.FromCall(broken, true, true); !errors.Is(got, cairn.ErrUnknownOutcome) || errors.Is(got, cairn.ErrUnavailable) {
		t.Errorf("sent: %v", got)
	}
	if got := errs.FromCall(broken, false, true); !errors.Is(got, cairn.ErrUnavailable) {
		t.Errorf("not sent: %v", got)
	}
	if got := errs.FromCall(broken, true, false); !errors.Is(got, cairn.ErrUnavailable) {
		t.Errorf("a read: %v", got)
	}
	late := status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	if got := errs.FromCall(late, false, true); !errors.Is(got, cairn.ErrUnavailable) || errors.Is(got, cairn.ErrTimeout) {
		t.Errorf("never reached anybody: %v", got)
	}
	if got := errs.FromCall(late, true, true); !errors.Is(got, cairn.ErrTimeout) {
		t.Errorf("reached somebody who did not answer: %v", got)
	}
	dial := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`)
	if got := errs.FromCall(dial, false, true).Error(); got != "no server answers: dial tcp 127.0.0.1:1: connect: connection refused: unavailable" {
		t.Errorf("text: %q", got)
	}
	refused := wire(t, fmt.Errorf("no leader: %w", cairn.ErrUnavailable))
	if got := errs.FromCall(refused, true, true); !errors.Is(got, cairn.ErrUnavailable) || errors.Is(got, cairn.ErrUnknownOutcome) {
		t.Errorf("the server itself said that nothing changed: %v", got)
	}
	if errs.FromCall(nil, true, true) != nil || errs.FromStatus(nil) != nil || errs.ToStatus(nil) != nil {
		t.Error("nil is no error")
	}
}
