package guard_test

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/cluster/guard"
)

// TestLogWithAGap has a follower install a snapshot of entry 20 while its log ends at 8, and take an entry after that; then another leads, whose
// log is the same up to 20 and whose snapshot is of entry 7. With the gap in the log the follower has the entry of that snapshot, so nothing
// says that what comes after the gap is in the way, and it is sent the snapshot for ever. With the guard it is found out.
func TestLogWithAGap(t *testing.T) {
	for _, test := range []struct {
		name    string
		guarded bool
	}{{"control: without the guard", false}, {"with the guard", true}} {
		t.Run(test.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { logWithAGap(t, test.guarded) }) })
	}
}

func logWithAGap(t *testing.T, guarded bool) {
	const ended, installed, sent = 8, 20, 7
	first, second := newMember("n1"), newMember("n2")
	connect([]*member{first, second})
	servers := raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "n1", Address: "n1"}, {Suffrage: raft.Nonvoter, ID: "n2", Address: "n2"},
	}}
	snapshot := func(m *member, index uint64) {
		sink, err := m.snaps.Create(1, index, 1, servers, 1, m.wire)
		check(t, err)
		check(t, sink.Close())
	}
	entry := func(index, term uint64) *raft.Log { return &raft.Log{Index: index, Term: term, Type: raft.LogNoop} }
	for index := uint64(sent); index <= installed; index++ {
		check(t, first.disk.StoreLog(entry(index, 1)))
	}
	snapshot(first, sent)
	check(t, first.stable.SetUint64([]byte("CurrentTerm"), 2))

	var logs raft.LogStore = second.disk
	if guarded {
		logs = &guard.Contiguous{LogStore: logs}
	}
	for index := uint64(sent - 1); index <= ended; index++ {
		check(t, logs.StoreLog(entry(index, 1)))
	}
	snapshot(second, installed)
	check(t, logs.StoreLog(entry(installed+1, 2)))
	check(t, logs.StoreLog(entry(installed+2, 2)))
	if kept := logs.GetLog(ended, new(raft.Log)) == nil; kept == guarded {
		t.Errorf("of before the snapshot there is something: %v", kept)
	}
	installs := guard.NewInstalls(second.snaps)
	second.snaps, second.logs = installs, logs

	first.start(t, false, heartbeat)
	second.start(t, false, heartbeat)
	defer stop(t, []*member{first, second})
	conflict, err := installs.Contradicts(<-installs.Loops(), second.disk)
	if err != nil || conflict != guarded {
		t.Errorf("the log is found to contradict the leader's: %v, %v", conflict, err)
	}
}
