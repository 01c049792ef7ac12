package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairn-storage/cairn"
)

// What failed, where that says more than how it failed.
var (
	errPool   = errors.New("pool does not answer")
	errExport = errors.New("cannot be served")
)

// faultCodes turns the error of a driver into the code of a fault; the first match counts.
var faultCodes = []struct {
	err  error
	code cairn.FaultCode
}{
	{errExport, cairn.FaultExport},
	{context.DeadlineExceeded, cairn.FaultTimeout},
	{cairn.ErrTimeout, cairn.FaultTimeout},
	{cairn.ErrNoSpace, cairn.FaultNoSpace},
	{cairn.ErrInUse, cairn.FaultInUse},
	{cairn.ErrDataLoss, cairn.FaultDataLoss},
	{cairn.ErrExists, cairn.FaultForeign},
	{cairn.ErrNotSupported, cairn.FaultUnsupport},
	{cairn.ErrNotFound, cairn.FaultMissing},
	{cairn.ErrCorrupt, cairn.FaultUnknown}, // before errPool: the pool answers, and that well
	{errPool, cairn.FaultPool},
}

// poolError marks the error of a look. Only what the pool says of itself is its fault: cairn.ErrNotFound from a call that is
// not Stat says nothing about the replica.
func poolError(what string, err error) error {
	if errors.Is(err, cairn.ErrNotFound) {
		return fmt.Errorf("%s: %w: %s", what, errPool, err.Error()) // not wrapped: this is no "not found"
	}
	return fmt.Errorf("%s: %w: %w", what, errPool, err)
}

// fault describes the error. A fault that says what old says is old, with the time since when.
func (a *Actor) fault(old cairn.Fault, err error) cairn.Fault {
	if err == nil {
		return cairn.Fault{}
	}
	next := cairn.Fault{Code: cairn.FaultUnknown, Message: err.Error()}
	for _, row := range faultCodes {
		if errors.Is(err, row.err) {
			next.Code = row.code
			break
		}
	}
	if next.Code == old.Code && next.Message == old.Message {
		return old
	}
	next.At = a.cfg.Now().UnixNano()
	return next
}
