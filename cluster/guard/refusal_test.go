package guard_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestFollowerWithAFullDisk has the disk of a follower full for as long as a leader as the library comes needs to go back, an entry per attempt,
// to the beginning of its log. It then sends its snapshot, and the follower installs that, though it has applied more. With the guard
// the follower stays where it is, and goes on from there.
func TestFollowerWithAFullDisk(t *testing.T) {
	for _, test := range []struct {
		name    string
		guarded bool
	}{{"control: without the guard", false}, {"with the guard", true}} {
		t.Run(test.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { followerWithAFullDisk(t, test.guarded) }) })
	}
}

func followerWithAFullDisk(t *testing.T, guarded bool) {
	first, second := newMember("n1"), newMember("n2")
	connect([]*member{first, second})
	full := &refusing{InmemStore: second.disk.InmemStore}
	second.logs, first.trailing = full, 1
	first.start(t, guarded, heartbeat)
	second.start(t, false, heartbeat)
	defer stop(t, []*member{first, second})
	check(t, first.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "n1"}}}).Error())
	if leader(t, []*member{first}, 10*time.Second) == nil {
		t.Fatal("nobody leads")
	}
	check(t, first.AddNonvoter("n2", "n2", 0, 0).Error())
	write := func(n int) {
		for range n {
			check(t, first.Apply([]byte("x"), time.Second).Error())
		}
	}
	write(5)
	<-time.After(time.Second) // the follower has it, and needs no snapshot
	check(t, first.Snapshot().Error())
	write(5)
	<-time.After(time.Second)
	before := second.AppliedIndex()
	if before != first.AppliedIndex() {
		t.Fatalf("the follower has applied %d entries of %d", before, first.AppliedIndex())
	}
	full.writes.Store(math.MaxInt64)
	write(1)
	back := false
	for began := time.Now(); !back && time.Since(began) < 1000*time.Second; {
		<-time.After(10 * time.Millisecond)
		back = second.AppliedIndex() < before
	}
	if back == guarded {
		t.Errorf("the follower has gone back: %v", back)
	}
	full.writes.Store(0)
	if !guarded {
		return
	}
	<-time.After(time.Minute)
	if second.AppliedIndex() != first.AppliedIndex() {
		t.Errorf("the disk is good again, and the follower has applied %d entries of %d", second.AppliedIndex(), first.AppliedIndex())
	}
}
