package node

import (
	"context"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/failover"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/replication"
	"github.com/cairn-storage/cairn/rpc/server"
)

// ReplicationConfig says how what this node sends to standbys on other nodes is sent.
type ReplicationConfig struct {
	// Rate bounds what all streams of the node send together, in bytes per second, such as "100MiB"; empty does not.
	Rate string `toml:"rate"`
	// Compression is "none", which is the default, or "zstd".
	Compression string `toml:"compression"`
}

// minRate is less than any network has; below it a standby would take a stream for one that has stalled.
const minRate = 64 << 10

func (c *ReplicationConfig) check() error {
	_, err := c.rate()
	switch replication.Compression(c.Compression) {
	case "", replication.CompressNone, replication.CompressZstd:
		return err
	}
	return fmt.Errorf("replication.compression %q: want %s or %s: %w", c.Compression, replication.CompressNone, replication.CompressZstd, cairn.ErrInvalid)
}

// rate is in bytes per second, 0 if nothing bounds it.
func (c *ReplicationConfig) rate() (int64, error) {
	if c.Rate == "" {
		return 0, nil
	}
	rate, err := cairn.ParseSize(c.Rate)
	if err == nil && rate < minRate {
		err = fmt.Errorf("is less than %s: %w", cairn.FormatSize(minRate), cairn.ErrInvalid)
	}
	if err != nil {
		return 0, fmt.Errorf("replication.rate %q: want bytes per second, such as 100MiB: %w", c.Rate, err)
	}
	return rate, nil
}

// replicator is this node's part in replication. Its client and hints are there before the actor that uses them, and what
// uses the actor after it.
type replicator struct {
	connections *replication.Connections
	client      *replication.Client
	hints       *replication.Hints
	server      *replication.Server
	watcher     *replication.Watcher
}

func newReplicator(member *cluster.Node) *replicator {
	connections := &replication.Connections{Dial: member.Dial}
	return &replicator{
		connections: connections, client: replication.NewClient(connections.Conn, 0), hints: new(replication.Hints),
	}
}

// feed makes the parts that serve other nodes, and listen to them.
func (r *replicator) feed(config Config, member *cluster.Node, actor *replica.Actor, wake func(actors.Key)) {
	self := member.Identity().Node
	rate, _ := config.Replication.rate() // was checked when the configuration was read
	r.server = replication.NewServer(replication.ServerConfig{
		Self: self, Viewer: member, Source: actor, Hints: r.hints, Caller: cluster.Caller, Driller: newDriller(config, member, actor, r, wake),
		Rate: rate, Compression: replication.Compression(config.Replication.Compression),
	})
	r.watcher = &replication.Watcher{
		Self: self, State: member.Machine(), Conn: r.connections.Conn,
		Wake: func(id cairn.ReplicaID) { wake(replicaKey(id)) },
	}
}

// standbys is what the API shows of replication, and does on an operator's word.
type standbys struct {
	client   *replication.Client
	failover *failover.Controller
}

// SyncStates implements server.Replication.
func (s *standbys) SyncStates(ctx context.Context, node cairn.NodeID, ids []cairn.ReplicaID) ([]server.SyncState, error) {
	states, err := s.client.SyncStates(ctx, node, ids)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	out := make([]server.SyncState, len(states))
	for i, state := range states {
		out[i] = server.SyncState{
			Replica: state.Replica, Lag: -1, Behind: state.Behind, Received: state.Received, Total: state.Total, Error: state.Error,
		}
		if !state.AsOf.IsZero() {
			out[i].Lag = max(0, now.Sub(state.AsOf))
		}
	}
	return out, nil
}

// Waits implements server.Replication.
func (s *standbys) Waits(share cairn.ShareID) string { return s.failover.Reason(share) }

// Force implements server.Replication.
func (s *standbys) Force(ctx context.Context, meta fsm.Meta, share cairn.ShareID, replica cairn.ReplicaID) (time.Duration, error) {
	return s.failover.Force(ctx, meta, share, replica)
}
