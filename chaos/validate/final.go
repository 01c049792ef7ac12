package validate

import (
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
)

// DisksAndRows checks that no object is on a disk without a row that wants it there, and that no row is without its object.
func DisksAndRows(pools []model.Pool) []Violation {
	var found []Violation
	for _, pool := range pools {
		for _, name := range difference(pool.Have, pool.Want) {
			found = append(found, violation(pool.Node, "%s is on its disk, and no row wants it there", name))
		}
		for _, name := range difference(pool.Want, pool.Have) {
			found = append(found, violation(pool.Node, "%s is not on its disk, and a row says so", name))
		}
	}
	return found
}

// SameState checks that nodes that have applied the same entry have the same digest.
func SameState(states []model.StateAt) []Violation {
	var found []Violation
	first := map[uint64]model.StateAt{}
	for _, s := range states {
		if s.Diverged {
			found = append(found, violation(s.Node, "says that nodes differ at the same entry"))
		}
		other, known := first[s.Index]
		if known && other.Digest != s.Digest {
			found = append(found, violation(s.Node, "has digest %s at entry %d, and node %s has %s", s.Digest, s.Index, other.Node, other.Digest))
		}
		if !known {
			first[s.Index] = s
		}
	}
	return found
}

// Settled checks that what is in transition ends within the limit when nothing is broken any more.
func Settled(transient []model.Transient, limit time.Duration) []Violation {
	var found []Violation
	for _, t := range transient {
		if t.For > limit {
			found = append(found, violation(t.Resource, "is still %s %s after everything was healed", t.State, t.For.Round(time.Millisecond)))
		}
	}
	return found
}

// RulesHold checks that clients can do what they were granted and nothing else.
func RulesHold(probes []model.Probe) []Violation {
	var found []Violation
	for _, p := range probes {
		if read := p.Granted != ""; read != p.Read {
			found = append(found, violation(p.Share, "%s is granted %q, and reading is possible: %t", p.Who, p.Granted, p.Read))
		}
		if write := p.Granted == "rw"; write != p.Write {
			found = append(found, violation(p.Share, "%s is granted %q, and writing is possible: %t", p.Who, p.Granted, p.Write))
		}
	}
	return found
}

// Events checks that every watcher saw all events from where it began, in order and without gaps or repetitions, however often its
// connection broke, and that all saw the same ones.
func Events(streams []model.Stream) []Violation {
	var found []Violation
	seen := map[uint64]model.Event{}
	for _, stream := range streams {
		last := model.Event{Seq: stream.After}
		for _, event := range stream.Events {
			if event.Seq != last.Seq+1 {
				found = append(found, violation(stream.Watcher, "saw event %d after event %d", event.Seq, last.Seq))
			}
			if event.Index < last.Index {
				found = append(found, violation(stream.Watcher, "saw event %d of entry %d after one of entry %d", event.Seq, event.Index, last.Index))
			}
			last = event
			other, known := seen[event.Seq]
			if known && other != event {
				found = append(found, violation(stream.Watcher, "saw event %d as %+v, another watcher as %+v", event.Seq, event, other))
			}
			seen[event.Seq] = event
		}
		if last.Seq < stream.Newest {
			found = append(found, violation(stream.Watcher, "ended at event %d of %d", last.Seq, stream.Newest))
		}
	}
	return found
}

// TokensOnce checks that of all machines with the same token at most one has joined.
func TokensOnce(joins []model.Join) []Violation {
	var found []Violation
	winner := map[string]string{}
	for _, j := range joins {
		if !j.Joined {
			continue
		}
		other, taken := winner[j.Token]
		if taken && other != j.Machine {
			found = append(found, violation(j.Token, "let %s in, and %s too", other, j.Machine))
		}
		winner[j.Token] = j.Machine
	}
	return found
}
