package validate

import (
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
)

const second = time.Second

// judge fails the test unless there is exactly one violation with all the words, or none if there are no words.
func judge(t *testing.T, found []Violation, words ...string) {
	t.Helper()
	if len(words) == 0 {
		if len(found) > 0 {
			t.Errorf("found %v, want nothing", found)
		}
		return
	}
	if len(found) != 1 {
		t.Fatalf("found %v, want one violation", found)
	}
	for _, word := range words {
		if !strings.Contains(found[0].String(), word) {
			t.Errorf("%q does not say %q", found[0], word)
		}
	}
}

func ack(record uint64, node string, epoch uint64, call, end time.Duration) model.Ack {
	return model.Ack{Share: "docs", Path: "p" + string(rune('0'+record)), Record: record, Sum: "sum", Node: node, Epoch: epoch, Call: call, Return: end}
}

func at(node string, index uint64, digest string, diverged bool) model.StateAt {
	return model.StateAt{Node: node, Index: index, Digest: digest, Diverged: diverged}
}

func still(resource, state string, since time.Duration) model.Transient {
	return model.Transient{Resource: resource, State: state, For: since}
}

func tried(share, who, granted string, read, write bool) model.Probe {
	return model.Probe{Share: share, Who: who, Granted: granted, Read: read, Write: write}
}

func joined(token, machine string, in bool) model.Join {
	return model.Join{Token: token, Machine: machine, Joined: in}
}

func TestOneWriter(t *testing.T) {
	for _, test := range []struct {
		name  string
		acks  []model.Ack
		words []string
	}{
		{"one after the other", []model.Ack{ack(1, "n1", 1, 0, second), ack(2, "n2", 2, 2*second, 3*second)}, nil},
		{"at the same time as the change", []model.Ack{ack(1, "n1", 1, 0, 4*second), ack(2, "n2", 2, second, 2*second)}, nil},
		{"two nodes in one epoch", []model.Ack{ack(1, "n1", 1, 0, second), ack(2, "n2", 1, second, 2*second)}, []string{"in epoch 1 node n1", "node n2"}},
		{"an old epoch goes on", []model.Ack{ack(1, "n2", 2, 0, second), ack(2, "n1", 1, 2*second, 3*second)}, []string{"node n1 has acknowledged record 2 in epoch 1", "begun 1s after"}},
		{"an answer that does not say who", []model.Ack{ack(1, "", 0, 0, second)}, []string{"nobody knows whom"}},
	} {
		t.Run(test.name, func(t *testing.T) { judge(t, OneWriter(test.acks), test.words...) })
	}
}

func TestNothingLost(t *testing.T) {
	written := []model.Ack{ack(1, "n1", 1, 9*second, 10*second)}
	failover := func(at, window time.Duration) []model.Takeover {
		return []model.Takeover{{Share: "docs", From: 1, LeftBehind: window, At: at}}
	}
	empty, kept := model.Contents{Share: "docs"}, model.Contents{Share: "docs", Kept: map[string]string{"p1": "sum"}}
	for _, test := range []struct {
		name      string
		takeovers []model.Takeover
		has       model.Contents
		words     []string
	}{
		{"there", nil, model.Contents{Share: "docs", Files: map[string]string{"p1": "sum"}}, nil},
		{"torn", nil, model.Contents{Share: "docs", Files: map[string]string{"p1": "other"}}, []string{"reads other"}},
		{"gone", nil, empty, []string{"is lost"}},
		{"left behind and kept", failover(11*second, 2*second), kept, nil},
		{"left behind and discarded", failover(11*second, 2*second), empty, []string{"kept nowhere"}},
		{"left behind on a disk that is gone", failover(11*second, 2*second), model.Contents{Share: "docs", DiskLost: true}, nil},
		{"more than the failover told", failover(20*second, 2*second), kept, []string{"is lost"}},
		{"a planned promotion excuses nothing", []model.Takeover{{Share: "docs", From: 1, Planned: true, At: 11 * second}}, kept, []string{"is lost"}},
		{"a failover of before", []model.Takeover{{Share: "docs", From: 0, LeftBehind: time.Minute, At: 11 * second}}, kept, []string{"is lost"}},
		{"a failover of another share", []model.Takeover{{Share: "other", From: 1, LeftBehind: time.Minute, At: 11 * second}}, kept, []string{"is lost"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			judge(t, NothingLost(written, test.takeovers, []model.Contents{test.has}), test.words...)
		})
	}
	judge(t, NothingLost(written, nil, nil), "nobody has looked")
}

// TestNothingLostOverNFS: an acknowledgement that does not say its epoch is judged by when it was given. What the old copy acknowledged after
// it was taken over is lost, and no failover excuses it.
func TestNothingLostOverNFS(t *testing.T) {
	record := func(call, end time.Duration) []model.Ack {
		a := ack(1, "", 0, call, end)
		a.Protocol = model.NFS
		return []model.Ack{a}
	}
	failover := []model.Takeover{{Share: "docs", From: 0, LeftBehind: 2 * second, At: 11 * second}}
	planned := []model.Takeover{{Share: "docs", From: 0, Planned: true, At: 11 * second}}
	half := map[string]string{"p1": "half"}
	there, kept := model.Contents{Share: "docs", Files: map[string]string{"p1": "sum"}}, model.Contents{Share: "docs", Kept: map[string]string{"p1": "sum"}}
	for _, test := range []struct {
		name      string
		acks      []model.Ack
		takeovers []model.Takeover
		has       model.Contents
		words     []string
	}{
		{"there", record(9*second, 10*second), nil, there, nil},
		{"torn", record(9*second, 10*second), nil, model.Contents{Share: "docs", Files: half}, []string{"reads half", "over NFS"}},
		{"torn by a failover and kept", record(9*second, 10*second), failover, model.Contents{Share: "docs", Files: half, Kept: kept.Kept}, nil},
		{"torn by a failover and discarded", record(9*second, 10*second), failover, model.Contents{Share: "docs", Files: half}, []string{"kept nowhere"}},
		{"torn before what the failover told", record(7*second, 8*second), failover, model.Contents{Share: "docs", Files: half, Kept: kept.Kept}, []string{"reads half"}},
		{"gone", record(9*second, 10*second), nil, kept, []string{"record 1 (p1), acknowledged over NFS at 10s, is lost"}},
		{"left behind and kept", record(9*second, 10*second), failover, kept, nil},
		{"left behind and discarded", record(9*second, 10*second), failover, model.Contents{Share: "docs"}, []string{"kept nowhere"}},
		{"more than the failover told", record(7*second, 8*second), failover, kept, []string{"is lost"}},
		{"under way when the old copy's time was over", record(10*second, 13*second), failover, kept, nil},
		{"by the old copy after it was taken over", record(12*second, 13*second), failover, kept, []string{"is lost"}},
		{"by the old copy after a promotion", record(12*second, 13*second), planned, kept, []string{"is lost"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			judge(t, NothingLost(test.acks, test.takeovers, []model.Contents{test.has}), test.words...)
			judge(t, OneWriter(test.acks))
		})
	}
}

func TestSnapshotsWhole(t *testing.T) {
	one := func(node, sum string, counts bool) model.Copy {
		return model.Copy{Share: "docs", Snapshot: "s", Node: node, Sum: sum, Counts: counts}
	}
	judge(t, SnapshotsWhole([]model.Copy{one("n1", "x", true), one("n2", "x", true), one("n3", "", false)}))
	judge(t, SnapshotsWhole([]model.Copy{one("n1", "x", true), one("n2", "y", true)}), "docs/s", "differs", "n1", "n2")
	judge(t, SnapshotsWhole([]model.Copy{one("n1", "x", true), one("n2", "", true)}), "is not on node n2")
}

func TestDisksAndRows(t *testing.T) {
	judge(t, DisksAndRows([]model.Pool{{Node: "n1", Have: []string{"a"}, Want: []string{"a"}}}))
	judge(t, DisksAndRows([]model.Pool{{Node: "n1", Have: []string{"a", "b"}, Want: []string{"a"}}}), "n1", "b is on its disk")
	judge(t, DisksAndRows([]model.Pool{{Node: "n1", Have: nil, Want: []string{"a"}}}), "a is not on its disk")
}

func TestSameState(t *testing.T) {
	judge(t, SameState([]model.StateAt{at("n1", 7, "x", false), at("n2", 7, "x", false), at("n3", 8, "y", false)}))
	judge(t, SameState([]model.StateAt{at("n1", 7, "x", false), at("n2", 7, "y", false)}), "n2", "digest y at entry 7")
	judge(t, SameState([]model.StateAt{at("n1", 7, "x", true)}), "n1", "says that nodes differ")
}

func TestSettled(t *testing.T) {
	judge(t, Settled([]model.Transient{still("share/a", "creating", 3*second)}, 30*second))
	judge(t, Settled([]model.Transient{still("share/a", "creating", 31*second)}, 30*second), "share/a", "creating", "31s")
}

func TestRulesHold(t *testing.T) {
	judge(t, RulesHold([]model.Probe{tried("docs", "ann", "rw", true, true), tried("docs", "bob", "ro", true, false), tried("docs", "eve", "", false, false)}))
	judge(t, RulesHold([]model.Probe{tried("docs", "bob", "ro", true, true)}), `bob is granted "ro"`, "writing is possible: true")
	judge(t, RulesHold([]model.Probe{tried("docs", "ann", "rw", true, false)}), "writing is possible: false")
	judge(t, RulesHold([]model.Probe{tried("docs", "eve", "", true, false)}), "reading is possible: true")
}

func TestEvents(t *testing.T) {
	stream := func(watcher string, events ...model.Event) model.Stream {
		return model.Stream{Watcher: watcher, After: 1, Events: events, Newest: 3}
	}
	two, three := model.Event{Seq: 2, Index: 5, Kind: "a"}, model.Event{Seq: 3, Index: 5, Kind: "b"}
	judge(t, Events([]model.Stream{stream("w1", two, three), stream("w2", two, three)}))
	judge(t, Events([]model.Stream{stream("w1", three)}), "saw event 3 after event 1")
	judge(t, Events([]model.Stream{stream("w1", two, two, three)}), "saw event 2 after event 2")
	judge(t, Events([]model.Stream{stream("w1", two)}), "ended at event 2 of 3")
	judge(t, Events([]model.Stream{stream("w1", two, model.Event{Seq: 3, Index: 4, Kind: "b"})}), "entry 4 after one of entry 5")
	judge(t, Events([]model.Stream{stream("w1", two, three), stream("w2", two, model.Event{Seq: 3, Index: 5, Kind: "c"})}), "w2", "another watcher")
}

func TestTokensOnce(t *testing.T) {
	judge(t, TokensOnce([]model.Join{joined("t", "m1", true), joined("t", "m2", false), joined("t", "m1", true)}))
	judge(t, TokensOnce([]model.Join{joined("t", "m1", true), joined("t", "m2", true)}), "let m1 in, and m2 too")
}

// TestAll: every check is in the list, and a check that had nothing to look at says so.
func TestAll(t *testing.T) {
	verdicts := All(model.History{}, model.Final{}, Limits{Linear: second, Settle: second})
	if len(verdicts) != 10 {
		t.Errorf("%d checks", len(verdicts))
	}
	for _, v := range verdicts {
		if v.Looked != 0 || len(v.Violations) != 0 {
			t.Errorf("of an empty history %q says %+v", v.Check, v)
		}
	}
}
