package cluster_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
)

// faultyLog is a log store on a disk that can be full or hang.
type faultyLog struct {
	raft.LogStore
	full atomic.Bool
	hung atomic.Pointer[chan struct{}]
}

func (l *faultyLog) StoreLogs(logs []*raft.Log) error {
	if l.full.Load() {
		return syscall.ENOSPC
	}
	if wait := l.hung.Load(); wait != nil {
		<-*wait
	}
	return l.LogStore.StoreLogs(logs)
}

func startFaulty(t *testing.T, n int) (*clustertest.Cluster, []*faultyLog) {
	t.Helper()
	c := clustertest.New(t)
	c.Timing.Raft.DiskLimit = 500 * time.Millisecond
	logs := make([]*faultyLog, n)
	c.Configure = func(index int, config *cluster.Config) {
		config.Middleware = func(inner raft.LogStore) raft.LogStore {
			logs[index] = &faultyLog{LogStore: inner}
			return logs[index]
		}
	}
	c.Grow(n)
	return c, logs
}

// TestFullDiskUnderTheLeader: the write that met it is answered as what it is, the others go on with another leader, and
// the node follows again when there is space.
func TestFullDiskUnderTheLeader(t *testing.T) {
	t.Parallel()
	c, logs := startFaulty(t, 3)
	old := c.Leader()
	full := logs[c.Index(old)]
	full.full.Store(true)
	err := clustertest.Write(t.Context(), old, "x")
	if !errors.Is(err, cairn.ErrUnknownOutcome) || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Errorf("got %v, want %v because of %v", err, cairn.ErrUnknownOutcome, syscall.ENOSPC)
	}
	c.WaitFor("a write on another leader", func() bool {
		leader := c.FindLeader()
		return leader != nil && leader != old && clustertest.Write(t.Context(), leader, "y") == nil
	})
	full.full.Store(false)
	c.WaitFor("the node catches up", func() bool { return old.View().Type("y") != nil })
}

// TestFullDiskEverywhere: nothing can be written, nothing is lost, and it goes on by itself when there is space.
func TestFullDiskEverywhere(t *testing.T) {
	t.Parallel()
	c, logs := startFaulty(t, 3)
	writeAnywhere(t, c, "before")
	for _, l := range logs {
		l.full.Store(true)
	}
	if err := clustertest.Write(t.Context(), c.Leader(), "x"); err == nil {
		t.Error("a write was acknowledged that nobody could store")
	}
	for _, l := range logs {
		l.full.Store(false)
	}
	writeAnywhere(t, c, "after")
	mustRead(t, c, c.Leader(), "before")
}

// TestHungDiskUnderTheLeader is the guard in the real thing: TLS, bbolt, leases.
func TestHungDiskUnderTheLeader(t *testing.T) {
	t.Parallel()
	c, logs := startFaulty(t, 3)
	old := c.Leader()
	wait := make(chan struct{})
	hung := logs[c.Index(old)]
	hung.hung.Store(&wait)
	release := sync.OnceFunc(func() {
		hung.hung.Store(nil)
		close(wait)
	})
	defer release()
	lost := make(chan error, 1)
	go func() { lost <- clustertest.Write(t.Context(), old, "x") }()
	began := time.Now()
	c.WaitFor("a write on another leader", func() bool {
		for _, s := range c.Nodes {
			if s != old && s.IsLeader() {
				return clustertest.Write(t.Context(), s, "y") == nil
			}
		}
		return false
	})
	t.Logf("another leader wrote after %s", time.Since(began))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	// It takes no part in Raft, and all the same it hears who leads, so it can ask for leases there.
	c.WaitFor("the hung node knows the new leader", func() bool {
		leader, address := old.Leader()
		_, at := c.Leader().Leader()
		return leader != old.Identity().Node && leader == c.Leader().Identity().Node && address == at && !old.IsLeader()
	})
	c.WaitFor("a lease from the new leader", old.LeaseValid)
	// The state of the hung one stands still, so a read there must fail rather than be stale.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if view, err := old.ReadView(ctx); err == nil && view.Type("y") == nil {
		t.Error("a stale read on the hung node")
	}
	release()
	if err := <-lost; !errors.Is(err, cairn.ErrUnknownOutcome) {
		t.Errorf("the write that hung: %v, want %v", err, cairn.ErrUnknownOutcome)
	}
	c.WaitFor("it is back with a lease", func() bool { return old.LeaseValid() && old.View().Type("y") != nil })
}
