// Package drivers is the contract between Cairn and the storage of one machine: what a pool and an exporter must do, and
// what they may do. It knows the nouns of package cairn and nothing of Raft, actors or gRPC.
//
// A capability is an interface that a value implements, so the claim cannot lie. Each clause below is a test of package
// drivertest that every driver passes.
//
//  1. Identity. The name on disk is a function of the ID, and the object carries its ID and epoch (a property, a tag, an
//     xattr, a side file). What has no mark is not ours and is never touched: every call that meets it, Stat and Delete
//     included, is cairn.ErrExists with "foreign" in its text. It is not "absent", for the mark may have been lost.
//  2. Create of an ID that exists with the same specification adopts it and succeeds; with another it is cairn.ErrExists.
//  3. Delete of what is absent succeeds. What is in use is cairn.ErrInUse, never forced.
//  4. Absence is a diagnosis. cairn.ErrNotFound is returned only when the object is certainly not there. A pool that does
//     not answer, a permission that is missing, a message that nobody has seen before stay errors of their own.
//  5. The commit point comes last. An object is "ready" in one atomic step, or it is marked creating first and ready last.
//     What a crash left half made is finished or removed by the next call with the same ID.
//  6. No hidden state. Nothing that List could not rebuild after a restart.
//  7. Cancellation. When the context ends the call returns promptly; its outcome is unknown, so the caller stats before it
//     tries again.
//  8. Epochs. Every call that changes an object carries an epoch. The object keeps the highest it has seen, durably; a call
//     with a lower one is cairn.ErrStale and changes nothing, also after a restart.
//
// All methods are safe for concurrent use on different IDs. The caller serialises calls on one ID: that is the actor's lock.
// Only Stat, List, Send, SendSize and Changed may also run beside another call on the same ID.
package drivers

import (
	"context"
	"net/netip"

	"github.com/cairn-storage/cairn"
)

// Pool is where replicas live: a directory, a zpool, a volume group.
type Pool interface {
	// Info reports the size of the pool and how it enforces limits.
	Info(ctx context.Context) (Info, error)
	// Stat looks at one replica; cairn.ErrNotFound if it is certainly absent. A half-made object is reported with
	// Ready == false.
	Stat(ctx context.Context, id cairn.ReplicaID) (Object, error)
	// List returns every object that carries Cairn's mark, half-made ones included, in order of ID.
	List(ctx context.Context) ([]Object, error)
	// Create makes an empty replica, or adopts the one that is there with the same size.
	Create(ctx context.Context, spec CreateSpec) (Object, error)
	// Delete removes the replica with its snapshots' metadata. cairn.ErrInUse while it has snapshots.
	Delete(ctx context.Context, id cairn.ReplicaID, epoch uint64) error
}

// Info is what a pool says of itself. Free is telemetry; the rest is configuration.
type Info struct {
	Total int64 // bytes
	Free  int64 // bytes, now
	// Enforcement says who holds a replica to its size.
	Enforcement Enforcement
	// AtomicSnapshots: a snapshot is one point in time even while clients write. If false, the caller stops writers first.
	AtomicSnapshots bool
	// Notes are plain sentences for the operator, such as "no reflink: clones and snapshots are full copies".
	Notes []string
}

// Enforcement says who refuses a write that would make a replica larger than its size.
type Enforcement string

// Enforced by the file system (quota), or only by the exporter on its own writes.
const (
	EnforcedByFileSystem Enforcement = "filesystem"
	EnforcedByExporter   Enforcement = "exporter"
)

// Object is a replica as found on the pool.
type Object struct {
	ID    cairn.ReplicaID
	Epoch uint64
	Size  int64
	Ready bool
	// Sealed: the pool itself refuses writes to it. Always false of a pool that is no Sealer.
	Sealed bool
	// Root is the directory (files) or device (block) that an exporter serves. Empty while not Ready.
	Root string
	// Staging is a directory on the same file system as Root, for exporters to prepare files in; never visible to clients.
	Staging string
	// Reverted is the snapshot of the last revert that completed, or "". It is for people and tests: it cannot tell whether
	// clients have written since, so nobody may conclude from it that a wanted revert is done.
	Reverted cairn.SnapshotID
	// Source is the snapshot it was cloned from, or "".
	Source    cairn.SnapshotID
	Snapshots []SnapshotObject // in order of ID
}

// SnapshotObject is a snapshot as found on the pool.
type SnapshotObject struct {
	ID    cairn.SnapshotID
	Ready bool
	Root  string // read-only view; empty while not Ready
	// Order rises with every snapshot that is cut or received on this replica, in the order of their contents. It says
	// nothing about snapshots of other replicas.
	Order uint64
}

// CreateSpec is what a replica is created with.
type CreateSpec struct {
	ID    cairn.ReplicaID
	Epoch uint64
	Size  int64
	Specs map[string]string // driver-qualified extra specs of the share type; unknown ones of this driver are ErrInvalid
}

// Resizer changes the size of a replica. Shrinking below what is used is cairn.ErrDataLoss with the used size in its text,
// and changes nothing. Setting the size that it has succeeds.
type Resizer interface {
	Resize(ctx context.Context, id cairn.ReplicaID, epoch uint64, size int64) error
}

// Snapshotter cuts and removes snapshots. Both are idempotent by ID.
type Snapshotter interface {
	CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (SnapshotObject, error)
	// DeleteSnapshot of what is absent succeeds; cairn.ErrInUse while a clone depends on it.
	DeleteSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error
}

// Reverter takes the replica's data back to a snapshot, atomically: after a crash it is either as before or as the
// snapshot. The exporter must not serve the replica meanwhile. Snapshots are kept.
//
// Every call that succeeds has reverted anew, whatever Object.Reverted says, and also finishes or removes what an
// interrupted one left. So the caller repeats it until it succeeds, with the replica withdrawn from the first call until it
// has recorded that the wish is fulfilled: then a repetition destroys no acknowledged write.
type Reverter interface {
	Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error
}

// Cloner creates a replica from a snapshot of another replica on the same pool. Idempotent like Create.
type Cloner interface {
	Clone(ctx context.Context, spec CreateSpec, source cairn.ReplicaID, snap cairn.SnapshotID) (Object, error)
}

// Adopter brings an existing object under management, and lets go of one.
type Adopter interface {
	// Adopt makes the unmarked object with the given name the replica of spec, keeping its data. cairn.ErrNotFound if it is
	// certainly absent, cairn.ErrExists if it carries a mark of another replica, cairn.ErrDataLoss if it holds more than
	// spec.Size. Repeating a completed Adopt succeeds.
	Adopt(ctx context.Context, spec CreateSpec, name string) (Object, error)
	// Release removes the mark and leaves the data under name. cairn.ErrInUse while it has snapshots, cairn.ErrExists if
	// the name is taken by something else. Repeating a completed Release succeeds.
	Release(ctx context.Context, id cairn.ReplicaID, epoch uint64, name string) error
}

// SnapshotAdopter brings a snapshot of a replica that somebody else has cut under management, and lets go of one. What is
// neither the one nor the other yet is listed as not ready; DeleteSnapshot gives it back.
type SnapshotAdopter interface {
	// AdoptSnapshot makes the unmarked snapshot with the given name of the replica its snapshot snap. cairn.ErrNotFound if it
	// is certainly absent, cairn.ErrExists if it carries a mark. Repeating a completed one succeeds.
	AdoptSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID, name string) error
	// ReleaseSnapshot takes the mark away and leaves the snapshot under the name that it was adopted from, or else under
	// name. cairn.ErrExists if that is taken. Of what is absent it succeeds.
	ReleaseSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID, name string) error
}

// UsageReporter says how many bytes a replica uses, without its snapshots.
type UsageReporter interface {
	Usage(ctx context.Context, id cairn.ReplicaID) (int64, error)
}

// Exporter serves replicas and mounted snapshots to clients. Safe for concurrent use.
type Exporter interface {
	// Export serves spec with exactly the given rules, replacing what was served under the same ID; requests that begin
	// after it returns see the new rules. Idempotent.
	Export(ctx context.Context, spec ExportSpec) ([]cairn.ExportLocation, error)
	// Unexport stops serving; when it returns no request is in progress. Of what is not exported it succeeds.
	Unexport(ctx context.Context, id ExportID) error
	// Exports lists what is served now, in order of ID.
	Exports(ctx context.Context) ([]ExportSpec, error)
	// Fence stops writes to the replica for every epoch below the given one, at once, and returns when none is in progress.
	Fence(ctx context.Context, id cairn.ReplicaID, below uint64) error
}

// Quiescer is implemented by exporters that can hold writers while a snapshot is cut on a pool without AtomicSnapshots.
type Quiescer interface {
	// Quiesce returns when no write is in progress on the export, and holds new ones until resume is called or the context
	// ends. resume may be called more than once. Of what is not exported it succeeds.
	Quiesce(ctx context.Context, id ExportID) (resume func(), err error)
}

// StandbyServer is implemented by exporters that take specs with Standby set.
type StandbyServer interface {
	// InUse reports whether a request is in progress on the export. What is not exported is not in use.
	InUse(ctx context.Context, id ExportID) (bool, error)
}

// ExportID names one export: a replica, or one of its snapshots.
type ExportID struct {
	Replica  cairn.ReplicaID
	Snapshot cairn.SnapshotID // "" for the replica itself
}

// ExportSpec is everything an exporter needs to serve one replica or snapshot.
type ExportSpec struct {
	ID ExportID
	// Share names the export for clients: its path does not change with the share's name.
	Share    cairn.ShareID
	Root     string
	Staging  string // where uploads are prepared; on the file system of Root. Empty for snapshots
	Epoch    uint64
	ReadOnly bool // a snapshot, or a replica that is not active
	// Standby: the snapshot is what a replica that is not active shows of itself, under a path of the replica. Of several that
	// are exported the one whose identifier sorts last answers what begins; what has begun goes on with the one that it began with.
	Standby bool  `json:",omitempty"`
	Size    int64 // bytes; the exporter refuses writes beyond it if EnforceSize
	// EnforceSize is set where the pool says EnforcedByExporter.
	EnforceSize bool
	Rules       []cairn.AccessRule // the whole set; empty means nobody
	// Fenced: the cluster may make another node the writer without asking this one. What serves it must be out of clients'
	// reach as soon as this node's lease is over, whatever has become of this process.
	Fenced bool `json:",omitempty"`
	// Address, if it is valid, is where clients reach the export instead of the node's own addresses; it moves with the
	// active replica.
	Address netip.Prefix `json:",omitzero"`
	// Squash is for NFS.
	Squash cairn.Squash `json:",omitzero"`
}

// ServedAt are the addresses for clients: the export's own, or those of the node.
func (s ExportSpec) ServedAt(node []netip.Addr) []netip.Addr {
	if s.Address.IsValid() {
		return []netip.Addr{s.Address.Addr()}
	}
	return node
}

// Guard is asked by exporters on every request whether the replica may still be served here.
type Guard interface {
	// Check returns nil, or an error that wraps cairn.ErrStale (another epoch rules) or cairn.ErrUnavailable (no lease).
	Check(replica cairn.ReplicaID, epoch uint64) error
}

// CapabilitiesOf derives what a pool can do from the interfaces that it implements, sorted.
func CapabilitiesOf(p Pool) []cairn.Capability {
	var caps []cairn.Capability
	add := func(ok bool, c cairn.Capability) {
		if ok {
			caps = append(caps, c)
		}
	}
	_, adopt := p.(Adopter)
	_, adoptSnapshot := p.(SnapshotAdopter)
	_, clone := p.(Cloner)
	_, resize := p.(Resizer)
	_, revert := p.(Reverter)
	_, snapshot := p.(Snapshotter)
	_, usage := p.(UsageReporter)
	_, groups := p.(GroupSnapshotter)
	_, sends := p.(Sender)
	_, receives := p.(Receiver)
	add(adopt, cairn.CapAdopt)
	add(adoptSnapshot, cairn.CapAdoptSnapshot)
	add(clone, cairn.CapClone)
	add(groups, cairn.CapGroupSnapshot)
	add(sends && receives && snapshot && revert, cairn.CapReplicate)
	add(resize, cairn.CapResize)
	add(revert, cairn.CapRevert)
	add(snapshot, cairn.CapSnapshot)
	add(usage, cairn.CapUsage)
	return caps
}
