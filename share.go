package cairn

// Format tells the two kinds of share apart.
type Format string

// A block share is called a volume by the CLI, the API and Cinder.
const (
	FormatFiles Format = "files"
	FormatBlock Format = "block"
)

// Protocol is how clients reach a share.
type Protocol string

// Protocols that exporters serve.
const (
	ProtocolWebDAV Protocol = "webdav"
	ProtocolNFS    Protocol = "nfs"
)

// Share is what a user asked for. Size is what has been granted: it changes when a resize has happened, not when it was
// asked for. Fault is derived from the replicas.
type Share struct {
	ID          ShareID
	Project     ProjectID
	Name        string
	Description string
	Format      Format
	Protocol    Protocol
	Type        string
	Size        int64
	Status      Status
	Fault       Fault
	Metadata    map[string]string
	Source      SnapshotID // the snapshot it was created from, or ""
	Active      ReplicaID
	CreatedAt   int64
}

// Ref points to the share.
func (s *Share) Ref() Ref { return Ref{Kind: KindShare, ID: string(s.ID), Name: s.Name} }

// Replica is one copy of a share on one pool.
//
// One writer per field: Want, Role, Epoch and Generation are written by commands of the API and of the leader; Have by
// reports of the node that hosts the replica. A report carries the generation and epoch it acted on, and a stale one is
// refused.
type Replica struct {
	ID         ReplicaID
	Share      ShareID
	Node       NodeID
	Pool       PoolID
	Role       Role
	State      ReplicaState
	Epoch      uint64 // raised on every change of role; fences
	Generation uint64 // raised on every change of what is wanted: Want, rules, snapshots
	Want       ReplicaWant
	Have       ReplicaHave
	CreatedAt  int64
}

// Settled reports whether the node has answered the newest generation without a fault.
func (r *Replica) Settled() bool { return r.Have.Generation == r.Generation && r.Have.Fault.Healthy() }

// Ref points to the replica.
func (r *Replica) Ref() Ref { return Ref{Kind: KindReplica, ID: string(r.ID)} }

// ReplicaWant is the wanted state of a replica.
type ReplicaWant struct {
	Presence Presence
	Size     int64
	// Source is the snapshot that the replica is made from: cloned, if SourceReplica is on the same pool, else received from it.
	Source        SnapshotID
	SourceReplica ReplicaID
	// Adopt names an existing object of the pool that becomes the replica (manage).
	Adopt string
	// Revert is the snapshot to go back to. While it is set the share is not exported, so a revert that is repeated after
	// a crash can destroy no acknowledged write.
	Revert SnapshotID
	// Release is the name that the object gets when Presence is Released (unmanage).
	Release string
	// Sealed: nobody writes any more, and a last sync point is cut. It is the first step of a planned promotion.
	Sealed bool
	// SyncTo is the sync point that a standby must have before it can be promoted.
	SyncTo SnapshotID
	// Keep says what must be put aside before anything of the replica's data is taken back.
	Keep Keep
}

// Keep is what a replica may hold that no other one has: it was active, and another one was promoted from Base without it.
// What was written since Base is kept as Snapshot. The zero value asks for nothing.
type Keep struct {
	Snapshot SnapshotID
	Base     SnapshotID
}

// ReplicaHave is what the node found and did.
type ReplicaHave struct {
	Generation uint64 // the generation that this answers; 0: never reported
	Presence   Presence
	Size       int64
	Locations  []ExportLocation
	Fault      Fault
	// Sealed is the last sync point, cut when nobody could write any more; "" while somebody can.
	Sealed SnapshotID
	// Synced is the newest sync point that a standby had when it reported. It is not reported anew for every sync.
	Synced SnapshotID
	// InSync: the standby has everything that the active had at most a few sync intervals ago.
	InSync bool
	// Kept is Want.Keep.Snapshot once that wish is fulfilled. Diverged: there was something to keep.
	Kept     SnapshotID
	Diverged bool
}

// ExportLocation is where clients reach a share or a mounted snapshot, such as https://10.0.0.1:7452/shares/<id>/.
type ExportLocation struct {
	URL       string
	Preferred bool
	ReadOnly  bool
}

// ServiceAddress is where clients reach a share over NFS, whichever node has the active replica.
type ServiceAddress struct {
	Share ShareID
	// Address with the length of its network, in canonical form, such as 10.0.0.9/24.
	Address string
}

// Snapshot is a point in time of a share.
type Snapshot struct {
	ID          SnapshotID
	Share       ShareID
	Project     ProjectID
	Name        string
	Description string
	Size        int64 // of the share when the snapshot was cut
	Status      Status
	Fault       Fault
	Metadata    map[string]string
	CreatedAt   int64
	// Order numbers the snapshots of a share in the order in which they were asked for; the newest has the highest.
	Order uint64
	// Diverged: it holds what an earlier active wrote and no other replica has; it lies on that replica alone.
	Diverged bool
}

// Ref points to the snapshot.
func (s *Snapshot) Ref() Ref { return Ref{Kind: KindSnapshot, ID: string(s.ID), Name: s.Name} }

// SnapshotOrigin is where a snapshot comes from that came under management: the name that it had on its pool before.
type SnapshotOrigin struct {
	Snapshot SnapshotID
	Object   string
}

// SnapshotInstance is the copy of a snapshot on one replica.
type SnapshotInstance struct {
	Snapshot SnapshotID
	Replica  ReplicaID
	Want     Presence
	Have     Presence // Absent until the node reported it
	Fault    Fault
	// Locations is set while the snapshot has access rules (mountable snapshot).
	Locations []ExportLocation
}

// AccessKind says how an access rule recognises a client.
type AccessKind string

// Kinds of access rule.
const (
	AccessIP   AccessKind = "ip"   // Who is an address or CIDR, IPv4 or IPv6, in canonical form
	AccessUser AccessKind = "user" // Who is a user name; the secret is made by Cairn and shown once
	AccessCert AccessKind = "cert" // Who is a common name of a client certificate of the cluster's CA
)

// AccessLevel is what a rule grants.
type AccessLevel string

// Levels of access.
const (
	AccessRW AccessLevel = "rw"
	AccessRO AccessLevel = "ro"
)

// AccessRule is who may reach a share, or a mounted snapshot if Snapshot is set.
type AccessRule struct {
	ID        RuleID
	Share     ShareID
	Snapshot  SnapshotID
	Kind      AccessKind
	Who       string
	Level     AccessLevel
	State     RuleState
	Secret    Secret
	CreatedAt int64
}

// Secret is the salted SHA-256 of a password that Cairn made. The password has 160 random bits, so a slow hash would
// add nothing but load: there is no dictionary to try.
type Secret struct {
	Salt []byte
	Hash []byte
}
