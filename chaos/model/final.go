package model

import "time"

// Final is what was found after everything had been healed.
type Final struct {
	States    []StateAt
	Transient []Transient
	Shares    []Contents
	Copies    []Copy
	Pools     []Pool
	Probes    []Probe
	Streams   []Stream
	Joins     []Join
}

// StateAt is the replicated state as one node has it.
type StateAt struct {
	Node     string
	Index    uint64
	Digest   string
	Diverged bool // the node itself says that others differ
}

// Transient is a state that has to end by itself, as it was seen after healing.
type Transient struct {
	Resource string
	State    string
	For      time.Duration // from healing, or from when it was first seen, to when it was last seen
}

// Contents is what one share holds in the end: sums by path.
type Contents struct {
	Share string
	Files map[string]string
	// Kept is what snapshots hold that earlier active replicas left, of all nodes together.
	Kept map[string]string
	// DiskLost says that a disk with a replica was taken away meanwhile, and with it maybe what was kept on it.
	DiskLost bool
}

// Copy is a snapshot, acknowledged as available, on the node of one replica.
type Copy struct {
	Share, Snapshot, Node string
	Counts                bool   // the replica is active or in sync
	Sum                   string // of everything in it; "" if it is not there
}

// Pool is what lies on one node's disk, and what the rows say should.
type Pool struct {
	Node       string
	Have, Want []string
}

// Probe is one client trying one share.
type Probe struct {
	Share, Who  string
	Granted     string // "rw", "ro" or ""
	Read, Write bool   // what it could do
}

// Event is one line of the history that the cluster keeps.
type Event struct {
	Seq, Index uint64
	At         time.Duration // when it was decided, by the leader's clock, since the run began
	Kind       string
	Project    string
	Resource   string
	Message    string
}

// Stream is what one watcher saw, over all its connections: each resumes where the last ended.
type Stream struct {
	Watcher string
	After   uint64 // where it began
	Events  []Event
	Newest  uint64 // the newest event there is, when it was ended
}

// Join is a machine that used a token.
type Join struct {
	Token, Machine string
	Joined         bool
}
