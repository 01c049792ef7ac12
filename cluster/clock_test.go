package cluster_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
	"github.com/cairn-storage/cairn/fsm"
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
			var stalled atomic.Pointer[chan struct{}]
			var offsets [3]atomic.Int64
			c := clustertest.New(t)
			c.Configure = func(index int, config *cluster.Config) {
				config.Now = func() time.Time { return time.Now().Add(time.Duration(offsets[index].Load())) }
				if index == 2 {
					config.Free = func() map[cairn.PoolID]int64 {
						if wait := stalled.Load(); wait != nil {
							<-*wait
						}
						return nil
					}
				}
			}
			c.Grow(3)
			victim := c.Nodes[2]
			id := victim.Identity().Node
			c.WaitFor("it holds a lease", func() bool { return victim.LeaseValid() && c.FindLeader() != nil })
			down := make(chan bool, 1)
			defer victim.Machine().Subscribe(func([]fsm.Change) {
				if victim.View().Node(id).State == cairn.NodeDown {
					select {
					case down <- victim.LeaseValid():
					default:
					}
				}
			})()
			wait := make(chan struct{})
			stalled.Store(&wait)
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
			stalled.Store(nil)
			close(wait)
		})
	}
}
