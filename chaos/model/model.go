package model

import (
	"fmt"
	"strings"
)

// State is the state of one resource in the model that the kinds of its operations belong to. The zero State is that of a
// resource that nobody has used yet.
type State struct {
	slot slot
	set  set
}

// Step is one operation as if it happened in one moment: the state after it, and whether it may have been answered so in
// this one. Of an unknown outcome it is carried out as far as it can be; that it never was is the same as that it was after
// everything else.
func (s State) Step(op Operation) (State, bool) {
	var ok bool
	known := op.Outcome == Known
	if strings.HasPrefix(string(op.Kind), "set.") {
		s.set, ok = s.set.step(op.Kind, op.Input, op.Output, known)
	} else {
		s.slot, ok = s.slot.step(op.Kind, op.Input, op.Output, known)
	}
	return s, ok
}

// Equal reports whether nobody can tell the states apart.
func (s State) Equal(other State) bool { return s.slot.equal(other.slot) && s.set.equal(other.set) }

// String is for people.
func (s State) String() string { return strings.TrimSpace(s.slot.String() + " " + s.set.String()) }

// String is for people, such as "share.update id v=7: done".
func (o Operation) String() string {
	var asked []string
	for _, part := range []string{o.Input.ID, o.Input.Name, o.Input.Value} {
		if part != "" {
			asked = append(asked, part)
		}
	}
	if o.Input.Size != 0 {
		asked = append(asked, fmt.Sprint(o.Input.Size))
	}
	for _, item := range o.Input.Items {
		asked = append(asked, item.Name+"="+item.Value)
	}
	return fmt.Sprintf("%s %s: %s", o.Kind, strings.Join(asked, " "), o.answer())
}

func (o Operation) answer() string {
	switch {
	case o.Outcome == Unknown:
		return "outcome unknown"
	case o.Output.Refusal != "":
		return o.Output.Refusal
	}
	parts := []string{"done"}
	if o.Output.ID != "" {
		parts = append(parts, o.Output.ID)
	}
	for _, item := range o.Output.Items {
		parts = append(parts, fmt.Sprintf("%+v", item))
	}
	return strings.Join(parts, " ")
}
