package cairn

import (
	"math"
	"math/bits"
)

// Node is a machine of the cluster.
type Node struct {
	ID          NodeID
	Name        string
	Address     string // host:port of the one TCP port (gRPC, Raft, data)
	HTTPAddress string // host:port of the HTTP port (WebDAV, metrics)
	Zone        string
	Labels      map[string]string
	State       NodeState
	Draining    bool
	// CommandVersion is the newest version of the replicated commands that the node understands.
	CommandVersion uint32
	JoinedAt       int64
}

// Ref points to the node.
func (n *Node) Ref() Ref { return Ref{Kind: KindNode, ID: string(n.ID), Name: n.Name} }

// Pool is a place for replicas on a node. Total, Capabilities and the ratios are reported by the node when it starts and
// when they change; free and used bytes are telemetry and are not replicated.
type Pool struct {
	ID                      PoolID
	Node                    NodeID
	Name                    string
	Driver                  string
	Capabilities            []Capability // sorted
	Protocols               []Protocol   // sorted
	Total                   int64
	ReservedPercent         int64 // never provisioned; 0 to 99
	OverSubscriptionPercent int64 // of what is not reserved; 100 = none, at least 100
	Frozen                  bool  // no new replicas (freeze, thaw)
	Fault                   Fault
	Notes                   []string // what the operator should know of it, such as who enforces sizes; in the driver's words
}

// Ref points to the pool.
func (p *Pool) Ref() Ref { return Ref{Kind: KindPool, ID: string(p.ID), Name: p.Name} }

// Provisionable is how many bytes may be promised on the pool, by Manila's rule for thin pools:
// (total - reserved) * over-subscription, rounded down. It saturates instead of overflowing.
func (p *Pool) Provisionable() int64 {
	ratio := max(p.OverSubscriptionPercent, 100)
	high, low := bits.Mul64(uint64(max(p.Total, 0)), uint64(100-p.ReservedPercent)*uint64(ratio))
	if high >= 100*100 {
		return math.MaxInt64
	}
	bytes, _ := bits.Div64(high, low, 100*100)
	return int64(min(bytes, math.MaxInt64))
}

// Capability is something that a pool driver implements.
type Capability string

// Capabilities, one for each optional interface of the driver contract.
const (
	CapSnapshot Capability = "snapshot"
	CapRevert   Capability = "revert"
	CapClone    Capability = "clone"
	CapResize   Capability = "resize"
	CapAdopt    Capability = "adopt"
	CapUsage    Capability = "usage"
	// CapAdoptSnapshot: a snapshot that somebody else has cut can come under management.
	CapAdoptSnapshot Capability = "adopt_snapshot"
	// CapReplicate: the pool can feed replicas on other pools of the same driver, and be one.
	CapReplicate Capability = "replicate"
	// CapGroupSnapshot: several replicas can be cut at one point in time.
	CapGroupSnapshot Capability = "group_snapshot"
	// CapFence: the node keeps clients away from its NFS server when its lease is over, whatever has become of Cairn there.
	CapFence Capability = "fence"
	// CapLiveSnapshot: a snapshot is one point in time also while clients write whom nobody can hold, such as those of NFS.
	CapLiveSnapshot Capability = "live_snapshot"
)

// ReplicationType is Manila's replication_type of a share type.
type ReplicationType string

// Replication types; the zero value is a share with one replica.
const (
	ReplicationNone     ReplicationType = ""
	ReplicationReadable ReplicationType = "readable"
	ReplicationDR       ReplicationType = "dr"
)

// FailoverPolicy says who may promote a replica when the active's node is down.
type FailoverPolicy string

// Failover policies.
const (
	FailoverManual FailoverPolicy = "manual"
	FailoverAuto   FailoverPolicy = "auto"
)

// ShareType is a set of extra specs with a name. The zero value of each support flag means "not offered".
type ShareType struct {
	Name           string
	Description    string
	Format         Format
	Driver         string // "" means any
	Replication    ReplicationType
	Failover       FailoverPolicy
	MaxRPO         int64             // nanoseconds that an automatic failover may lose; 0: any
	Snapshots      bool              // snapshot_support
	Clone          bool              // create_share_from_snapshot_support
	Revert         bool              // revert_to_snapshot_support
	MountSnapshots bool              // mount_snapshot_support
	Specs          map[string]string // driver-qualified extra specs such as zfs:compression
	CreatedAt      int64
}

// Limits bounds what a project may have; Usage counts it. Unlimited is -1.
type Limits struct {
	Shares        int64
	Bytes         int64
	Snapshots     int64
	SnapshotBytes int64
}

// Unlimited is the limit that is none.
const Unlimited int64 = -1

// Quota is the limits of one project.
type Quota struct {
	Project ProjectID
	Limits  Limits
}

// Usage is what a project has now, counted by the state machine in the same step that changes it.
type Usage struct {
	Project       ProjectID
	Shares        int64
	Bytes         int64
	Snapshots     int64
	SnapshotBytes int64
}

// UserRole is what a client certificate may do.
type UserRole string

// Roles, from most to least. A member may do everything with the shares of its own project and nothing else.
const (
	UserAdmin    UserRole = "admin"    // everything, nodes and users included
	UserOperator UserRole = "operator" // everything with shares of every project, drain, freeze
	UserMember   UserRole = "member"   // the shares of one project
	UserReader   UserRole = "reader"   // reads only; of one project if Project is set
)

// User is a client certificate that the cluster has issued. Deleting the row revokes the certificate.
type User struct {
	Name      string
	Role      UserRole
	Project   ProjectID // "" is every project
	Serial    string    // of the newest certificate, lower-case hex
	ExpiresAt int64
	CreatedAt int64
}

// JoinToken lets one machine join as the named node, once, before it expires. Only the hash of its secret is kept.
type JoinToken struct {
	ID         TokenID
	Node       NodeID
	Name       string
	SecretHash []byte
	ExpiresAt  int64
	// UsedBy is the SHA-256 of the public key that consumed the token; empty while unused.
	UsedBy    []byte
	CreatedAt int64
}

// Cluster is the one row that says which cluster this is.
type Cluster struct {
	ID            ClusterID
	Name          string
	CAFingerprint string // lower-case hex SHA-256 of the CA certificate (DER)
	CreatedAt     int64
}

// Event is something that happened. Seq counts without gaps from 1, so a reader can tell that it missed nothing.
type Event struct {
	Seq     uint64
	Index   uint64 // of the log entry that caused it
	At      int64
	Kind    string // such as "share.created"
	Project ProjectID
	Ref     Ref
	Message string
}
