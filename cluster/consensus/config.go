package consensus

import (
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/fsm"
)

// Config is what an engine needs. Timing may be zero, which means DefaultTiming.
type Config struct {
	Dir string // of the engine alone
	ID  raft.ServerID
	// Streams makes the stream layer of one Raft instance; its address is the node's. Closing it must not close the port.
	Streams func() raft.StreamLayer
	Machine *fsm.Machine
	Timing  Timing
	// Clock counts while the machine sleeps; it dates the proof of leadership.
	Clock func() time.Duration
	// Middleware, if set, wraps the log store, below the guards: for fault injection and measurement.
	Middleware func(raft.LogStore) raft.LogStore
	Logger     *slog.Logger
}

// Timing is every duration and threshold of Raft, so that tests can shorten them. It must be the same on all nodes.
type Timing struct {
	// Heartbeat is how long a follower waits for the leader before it stands, and a candidate for votes.
	Heartbeat time.Duration
	// Commit is how soon followers learn of a commit when nothing else is sent. Actors and readers on followers wait for it:
	// with 50 ms a read there right after a write took 80 ms, with 10 ms it costs each idle node one percent of a core more.
	Commit time.Duration
	// DiskLimit is how long a local write may take before a leader falls silent.
	DiskLimit time.Duration
	// RPC bounds one exchange with a peer; a snapshot gets as much for every 256 KiB.
	RPC time.Duration
	// Read bounds one round of proof that this node leads; callers' own deadlines may be shorter.
	Read time.Duration
	// Stop is how long an instance may take to stop. One whose disk hangs never does.
	Stop time.Duration
	// SnapshotEvery is how many commands are applied before the next snapshot; SnapshotCheck how often that is looked at.
	SnapshotEvery uint64
	SnapshotCheck time.Duration
	// TrailingLogs stay in the log after a snapshot, so that a follower that was away briefly needs no snapshot.
	TrailingLogs uint64
}

// DefaultTiming is for machines in one network.
func DefaultTiming() Timing {
	return Timing{
		Heartbeat:     300 * time.Millisecond,
		Commit:        10 * time.Millisecond,
		DiskLimit:     time.Second,
		RPC:           3 * time.Second,
		Read:          2 * time.Second,
		Stop:          10 * time.Second,
		SnapshotEvery: 65_536,
		SnapshotCheck: 2 * time.Minute,
		TrailingLogs:  10_240,
	}
}

// maxAppendEntries bounds a message to a follower that is behind: with full bundles it has 8 MiB, which even a slow network
// carries within Timing.RPC. It is also the size of the groups in which entries are written, of which few are away at a time.
//
// BatchApplyCh stays off: at 128 callers it gains a few percent, and it would leave callers without an answer when the
// engine stops.
const maxAppendEntries = 64

func (c *Config) raft(notify chan<- bool) *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = c.ID
	config.Logger = Logger(c.Logger)
	config.HeartbeatTimeout = c.Timing.Heartbeat
	config.ElectionTimeout = c.Timing.Heartbeat
	// A leader gives up when followers might, and not before: with half of it, a starved machine changed its leader every half minute though
	// no follower missed it. Nothing is granted or read on the strength of this time-out: see proveLeader.
	config.LeaderLeaseTimeout = c.Timing.Heartbeat
	config.CommitTimeout = c.Timing.Commit
	config.MaxAppendEntries = maxAppendEntries
	config.SnapshotThreshold = c.Timing.SnapshotEvery
	config.SnapshotInterval = c.Timing.SnapshotCheck
	config.TrailingLogs = c.Timing.TrailingLogs
	config.NoLegacyTelemetry = true
	config.ShutdownOnRemove = false // the node decides what removal means, once it knows of it
	config.NotifyCh = notify
	return config
}
