package validate

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cairn-storage/cairn/chaos/model"
)

// Linearizable checks that the operations on each resource can be put into one order in which every answer is right, and in which what
// was answered before another request began comes before it. An outcome that is not known may have happened at any time from
// the request on, or never. If the check of a resource takes longer than limit, that is a violation: nobody knows.
func Linearizable(operations []model.Operation, limit time.Duration) []Violation {
	parts := map[string][]porcupine.Operation{}
	for _, op := range operations {
		if strings.HasPrefix(string(op.Kind), model.Other) {
			continue
		}
		end := int64(op.Return)
		if op.Outcome == model.Unknown {
			if reads(op.Kind) {
				continue // a look without an answer says nothing
			}
			end = math.MaxInt64
		}
		parts[op.Resource] = append(parts[op.Resource], porcupine.Operation{
			ClientId: op.Client, Input: op, Call: int64(op.Call), Return: end,
		})
	}
	var found []Violation
	for _, resource := range slices.Sorted(maps.Keys(parts)) {
		if v := linearizable(resource, parts[resource], limit); v != nil {
			found = append(found, *v)
		}
	}
	return found
}

func reads(kind model.Kind) bool {
	switch kind {
	case model.GetShare, model.ListShares, model.ListSnapshots, model.Get, model.List:
		return true
	}
	return false
}

func linearizable(resource string, history []porcupine.Operation, limit time.Duration) *Violation {
	result, info := porcupine.CheckOperationsVerbose(sequential, history, limit)
	var v Violation
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		v = violation(resource, "not decided within %s: %d operations", limit, len(history))
	default:
		v = violation(resource, "no order of its %d operations explains their answers; %s", len(history), stuck(history, info))
	}
	var page bytes.Buffer
	if err := porcupine.Visualize(sequential, info, &page); err != nil {
		v.Message += fmt.Sprintf("; no picture: %v", err)
	}
	v.Picture = page.Bytes()
	return &v
}

// stuck names the first operation that the longest explanation leaves out.
func stuck(history []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, partial := range info.PartialLinearizationsOperations() {
		for _, order := range partial {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	state, explained := model.State{}, map[string]bool{}
	for _, op := range longest {
		done := op.Input.(model.Operation)
		state, _ = state.Step(done)
		explained[key(done)] = true
	}
	first := model.Operation{Return: math.MaxInt64}
	for _, op := range history {
		if o := op.Input.(model.Operation); !explained[key(o)] && o.Outcome == model.Known && o.Return < first.Return {
			first = o
		}
	}
	return fmt.Sprintf("after %d of them it is {%s}, and not explained is client %d, %s to %s: %s",
		len(longest), state, first.Client, first.Call.Round(time.Microsecond), first.Return.Round(time.Microsecond), first)
}

func key(o model.Operation) string { return fmt.Sprint(o.Client, o.Call, o.Kind) }

var sequential = porcupine.Model{
	Init: func() any { return model.State{} },
	Step: func(state, input, _ any) (bool, any) {
		next, ok := state.(model.State).Step(input.(model.Operation))
		return ok, next
	},
	Equal:             func(a, b any) bool { return a.(model.State).Equal(b.(model.State)) },
	DescribeOperation: func(input, _ any) string { return input.(model.Operation).String() },
	DescribeState:     func(state any) string { return state.(model.State).String() },
}
