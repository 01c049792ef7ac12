package cluster_test

import (
	"sync/atomic"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
	"github.com/cairn-storage/cairn/fsm"
)

// stall holds up the heartbeats of a server, while everything else of it goes on.
type stall struct{ wait atomic.Pointer[chan struct{}] }

// free is the server's Config.Free, which each heartbeat calls.
func (s *stall) free() map[cairn.PoolID]int64 {
	if wait := s.wait.Load(); wait != nil {
		<-*wait
	}
	return nil
}

func (s *stall) begin() {
	wait := make(chan struct{})
	s.wait.Store(&wait)
}

func (s *stall) end() { close(*s.wait.Swap(nil)) }

// leaseWhenDown receives whether a server holds a lease at the moment at which it is committed as down.
func leaseWhenDown(s *clustertest.Server) (held <-chan bool, cancel func()) {
	down := make(chan bool, 1)
	return down, s.Machine().Subscribe(func([]fsm.Change) {
		if s.View().Node(s.Identity().Node).State == cairn.NodeDown {
			select {
			case down <- s.LeaseValid():
			default:
			}
		}
	})
}

// TestLeaseEndsBeforeTheNodeIsDown lets a node's heartbeats stall while everything else of it goes on: it must have no lease
// when the others commit that it is down, and get none before they commit that it is up.
func TestLeaseEndsBeforeTheNodeIsDown(t *testing.T) {
	t.Parallel()
	var heartbeats stall
	c := clustertest.New(t)
	c.Configure = func(index int, config *cluster.Config) {
		if index == 2 {
			config.Free = heartbeats.free
		}
	}
	c.Grow(3)
	victim := c.Nodes[2]
	id := victim.Identity().Node
	c.WaitFor("it holds a lease", func() bool { return victim.LeaseValid() })
	down, cancel := leaseWhenDown(victim)
	defer cancel()
	heartbeats.begin()
	if <-down {
		t.Error("it held a lease when it was committed as down")
	}
	if victim.LeaseValid() {
		t.Error("it holds a lease while it is down")
	}
	heartbeats.end()
	c.WaitFor("it holds a lease again", func() bool { return victim.LeaseValid() })
	if state := c.Leader().View().Node(id).State; state != cairn.NodeUp {
		t.Errorf("it holds a lease, and is committed as %s", state)
	}
}

// TestWithheldLease: it has run out when Withhold returns, although the node is up, and comes back when it is released.
func TestWithheldLease(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t)
	c.Grow(3)
	victim := c.Nodes[2]
	id := victim.Identity().Node
	c.WaitFor("its lease is withheld", func() bool {
		leader := c.Leader()
		holds, release, err := leader.Withhold(t.Context(), id)
		if err != nil {
			return false // the leader has changed
		}
		valid := victim.LeaseValid()
		if _, err := leader.ReadView(t.Context()); valid && err == nil && holds() { // so nobody else has led meanwhile
			t.Error("it holds a lease that is withheld")
		}
		release(0)
		return holds()
	})
	c.WaitFor("it holds a lease again", func() bool { return victim.LeaseValid() })
	c.WaitFor("one that does not lead cannot withhold", func() bool {
		for _, node := range c.Nodes {
			if node != c.Leader() {
				_, _, err := node.Withhold(t.Context(), id)
				return err != nil
			}
		}
		return false
	})
}
