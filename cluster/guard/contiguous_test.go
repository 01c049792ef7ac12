package guard_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/cluster/guard"
)

// TestLogBesideASnapshot: as the library comes, a follower whose log does not go on from its snapshot refuses what a leader sends, and is sent the
// leader's snapshot for ever. With the guard it follows.
func TestLogBesideASnapshot(t *testing.T) {
	for _, test := range []struct {
		name string
		pair func(*pair)
	}{
		// It has installed a snapshot of entry 20 when its log ended at 8, and two entries since. Now another leads, whose log is the same up to 20.
		// The follower has no entry 20, and what comes after 8 is missing.
		{"its log has a gap", func(p *pair) {
			p.leads(p.entries(7, 20, 1), guard.Point{Index: 7, Term: 1})
			p.has(p.entries(6, 8, 1))
			p.takes(p.second, guard.Point{Index: 20, Term: 1})
			p.has(p.entries(21, 22, 2))
		}},
		// It has entries that nobody else has, more than are kept when it installs the leader's snapshot: the one at its index goes.
		{"its log begins after it", func(p *pair) {
			p.second.trailing = 3
			p.leads(nil, guard.Point{Index: 5, Term: 2})
			p.has(p.entries(1, 9, 1))
		}},
	} {
		for _, guarded := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, guarded: %v", test.name, guarded), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t, guarded)
					test.pair(p)
					p.run()
				})
			})
		}
	}
}

// pair is a leader as the library comes, and a follower.
type pair struct {
	*testing.T
	guarded       bool
	servers       raft.Configuration
	first, second *member
	installs      *guard.Installs // of the follower
}

func newPair(t *testing.T, guarded bool) *pair {
	p := &pair{T: t, guarded: guarded, first: newMember("n1"), second: newMember("n2")}
	connect([]*member{p.first, p.second})
	p.servers.Servers = []raft.Server{{Suffrage: raft.Voter, ID: "n1", Address: "n1"}, {Suffrage: raft.Nonvoter, ID: "n2", Address: "n2"}}
	check(t, p.first.stable.SetUint64([]byte("CurrentTerm"), 2))
	var err error
	p.installs, err = guard.NewInstalls(p.second.snaps)
	check(t, err)
	p.second.snaps, p.second.logs = p.installs, p.second.disk
	if guarded {
		p.second.logs = &guard.Contiguous{LogStore: p.second.disk, Snapshots: p.installs}
	}
	return p
}

func (p *pair) entries(from, to, term uint64) (logs []*raft.Log) {
	for index := from; index <= to; index++ {
		entry := &raft.Log{Index: index, Term: term, Type: raft.LogNoop}
		if index == 1 {
			entry.Type, entry.Data = raft.LogConfiguration, raft.EncodeConfiguration(p.servers)
		}
		logs = append(logs, entry)
	}
	return logs
}

func (p *pair) takes(m *member, at guard.Point) {
	sink, err := m.snaps.Create(1, at.Index, at.Term, p.servers, 1, m.wire)
	check(p.T, err)
	check(p.T, sink.Close())
}

func (p *pair) leads(logs []*raft.Log, snapshot guard.Point) {
	check(p.T, p.first.disk.StoreLogs(logs))
	p.takes(p.first, snapshot)
}

func (p *pair) has(logs []*raft.Log) { check(p.T, p.second.logs.StoreLogs(logs)) }

func (p *pair) run() {
	p.first.start(p.T, false, heartbeat)
	p.second.start(p.T, false, heartbeat)
	defer stop(p.T, []*member{p.first, p.second})
	if p.guarded {
		<-time.After(10 * time.Second)
	} else {
		for range 10 {
			<-p.installs.Loops() // three installs each, and no time passes
		}
	}
	if followed := p.second.AppliedIndex() == p.first.AppliedIndex(); followed != p.guarded {
		p.Errorf("the follower has applied %d entries of %d", p.second.AppliedIndex(), p.first.AppliedIndex())
	}
}

// TestEntryBeforeTheLog: the term of a snapshot stands for its entry where the log goes on from it, and nowhere else.
func TestEntryBeforeTheLog(t *testing.T) {
	for _, test := range []struct {
		name     string
		snapshot uint64
		log      []uint64 // indexes
		asked    uint64
		known    bool
	}{
		{"the log goes on from the snapshot", 20, []uint64{21, 22}, 20, true},
		{"an entry before that", 20, []uint64{21, 22}, 19, false},
		{"the log ends before the snapshot, which has not been taken in yet", 20, []uint64{18, 19}, 20, false},
		{"the log goes on from an older snapshot", 22, []uint64{21, 22}, 20, false},
		{"no log", 20, nil, 20, false},
		{"the first entry of all", 1, []uint64{2}, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := raft.NewInmemSnapshotStore()
			sink, err := store.Create(1, test.snapshot, 7, raft.Configuration{}, 1, nil)
			check(t, err)
			check(t, sink.Close())
			installs, err := guard.NewInstalls(store)
			check(t, err)
			logs := &guard.Contiguous{LogStore: raft.NewInmemStore(), Snapshots: installs}
			for _, index := range test.log {
				check(t, logs.StoreLog(&raft.Log{Index: index, Term: 8}))
			}
			var entry raft.Log
			switch err := logs.GetLog(test.asked, &entry); {
			case test.known && (err != nil || entry.Index != test.asked || entry.Term != 7):
				t.Errorf("entry %+v: %v", entry, err)
			case !test.known && err != raft.ErrLogNotFound:
				t.Errorf("entry %+v: %v", entry, err)
			}
		})
	}
}

// TestGapWithoutASnapshot: nothing is deleted for an entry that does not follow, unless a snapshot has what is missing.
func TestGapWithoutASnapshot(t *testing.T) {
	installs, err := guard.NewInstalls(raft.NewInmemSnapshotStore())
	check(t, err)
	logs := &guard.Contiguous{LogStore: raft.NewInmemStore(), Snapshots: installs}
	check(t, logs.StoreLog(&raft.Log{Index: 8}))
	if err := logs.StoreLog(&raft.Log{Index: 10}); err == nil {
		t.Error("an entry was stored behind a gap")
	}
	check(t, logs.GetLog(8, new(raft.Log)))
}
