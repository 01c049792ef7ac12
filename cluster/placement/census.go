package placement

import (
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// Census knows about how many active replicas each node has. Counting walks all replicas, so it counts again only when
// the log has grown by as many entries as there were replicas: a placement costs the same however many shares there are,
// and what a weigher needs is the proportion, not the number. The zero value is ready; it is safe for concurrent use.
type Census struct {
	mu      sync.Mutex
	index   uint64 // of the view that was counted
	again   uint64 // the index to count again at
	leaders map[cairn.NodeID]int
}

// censusMin is the least number of log entries between two counts.
const censusMin = 16

// Leaders returns the count. The caller must not change it.
func (c *Census) Leaders(v *fsm.View) map[cairn.NodeID]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaders != nil && v.Index() >= c.index && v.Index() < c.again {
		return c.leaders
	}
	c.leaders = make(map[cairn.NodeID]int)
	replicas := uint64(0)
	for r := range v.Replicas() {
		replicas++
		if r.Role == cairn.RoleActive {
			c.leaders[r.Node]++
		}
	}
	c.index = v.Index()
	c.again = c.index + max(censusMin, replicas)
	return c.leaders
}
