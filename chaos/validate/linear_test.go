package validate

import (
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
)

// told is one operation of a written history; times are in milliseconds.
type told struct {
	from, to int
	kind     model.Kind
	in       model.Input
	out      model.Output
	unknown  bool
}

func history(lines []told) []model.Operation {
	var all []model.Operation
	for i, line := range lines {
		op := model.Operation{
			Client: i % 4, Kind: line.kind, Resource: "r", Input: line.in, Output: line.out, Outcome: model.Known,
			Call: time.Duration(line.from) * time.Millisecond, Return: time.Duration(line.to) * time.Millisecond,
		}
		if line.unknown {
			op.Outcome = model.Unknown
		}
		all = append(all, op)
	}
	return all
}

func no(refusal string) model.Output { return model.Output{Refusal: refusal} }
func shown(items ...model.Item) model.Output {
	return model.Output{Items: items}
}

// a is the share that the histories are about.
func a(value string, size int64, epoch uint64) model.Item {
	return model.Item{Name: "a", ID: "A", Value: value, Size: size, Epoch: epoch}
}

var (
	byName  = model.Input{Name: "a"}
	byID    = model.Input{ID: "A"}
	making  = model.Input{Name: "a", Value: "1", Size: 10}
	made    = model.Output{ID: "A"}
	snap    = model.Input{ID: "A", Name: "s"}
	done    = model.Output{}
	create  = told{0, 1, model.CreateShare, making, made, false}
	deleted = told{2, 3, model.DeleteShare, byID, done, false}
)

func TestLinearizable(t *testing.T) {
	for _, test := range []struct {
		name    string
		history []told
		bad     bool
	}{
		{"a life", []told{
			create,
			{2, 3, model.GetShare, byName, shown(a("1", 10, 1)), false},
			{4, 5, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, false},
			{6, 7, model.ListShares, model.Input{}, shown(a("2", 10, 2)), false},
			{8, 9, model.DeleteShare, byID, done, false},
			{10, 11, model.GetShare, byName, no(model.NotFound), false},
			{12, 13, model.CreateShare, making, model.Output{ID: "B"}, false},
		}, false},
		{"stale read", []told{
			create,
			{2, 3, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, false},
			{4, 5, model.GetShare, byName, shown(a("1", 10, 1)), false},
		}, true},
		{"read that goes back", []told{
			create,
			{2, 20, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, false},
			{4, 5, model.GetShare, byName, shown(a("2", 10, 1)), false},
			{6, 7, model.GetShare, byName, shown(a("1", 10, 1)), false},
		}, true},
		{"while it is written either is right", []told{
			create,
			{2, 20, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, false},
			{4, 5, model.GetShare, byName, shown(a("1", 10, 1)), false},
			{6, 7, model.GetShare, byName, shown(a("2", 10, 1)), false},
		}, false},
		{"lost update", []told{
			create,
			{2, 3, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, false},
			{4, 5, model.GetShare, byName, no(model.NotFound), false},
		}, true},
		{"an unknown outcome that happened later", []told{
			create,
			{2, 3, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, true},
			{4, 5, model.GetShare, byName, shown(a("1", 10, 1)), false},
			{6, 7, model.GetShare, byName, shown(a("2", 10, 1)), false},
		}, false},
		{"an unknown outcome cannot happen twice", []told{
			create,
			{2, 3, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, true},
			{4, 5, model.GetShare, byName, shown(a("2", 10, 1)), false},
			{6, 7, model.UpdateShare, model.Input{ID: "A", Value: "3"}, done, false},
			{8, 9, model.GetShare, byName, shown(a("2", 10, 1)), false},
		}, true},
		{"an unknown create is seen", []told{
			{0, 1, model.CreateShare, making, done, true},
			{2, 3, model.GetShare, byName, no(model.NotFound), false},
			{4, 5, model.GetShare, byName, shown(a("1", 10, 1)), false},
		}, false},
		{"two of one name", []told{create, {2, 3, model.CreateShare, making, model.Output{ID: "B"}, false}}, true},
		{"a refusal without a reason", []told{{0, 1, model.CreateShare, making, no(model.Exists), false}}, true},
		{"a deletion that is not over yet", []told{
			create, deleted,
			{4, 5, model.CreateShare, making, no(model.Exists), false},
			{6, 7, model.UpdateShare, model.Input{ID: "A", Value: "2"}, no(model.Precondition), false},
		}, false},
		{"what is being deleted can be looked into", []told{create, deleted, {4, 5, model.ListSnapshots, byID, done, false}}, false},
		{"a change of what is being deleted", []told{create, deleted, {4, 5, model.UpdateShare, model.Input{ID: "A", Value: "2"}, done, false}}, true},
		{"back from the dead", []told{
			create, deleted,
			{4, 5, model.GetShare, byName, no(model.NotFound), false},
			{6, 7, model.GetShare, byName, shown(model.Item{Name: "a", ID: "A", Value: "1", Size: 10, Epoch: 1, Leaving: true}), false},
		}, true},
		{"a resize shows when its node has done it", []told{
			create,
			{2, 3, model.ResizeShare, model.Input{ID: "A", Size: 20}, done, false},
			{4, 5, model.GetShare, byName, shown(a("1", 10, 1)), false},
			{6, 7, model.GetShare, byName, shown(a("1", 20, 1)), false},
		}, false},
		{"a size that nobody asked for", []told{create, {2, 3, model.GetShare, byName, shown(a("1", 20, 1)), false}}, true},
		{"a size that goes back", []told{
			create,
			{2, 3, model.ResizeShare, model.Input{ID: "A", Size: 20}, done, false},
			{4, 5, model.GetShare, byName, shown(a("1", 20, 1)), false},
			{6, 7, model.GetShare, byName, shown(a("1", 10, 1)), false},
		}, true},
		{"an epoch that goes back", []told{
			create,
			{2, 3, model.GetShare, byName, shown(a("1", 10, 2)), false},
			{4, 5, model.GetShare, byName, shown(a("1", 10, 1)), false},
		}, true},
		{"renamed", []told{
			create,
			{2, 3, model.RenameShare, model.Input{ID: "A", Name: "b"}, done, false},
			{4, 5, model.GetShare, byName, no(model.NotFound), false},
			{6, 7, model.GetShare, model.Input{Name: "b"}, shown(model.Item{Name: "b", ID: "A", Value: "1", Size: 10}), false},
		}, false},
		{"renamed to a name that is taken", []told{
			create,
			{2, 3, model.CreateShare, model.Input{Name: "b", Size: 1}, model.Output{ID: "B"}, false},
			{4, 5, model.RenameShare, model.Input{ID: "A", Name: "b"}, done, false},
		}, true},
		{"a list that lacks one", []told{create, {2, 3, model.ListShares, model.Input{}, done, false}}, true},
		{"a snapshot holds its share", []told{
			create,
			{2, 3, model.CreateSnapshot, snap, model.Output{ID: "S"}, false},
			{4, 5, model.DeleteShare, byID, no(model.InUse), false},
			{6, 7, model.DeleteSnapshot, model.Input{ID: "S"}, done, false},
			{8, 9, model.ListSnapshots, byID, shown(model.Item{Name: "s", ID: "S", Leaving: true}), false},
			{10, 11, model.DeleteSnapshot, model.Input{ID: "S"}, no(model.NotFound), false},
			{12, 13, model.DeleteShare, byID, done, false},
		}, false},
		{"a share deleted under its snapshot", []told{create, {2, 3, model.CreateSnapshot, snap, model.Output{ID: "S"}, false}, {4, 5, model.DeleteShare, byID, done, false}}, true},
		{"in use by nothing", []told{create, {2, 3, model.DeleteShare, byID, no(model.InUse), false}}, true},
		{"a snapshot that is gone", []told{create, {2, 3, model.CreateSnapshot, snap, model.Output{ID: "S"}, false}, {4, 5, model.ListSnapshots, byID, done, false}}, true},
		{"two snapshots of one name", []told{
			create, {2, 3, model.CreateSnapshot, snap, model.Output{ID: "S"}, false}, {4, 5, model.CreateSnapshot, snap, model.Output{ID: "T"}, false},
		}, true},
		{"a set", []told{
			{0, 1, model.Put, model.Input{Name: "k", Value: "1"}, done, false},
			{2, 3, model.Put, model.Input{Name: "k", Value: "2"}, no(model.Exists), false},
			{4, 5, model.Set, model.Input{Name: "k", Value: "2"}, done, false},
			{6, 7, model.Get, model.Input{Name: "k"}, shown(model.Item{Name: "k", Value: "2"}), false},
			{8, 9, model.Remove, model.Input{Name: "k"}, done, false},
			{10, 11, model.List, model.Input{}, shown(model.Item{Name: "k", Value: "2", Leaving: true}), false},
			{12, 13, model.Get, model.Input{Name: "k"}, no(model.NotFound), false},
			{14, 15, model.Replace, model.Input{Items: []model.Item{{Name: "l", Value: "1"}}}, done, false},
			{16, 17, model.List, model.Input{}, shown(model.Item{Name: "l", Value: "1"}), false},
		}, false},
		{"a value that was never written", []told{
			{0, 1, model.Set, model.Input{Name: "k", Value: "1"}, done, false},
			{2, 3, model.Get, model.Input{Name: "k"}, shown(model.Item{Name: "k", Value: "2"}), false},
		}, true},
		{"a value that comes back", []told{
			{0, 1, model.Put, model.Input{Name: "k", Value: "1"}, done, false},
			{2, 3, model.Remove, model.Input{Name: "k"}, done, false},
			{4, 5, model.List, model.Input{}, shown(model.Item{Name: "k", Value: "1"}), false},
		}, true},
		{"a token", []told{
			{0, 1, model.Add, model.Input{Name: "k"}, done, true},
			{2, 3, model.Add, model.Input{Name: "k"}, no(model.Exists), false},
			{4, 5, model.List, model.Input{}, shown(model.Item{Name: "k", Value: "T"}), false},
			{6, 7, model.Remove, model.Input{Name: "k", ID: "T"}, done, false},
			{8, 9, model.Add, model.Input{Name: "k"}, model.Output{ID: "U"}, false},
			{10, 11, model.Remove, model.Input{Name: "k", ID: "T"}, no(model.NotFound), false},
		}, false},
		{"a token that is gone, and another one, of which nobody has been told", []told{
			{0, 1, model.Add, model.Input{Name: "k"}, model.Output{ID: "T"}, false},
			{2, 3, model.Remove, model.Input{Name: "k", ID: "T"}, done, false},
			{4, 5, model.Add, model.Input{Name: "k"}, done, true},
			{6, 7, model.Add, model.Input{Name: "k"}, no(model.Exists), false},
			{8, 9, model.Remove, model.Input{Name: "k", ID: "T"}, no(model.NotFound), false},
			{10, 11, model.Add, model.Input{Name: "k"}, no(model.Exists), false},
		}, false},
		{"a token that is there and is not found", []told{
			{0, 1, model.Add, model.Input{Name: "k"}, model.Output{ID: "T"}, false},
			{2, 3, model.Remove, model.Input{Name: "k", ID: "T"}, no(model.NotFound), false},
		}, true},
		{"a token twice", []told{
			{0, 1, model.Add, model.Input{Name: "k"}, model.Output{ID: "T"}, false},
			{2, 3, model.Add, model.Input{Name: "k"}, model.Output{ID: "U"}, false},
		}, true},
		{"another token's removal", []told{
			{0, 1, model.Add, model.Input{Name: "k"}, model.Output{ID: "T"}, false},
			{2, 3, model.Remove, model.Input{Name: "k", ID: "U"}, done, false},
		}, true},
		{"a removal of nothing", []told{{0, 1, model.Remove, model.Input{Name: "k"}, done, false}}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := Linearizable(history(test.history), time.Minute)
			if bad := len(found) > 0; bad != test.bad {
				t.Fatalf("found %v", found)
			}
			for _, v := range found {
				if !strings.Contains(string(v.Picture), "<html") || !strings.Contains(v.Message, "not explained is client") {
					t.Errorf("the violation does not explain itself: %s (a picture of %d bytes)", v, len(v.Picture))
				}
			}
		})
	}
}

// TestUndecidedIsAViolation: a check that takes too long has shown nothing.
func TestUndecidedIsAViolation(t *testing.T) {
	var lines []told
	for i := range 60 { // all at the same time, and the last read fits none of them
		value := strings.Repeat("x", i+1)
		lines = append(lines, told{0, 1000, model.Set, model.Input{Name: "k", Value: value}, done, false})
	}
	lines = append(lines, told{0, 1000, model.Get, model.Input{Name: "k"}, shown(model.Item{Value: "never"}), false})
	found := Linearizable(history(lines), time.Millisecond)
	if len(found) != 1 || !strings.Contains(found[0].Message, "not decided") {
		t.Errorf("found %v", found)
	}
}
