package failover_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
	"github.com/cairn-storage/cairn/failover"
	"github.com/cairn-storage/cairn/fsm"
)

// TestLeaderAndActivesDie: over real Raft, the node that leads the cluster and serves a thousand shares is killed. The next
// leader fails all of them over.
func TestLeaderAndActivesDie(t *testing.T) {
	const shares = 1000
	c := clustertest.New(t)
	// A thousand shares keep a busy machine from answering for a while.
	c.Timing.Raft.Heartbeat, c.Timing.Lease.TTL = 500*time.Millisecond, 3*time.Second
	ready := make(chan struct{})
	c.Configure = func(index int, config *cluster.Config) {
		config.Duties = []func(context.Context){func(ctx context.Context) {
			select {
			case <-ready:
			case <-ctx.Done():
				return
			}
			node := c.Nodes[index].Node
			failover.New(failover.Config{
				Viewer: node, Applier: node, Changes: node.Machine(), Asker: answers{}, Leases: node, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			}).Run(ctx)
		}}
	}
	c.Grow(3)
	victim, survivor := c.Nodes[0], c.Nodes[1]
	id := victim.Identity().Node
	makeShares(t, c, id, shares)
	close(ready)
	c.WaitFor("the node with the active replicas leads", func() bool {
		if leader := c.FindLeader(); leader != nil && leader != victim {
			_ = leader.TransferLeadership(t.Context(), id) // under load, another election may come between
		}
		return victim.IsLeader()
	})
	var down, last time.Time
	var times sync.Mutex
	defer survivor.Machine().Subscribe(func(changes []fsm.Change) {
		times.Lock()
		defer times.Unlock()
		for _, change := range changes {
			switch change.Table {
			case fsm.TableNodes:
				down = time.Now()
			case fsm.TableShares:
				last = time.Now()
			}
		}
	})()
	began := time.Now()
	c.Kill(0)
	c.WaitFor("all shares are served by others", func() bool {
		for share := range survivor.View().Shares("") {
			if survivor.View().Replica(share.Active).Node == id {
				return false
			}
		}
		return true
	})
	times.Lock()
	defer times.Unlock()
	t.Logf("%d shares: down after %s, all failed over another %s later", shares, down.Sub(began).Round(time.Millisecond), last.Sub(down).Round(time.Millisecond))
	for share := range survivor.View().Shares("") {
		if row := survivor.View().Replica(share.Active); row.Epoch != 2 {
			t.Fatalf("share %s: epoch %d", share.Name, row.Epoch)
		}
	}
}

// answers says of every standby that it has the first sync point.
type answers struct{}

func (answers) SyncStates(_ context.Context, _ cairn.NodeID, ids []cairn.ReplicaID) (states []replica.SyncState, _ error) {
	now := time.Now()
	for _, id := range ids {
		states = append(states, replica.SyncState{Replica: id, Newest: replica.SyncPoint{Epoch: 1, Seq: 1, At: now}.ID(), AsOf: now})
	}
	return states, nil
}

// makeShares makes shares whose active replica is on a node, with a standby in sync on one of the others.
func makeShares(t *testing.T, c *clustertest.Cluster, active cairn.NodeID, n int) {
	t.Helper()
	var home cairn.PoolID
	var others []cairn.PoolID
	for pool := range c.Leader().View().Pools() {
		row := *pool
		row.Capabilities = []cairn.Capability{cairn.CapReplicate}
		propose(c, &fsm.RegisterPools{Node: row.Node, Pools: []cairn.Pool{row}})
		if row.Node == active {
			home = row.ID
		} else {
			others = append(others, row.ID)
		}
	}
	propose(c, &fsm.CreateType{Type: cairn.ShareType{Name: "ha", Format: cairn.FormatFiles, Replication: cairn.ReplicationDR, Failover: cairn.FailoverAuto}})
	var commands []fsm.Command
	for i := range n {
		name := fmt.Sprintf("s%04d", i)
		commands = append(commands, &fsm.CreateShare{
			Share: cairn.Share{
				ID: cairn.ShareID(name), Project: cairn.DefaultProject, Name: name, Format: cairn.FormatFiles,
				Protocol: cairn.ProtocolWebDAV, Type: "ha", Size: 1 << 20,
			},
			Replicas: []fsm.Placement{
				{ID: cairn.ReplicaID(name + "-1"), Pool: home}, {ID: cairn.ReplicaID(name + "-2"), Pool: others[i%len(others)]},
			},
		})
	}
	var makers sync.WaitGroup
	leader := c.Leader()
	for some := range slices.Chunk(commands, n/50) {
		makers.Go(func() {
			for _, command := range some {
				_, _ = leader.Apply(t.Context(), clustertest.Meta(), command) // most of them, soon
			}
		})
	}
	makers.Wait()
	for _, command := range commands {
		if leader.View().Share(command.(*fsm.CreateShare).Share.ID) == nil {
			propose(c, command)
		}
	}
	for _, pool := range append([]cairn.PoolID{home}, others...) {
		node, _ := pool.Split()
		reports := &fsm.ReportReplicas{Node: node}
		for row := range c.Leader().View().ReplicasIn(pool) {
			reports.Reports = append(reports.Reports, fsm.ReportReplica{
				Node: row.Node, Replica: row.ID, Generation: row.Generation, Epoch: row.Epoch,
				Have: cairn.ReplicaHave{Presence: cairn.Present, Size: row.Want.Size, InSync: pool != home},
			})
		}
		propose(c, reports)
	}
}

// propose applies a command that may be applied twice, whoever leads.
func propose(c *clustertest.Cluster, command fsm.Command) {
	c.WaitFor(fmt.Sprintf("%T", command), func() bool {
		leader := c.FindLeader()
		if leader == nil {
			return false
		}
		result, err := leader.Apply(context.Background(), clustertest.Meta(), command)
		return errors.Join(append(result.Each, err, result.Err)...) == nil
	})
}
