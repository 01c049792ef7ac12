package cluster_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
)

// TestWallClocksJump: the clocks on the wall of a node and of the others jump while the node's heartbeats stall. No lease is
// longer for that, and nobody is condemned sooner: when the node is committed as down it holds none.
func TestWallClocksJump(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		node, leaders time.Duration // by how much
	}{
		{"the node's goes back", -time.Hour, 0},
		{"the others' go forward", 0, time.Hour},
		{"they part", -time.Hour, time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var heartbeats stall
			var offsets [3]atomic.Int64
			c := clustertest.New(t)
			c.Configure = func(index int, config *cluster.Config) {
				config.Now = func() time.Time { return time.Now().Add(time.Duration(offsets[index].Load())) }
				if index == 2 {
					config.Free = heartbeats.free
				}
			}
			c.Grow(3)
			victim := c.Nodes[2]
			c.WaitFor("it holds a lease", func() bool { return victim.LeaseValid() && c.FindLeader() != nil })
			down, cancel := leaseWhenDown(victim)
			defer cancel()
			heartbeats.begin()
			offsets[0].Store(int64(test.leaders))
			offsets[1].Store(int64(test.leaders))
			offsets[2].Store(int64(test.node))
			select {
			case held := <-down:
				if held {
					t.Error("it held a lease when it was committed as down")
				}
			case <-time.After(time.Minute):
				t.Error("it was never committed as down")
			}
			if victim.LeaseValid() {
				t.Error("it holds a lease while it is down")
			}
			heartbeats.end()
		})
	}
}
