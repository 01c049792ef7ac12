package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/cairn-storage/cairn/cluster/consensus"
)

// The settings that package cluster/consensus gives Raft beyond its timing, but for the entries in a group: its callers do not
// share entries, so a small group would hold them up. The probe is to be the same Raft with nothing around it.
const (
	maxAppendEntries = 1024
	logCache         = 2 * maxAppendEntries
	maxRPCsInFlight  = 1
)

// rawRaft is a member of a Raft cluster over plain TCP whose state machine does nothing.
type rawRaft struct {
	*raft.Raft
	transport *raft.NetworkTransport
	stores    []*raftboltdb.BoltStore
}

// rawCluster is three members.
type rawCluster []*rawRaft

// newRawRaft starts three members, with their files in dir.
func newRawRaft(b *testing.B, dir string) rawCluster {
	b.Helper()
	var members rawCluster
	var configuration raft.Configuration
	for i := range 3 {
		id := raft.ServerID(fmt.Sprint(i))
		member, err := openRawRaft(filepath.Join(dir, string(id)), id)
		if err != nil {
			b.Fatal(err)
		}
		members = append(members, member)
		configuration.Servers = append(configuration.Servers, raft.Server{ID: id, Address: member.transport.LocalAddr()})
	}
	b.Cleanup(func() {
		for _, member := range members {
			if err := member.close(); err != nil {
				b.Error(err)
			}
		}
	})
	if err := members[0].BootstrapCluster(configuration).Error(); err != nil {
		b.Fatal(err)
	}
	if _, err := members.leader(b.Context()); err != nil {
		b.Fatal(err)
	}
	return members
}

// leader waits for one.
func (c rawCluster) leader(ctx context.Context) (*raft.Raft, error) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		for _, member := range c {
			if member.State() == raft.Leader {
				return member.Raft, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

// applier commits entries of a size. A leader that a busy machine has deposed costs what it costs: finding the next one is in
// the time.
func (c rawCluster) applier(command []byte) func(ctx context.Context, n int) error {
	return func(ctx context.Context, _ int) error {
		for {
			leader, err := c.leader(ctx)
			if err != nil {
				return err
			}
			err = leader.Apply(command, 10*time.Second).Error()
			if !errors.Is(err, raft.ErrNotLeader) && !errors.Is(err, raft.ErrLeadershipLost) {
				return err
			}
		}
	}
}

func openRawRaft(dir string, id raft.ServerID) (*rawRaft, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	r := &rawRaft{}
	for _, name := range []string{"log.db", "vote.db"} {
		store, err := raftboltdb.New(raftboltdb.Options{
			Path:        filepath.Join(dir, name),
			BoltOptions: &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		})
		if err != nil {
			return nil, err
		}
		r.stores = append(r.stores, store)
	}
	logs, err := raft.NewLogCache(logCache, r.stores[0])
	if err != nil {
		return nil, err
	}
	logger := hclog.NewNullLogger()
	r.transport, err = raft.NewTCPTransportWithConfig("127.0.0.1:0", nil, &raft.NetworkTransportConfig{
		MaxPool: 3, MaxRPCsInFlight: maxRPCsInFlight, Timeout: 3 * time.Second, Logger: logger, MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, err
	}
	timing := consensus.DefaultTiming()
	config := raft.DefaultConfig()
	config.LocalID, config.Logger, config.NoLegacyTelemetry = id, logger, true
	config.HeartbeatTimeout, config.ElectionTimeout = timing.Heartbeat, timing.Heartbeat
	config.LeaderLeaseTimeout, config.CommitTimeout = timing.Heartbeat/2, timing.Commit
	config.MaxAppendEntries, config.TrailingLogs = maxAppendEntries, timing.TrailingLogs
	config.SnapshotThreshold, config.SnapshotInterval = timing.SnapshotEvery, timing.SnapshotCheck
	r.Raft, err = raft.NewRaft(config, nothing{}, logs, r.stores[1], raft.NewDiscardSnapshotStore(), r.transport)
	return r, err
}

func (r *rawRaft) close() error {
	err := errors.Join(r.Shutdown().Error(), r.transport.Close())
	for _, store := range r.stores {
		err = errors.Join(err, store.Close())
	}
	return err
}

// nothing is a state machine without a state.
type nothing struct{}

// Apply implements raft.FSM.
func (nothing) Apply(*raft.Log) any { return nil }

// ApplyBatch implements raft.BatchingFSM.
func (nothing) ApplyBatch(logs []*raft.Log) []any { return make([]any, len(logs)) }

// Snapshot implements raft.FSM.
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }

// Restore implements raft.FSM.
func (nothing) Restore(source io.ReadCloser) error { return source.Close() }

// Persist implements raft.FSMSnapshot.
func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }

// Release implements raft.FSMSnapshot.
func (nothing) Release() {}

// consensusHeartbeat is how long a follower waits for a dead leader before it stands.
func consensusHeartbeat() time.Duration { return consensus.DefaultTiming().Heartbeat }
