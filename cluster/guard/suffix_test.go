package guard_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/cluster/guard"
)

// refusing is a log whose next writes fail; what it has to delete it deletes.
type refusing struct {
	*raft.InmemStore
	writes atomic.Int64
}

func (r *refusing) StoreLogs(logs []*raft.Log) error {
	if r.writes.Load() > 0 {
		r.writes.Add(-1)
		return syscall.ENOSPC
	}
	return r.InmemStore.StoreLogs(logs)
}

// TestSuffixOnAFullDisk has a follower, which led, take back entries that only it has, and fail to write what comes in their place. As the
// library comes it follows no more, though its disk is good again at once: it still believes in the entries that it took back. With
// the guard it follows.
func TestSuffixOnAFullDisk(t *testing.T) {
	for _, test := range []struct {
		name    string
		guarded bool
	}{{"control: without the guard", false}, {"with the guard", true}} {
		t.Run(test.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { suffixOnAFullDisk(t, test.guarded) }) })
	}
}

func suffixOnAFullDisk(t *testing.T, guarded bool) {
	first, second := newMember("n1"), newMember("n2")
	connect([]*member{first, second})
	servers := raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "n1", Address: "n1"}, {Suffrage: raft.Nonvoter, ID: "n2", Address: "n2"},
	}}
	entry := func(index, term uint64) *raft.Log {
		if index == 1 {
			return &raft.Log{Index: 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(servers)}
		}
		return &raft.Log{Index: index, Term: term, Type: raft.LogNoop}
	}
	full := &refusing{InmemStore: second.disk.InmemStore}
	const common, own = 3, 6
	for i := uint64(1); i <= own; i++ {
		if i <= common {
			check(t, first.disk.StoreLog(entry(i, 1)))
		}
		check(t, full.StoreLog(entry(i, 1)))
	}
	check(t, first.stable.SetUint64([]byte("CurrentTerm"), 2)) // its next entry is of a later term
	const failing = 2
	full.writes.Store(failing)
	var said bytes.Buffer
	second.logs = full
	if guarded {
		second.logs = &guard.Suffix{LogStore: full, Persistence: guard.Persistence{
			Stopped: make(chan struct{}), Logger: slog.New(slog.NewTextHandler(&said, nil)),
		}}
	}
	first.start(t, false, heartbeat)
	second.start(t, false, heartbeat)
	defer stop(t, []*member{first, second})
	if leader(t, []*member{first}, 10*time.Second) == nil {
		t.Fatal("nobody leads")
	}
	<-time.After(10 * time.Minute)
	if full.writes.Load() == failing {
		t.Error("no write has failed")
	}
	if followed := second.AppliedIndex() == first.AppliedIndex(); followed != guarded {
		t.Errorf("the follower has applied %d entries of %d", second.AppliedIndex(), first.AppliedIndex())
	}
	if guarded && !strings.Contains(said.String(), syscall.ENOSPC.Error()) {
		t.Errorf("said: %s", said.String())
	}
}

// TestSuffixLetsOtherErrorsPass: a write that replaces nothing is Raft's to cope with, and so is one after what replaced the end.
func TestSuffixLetsOtherErrorsPass(t *testing.T) {
	full := &refusing{InmemStore: raft.NewInmemStore()}
	log := &guard.Suffix{LogStore: full, Persistence: guard.Persistence{Stopped: make(chan struct{}), Logger: slog.New(slog.DiscardHandler)}}
	check(t, log.StoreLogs([]*raft.Log{{Index: 1}, {Index: 2}, {Index: 3}}))
	check(t, log.DeleteRange(1, 1)) // what a snapshot has made needless
	for range 2 {
		full.writes.Store(1)
		if err := log.StoreLog(&raft.Log{Index: 4}); err != syscall.ENOSPC {
			t.Errorf("write on a full disk: %v", err)
		}
		check(t, log.DeleteRange(3, 3))
		check(t, log.StoreLog(&raft.Log{Index: 3}))
	}
}
