package replica

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
)

// SyncPoint is a snapshot that Cairn cuts for itself, so that standbys can follow the active replica. Everything that is
// known of it is in its identifier: List brings it back after any restart. Of two of one share the one with the higher epoch,
// then with the higher sequence, is newer: an epoch has one active replica, and that counts.
type SyncPoint struct {
	Epoch uint64
	Seq   uint64
	At    time.Time // when it was cut, by the clock of the active's node, in milliseconds: for people and for lag
}

const syncPrefix = "sync-"

// ID renders "sync-<epoch>-<sequence>-<Unix milliseconds>", in hexadecimal and of one width, so that IDs sort by age.
func (p SyncPoint) ID() cairn.SnapshotID {
	return cairn.SnapshotID(fmt.Sprintf("%s%08x-%08x-%012x", syncPrefix, p.Epoch, p.Seq, p.At.UnixMilli()))
}

// ParseSyncPoint reads what ID has written; ok is false for every other snapshot.
func ParseSyncPoint(id cairn.SnapshotID) (p SyncPoint, ok bool) {
	rest, ok := strings.CutPrefix(string(id), syncPrefix)
	if !ok {
		return p, false
	}
	var ms int64
	if n, err := fmt.Sscanf(rest, "%08x-%08x-%012x", &p.Epoch, &p.Seq, &ms); n != 3 || err != nil {
		return SyncPoint{}, false
	}
	p.At = time.UnixMilli(ms)
	return p, p.ID() == id
}

// PullRequest is what a standby tells the active replica's node.
type PullRequest struct {
	Share   cairn.ShareID
	Standby cairn.ReplicaID
	Epoch   uint64 // of the standby's row; another one at the active replica is cairn.ErrStale
	// Have are the snapshots that are ready on the standby, sync points included, oldest first.
	Have []cairn.SnapshotID
	// Resume and Resuming are what Receiver.Partial said.
	Resume   string
	Resuming cairn.SnapshotID
}

// Offer is the active replica's answer: the next snapshot that the standby lacks, or that it lacks none.
type Offer struct {
	// Snapshot is what the stream becomes; "" if the standby has everything.
	Snapshot cairn.SnapshotID
	Base     cairn.SnapshotID // as in drivers.SendSpec; "" is everything
	Resume   string           // the token that the stream goes on from; "" if it begins anew
	Size     int64            // estimate of the bytes to come
	// Newest is the newest sync point of the active replica, and Behind the estimate of the bytes that it has written since.
	// Age is that of Newest when the offer was made, by the clock that it was cut by.
	Newest cairn.SnapshotID
	Age    time.Duration
	Behind int64
	// Keep are the sync points that the standby must keep, so that every other replica finds a common base with it.
	Keep []cairn.SnapshotID
}

// Puller reaches the node of the active replica.
type Puller interface {
	// Pull asks once. If the answer offers a snapshot, take is called with the stream, which ends with io.EOF only if it is
	// whole and undamaged. Errors wrap cairn.ErrUnavailable if the node could not be asked: nothing follows from that about
	// the data.
	Pull(ctx context.Context, node cairn.NodeID, request PullRequest, take func(Offer, io.Reader) error) (Offer, error)
}

// SyncState is soft state of a standby: it travels in answers to questions, never in the log.
type SyncState struct {
	Replica cairn.ReplicaID
	Newest  cairn.SnapshotID // the newest sync point that is complete here; "" if none
	// AsOf is until when the active's data was certainly here, by the clock of this node: the cut of Newest, or later if
	// nothing had changed since. Zero if never.
	AsOf     time.Time
	Behind   int64 // bytes, estimate
	Received int64 // of the transfer under way, bytes
	Total    int64 // of the transfer under way, estimate; 0 if there is none
	Error    string
}
