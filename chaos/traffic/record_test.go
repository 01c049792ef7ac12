package traffic

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/model"
)

// TestOutcomes: only what certainly had no effect is a refusal, and what nobody expects is remembered as such.
func TestOutcomes(t *testing.T) {
	for _, test := range []struct {
		name    string
		err     error
		outcome model.Outcome
		refusal string
		odd     int
	}{
		{"done", nil, model.Known, "", 0},
		{"refused", fmt.Errorf("share a: %w", cairn.ErrNotFound), model.Known, "not found", 0},
		{"nothing was changed", fmt.Errorf("no leader: %w", cairn.ErrUnavailable), model.Known, "unavailable", 0},
		{"nobody knows", fmt.Errorf("leadership lost: %w", cairn.ErrUnknownOutcome), model.Unknown, "", 0},
		{"late", fmt.Errorf("a call: %w", cairn.ErrTimeout), model.Unknown, "", 0},
		{"interrupted", context.Canceled, model.Unknown, "", 0},
		{"done, and gone again", fmt.Errorf("type a: the request was carried out, and it is gone since: %w", cairn.ErrNotFound), model.Unknown, "", 0},
		{"nonsense", errors.New("index out of range"), model.Unknown, "", 1},
		{"nobody asked for that", fmt.Errorf("a row: %w", cairn.ErrCorrupt), model.Unknown, "", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewRecord()
			op := r.do(t.Context(), model.Operation{Kind: model.Get}, func(context.Context) (model.Output, error) { return model.Output{ID: "x"}, test.err })
			if op.Outcome != test.outcome || op.Output.Refusal != test.refusal || (op.Output.ID == "x") != (test.err == nil) || len(r.Odd()) != test.odd {
				t.Errorf("%+v, odd %v", op, r.Odd())
			}
			if h := r.History(); len(h.Operations) != 1 || h.Operations[0].Return < h.Operations[0].Call {
				t.Errorf("remembered: %+v", h.Operations)
			}
		})
	}
}
