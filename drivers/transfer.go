package drivers

import (
	"context"
	"io"

	"github.com/cairn-storage/cairn"
)

// GroupSnapshotter cuts snapshots of several replicas of one pool at one point in time: all of them or none.
type GroupSnapshotter interface {
	// CreateGroupSnapshot is idempotent by the IDs: those that are all there are left as they are. If only some are there
	// it is cairn.ErrExists, because the missing ones could only be cut at another point in time.
	CreateGroupSnapshot(ctx context.Context, cuts []Cut) error
}

// Cut names one snapshot of a group snapshot.
type Cut struct {
	Replica  cairn.ReplicaID
	Epoch    uint64
	Snapshot cairn.SnapshotID
}

// Sealer makes a replica read-only below every exporter: the last line of a fence.
type Sealer interface {
	// Seal refuses writes to the replica from when it returns, to clients that have files open, too. It keeps the epoch as
	// every change does. Of what is sealed, and of what is absent, it succeeds.
	Seal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error
	// Unseal lets it be written to again. A replica is created unsealed; one that is received is sealed.
	Unseal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error
}

// Sender writes a replica's data as a stream for a Receiver of the same driver.
type Sender interface {
	// Send writes spec to w. The snapshot stays while it is sent: deleting it is cairn.ErrInUse. A base that the sender can
	// certainly not start from any more is cairn.ErrNotFound, said before the first byte: the receiver needs a full stream
	// or another base. Send changes nothing that Stat shows.
	Send(ctx context.Context, id cairn.ReplicaID, spec SendSpec, w io.Writer) error
	// SendSize estimates the bytes that Send would write.
	SendSize(ctx context.Context, id cairn.ReplicaID, spec SendSpec) (int64, error)
	// Changed estimates the bytes written to the replica since a ready snapshot of it. 0 means that certainly nothing
	// has changed; any doubt is more than 0. It is cheap: it is asked every few seconds.
	Changed(ctx context.Context, id cairn.ReplicaID, since cairn.SnapshotID) (int64, error)
}

// SendSpec says which stream is wanted.
type SendSpec struct {
	// Snapshot is what the receiver will have afterwards.
	Snapshot cairn.SnapshotID
	// Base is a snapshot that the receiver has; "" asks for everything. The sender need not have it any more if it kept
	// enough of it, such as a ZFS bookmark.
	Base cairn.SnapshotID
	// Resume is what Partial said at the receiver, or "". With it the stream goes on where the last one broke off.
	Resume string
}

// Receiver makes a replica from streams of a Sender.
type Receiver interface {
	// Receive reads one stream to its end. When it returns nil the snapshot is ready, durable and equal to the sender's.
	// The replica's own data is equal to it, or is made so by Revert, as cheaply as the driver can: Sender.Changed tells.
	// Until then the replica and its snapshots are as before, but for what Partial says.
	//
	// With Base == "" the replica comes into being: it must be absent, not ready, or a receive that broke off. With a Base,
	// which is ready here, nothing is rolled back: where the stream would have to overwrite data that has changed since, it
	// is cairn.ErrPrecondition. A snapshot that is ready already makes it succeed without reading. A stream that breaks off
	// or is damaged is an error; what arrived is kept where the driver can resume.
	Receive(ctx context.Context, spec ReceiveSpec, r io.Reader) error
	// Partial returns the token with which a sender goes on after a Receive that broke off, and the snapshot that it was to
	// become; both are empty if there is nothing to resume.
	Partial(ctx context.Context, id cairn.ReplicaID) (token string, snap cairn.SnapshotID, err error)
	// Abandon throws away what a Receive that broke off has left. Without such it succeeds.
	Abandon(ctx context.Context, id cairn.ReplicaID, epoch uint64) error
}

// ReceiveSpec says what a stream becomes.
type ReceiveSpec struct {
	CreateSpec // of the replica
	Snapshot   cairn.SnapshotID
	Base       cairn.SnapshotID // as in SendSpec
}
