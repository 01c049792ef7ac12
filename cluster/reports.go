package cluster

import (
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/lease"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// reports is the soft state of a term: what each node said in its newest heartbeat. A decision that uses it writes what it
// used into its command.
type reports struct {
	clock lease.Clock

	mu    sync.Mutex
	nodes map[cairn.NodeID]report
	pools map[cairn.PoolID]int64
}

type report struct {
	at       time.Duration
	skew     time.Duration // of the node's wall clock; positive is ahead
	lastLog  uint64
	lastTerm uint64
	applied  uint64
	diverged uint64
}

func newReports(clock lease.Clock) *reports {
	return &reports{clock: clock, nodes: make(map[cairn.NodeID]report), pools: make(map[cairn.PoolID]int64)}
}

// put stores a heartbeat. A node speaks for its own pools only.
func (r *reports) put(node cairn.NodeID, request *peerv1.HeartbeatRequest, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes[node] = report{
		at: r.clock(), skew: time.Duration(request.GetWallTime() - now.UnixNano()),
		lastLog: request.GetLastLogIndex(), lastTerm: request.GetLastLogTerm(),
		applied: request.GetAppliedIndex(), diverged: request.GetDivergedAt(),
	}
	for _, pool := range request.GetPools() {
		id := cairn.PoolID(pool.GetPoolId())
		if owner, _ := id.Split(); owner == node {
			r.pools[id] = pool.GetFreeBytes()
		}
	}
}

// free is -1 if the pool has not been heard of in this term.
func (r *reports) free(pool cairn.PoolID) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if free, ok := r.pools[pool]; ok {
		return free
	}
	return -1
}

// of returns a node's newest report and its age.
func (r *reports) of(node cairn.NodeID) (report, time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest, ok := r.nodes[node]
	return newest, r.clock() - newest.at, ok
}
