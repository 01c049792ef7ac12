// Package validate judges what a chaos run remembers: each check is a function from facts to violations, and asks nobody. It
// does not know where the facts come from.
package validate

import (
	"fmt"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
)

// Violation is a promise that was not kept.
type Violation struct {
	Subject string // what it is about, such as a share
	Message string
	Picture []byte // a page (HTML) that shows it, if there is one
}

func (v Violation) String() string { return v.Subject + ": " + v.Message }

func violation(subject, format string, args ...any) Violation {
	return Violation{Subject: subject, Message: fmt.Sprintf(format, args...)}
}

// Verdict is what a check found.
type Verdict struct {
	Check      string
	Looked     int // how many facts it had: a check without any says nothing
	Violations []Violation
}

// Limits are how long things may take.
type Limits struct {
	Linear time.Duration // to check one resource; running out of it counts as a failure
	Settle time.Duration // from healing until nothing is in transition any more
}

// All runs every check.
func All(h model.History, f model.Final, l Limits) []Verdict {
	rows := 0
	for _, p := range f.Pools {
		rows += len(p.Have) + len(p.Want)
	}
	events := 0
	for _, s := range f.Streams {
		events += len(s.Events)
	}
	return []Verdict{
		{"linearizable", len(h.Operations), Linearizable(h.Operations, l.Linear)},
		{"one writer", len(signed(h.Acks)), OneWriter(h.Acks)},
		{"nothing lost", len(h.Acks), NothingLost(h.Acks, h.Takeovers, f.Shares)},
		{"snapshots whole", len(f.Copies), SnapshotsWhole(f.Copies)},
		{"disks and rows", rows, DisksAndRows(f.Pools)},
		{"same state", len(f.States), SameState(f.States)},
		{"settled", len(f.Transient), Settled(f.Transient, l.Settle)},
		{"rules hold", len(f.Probes), RulesHold(f.Probes)},
		{"events", events, Events(f.Streams)},
		{"tokens once", len(f.Joins), TokensOnce(f.Joins)},
	}
}
