package replication

import (
	"crypto/sha256"
	"hash"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

func pullRequest(m *peerv1.PullRequest) replica.PullRequest {
	return replica.PullRequest{
		Share: cairn.ShareID(m.GetShare()), Standby: cairn.ReplicaID(m.GetStandby()), Epoch: m.GetEpoch(),
		Have: typed[cairn.SnapshotID](m.GetHave()), Resume: m.GetResume(), Resuming: cairn.SnapshotID(m.GetResuming()),
	}
}

func requestMessage(r replica.PullRequest) *peerv1.PullRequest {
	return &peerv1.PullRequest{
		Share: string(r.Share), Standby: string(r.Standby), Epoch: r.Epoch,
		Have: untyped(r.Have), Resume: r.Resume, Resuming: string(r.Resuming),
	}
}

func pullOffer(m *peerv1.PullOffer) replica.Offer {
	return replica.Offer{
		Snapshot: cairn.SnapshotID(m.GetSnapshot()), Base: cairn.SnapshotID(m.GetBase()), Resume: m.GetResume(), Size: m.GetSize(),
		Newest: cairn.SnapshotID(m.GetNewest()), Age: milliseconds(m.GetAgeMs()), Behind: m.GetBehind(),
		Keep: typed[cairn.SnapshotID](m.GetKeep()),
	}
}

func offerMessage(o replica.Offer) *peerv1.PullResponse {
	return &peerv1.PullResponse{Part: &peerv1.PullResponse_Offer{Offer: &peerv1.PullOffer{
		Snapshot: string(o.Snapshot), Base: string(o.Base), Resume: o.Resume, Size: o.Size,
		Newest: string(o.Newest), AgeMs: o.Age.Milliseconds(), Behind: o.Behind, Keep: untyped(o.Keep),
	}}}
}

// newSum is what both sides make of a stream. TLS keeps others from changing one, so that XXH64 is enough for what goes wrong by
// itself, at a tenth of the cost. Nodes that are older know SHA-256 only.
func newSum(xxh64 bool) hash.Hash {
	if xxh64 {
		return xxhash.New()
	}
	return sha256.New()
}

func endMessage(xxh64 bool, sum []byte, size int64) *peerv1.PullResponse {
	end := &peerv1.PullEnd{Size: size}
	if xxh64 {
		end.Xxh64 = sum
	} else {
		end.Sha256 = sum
	}
	return &peerv1.PullResponse{Part: &peerv1.PullResponse_End{End: end}}
}

// stateMessage tells times as ages: clocks differ between nodes.
func stateMessage(s replica.SyncState, now time.Time) *peerv1.SyncState {
	age := int64(-1)
	if !s.AsOf.IsZero() {
		age = max(now.Sub(s.AsOf).Milliseconds(), 0)
	}
	return &peerv1.SyncState{
		Replica: string(s.Replica), Newest: string(s.Newest), AsOfAgeMs: age, Behind: s.Behind,
		Received: s.Received, Total: s.Total, Error: s.Error,
	}
}

func syncState(m *peerv1.SyncState, now time.Time) replica.SyncState {
	state := replica.SyncState{
		Replica: cairn.ReplicaID(m.GetReplica()), Newest: cairn.SnapshotID(m.GetNewest()), Behind: m.GetBehind(),
		Received: m.GetReceived(), Total: m.GetTotal(), Error: m.GetError(),
	}
	if age := m.GetAsOfAgeMs(); age >= 0 {
		state.AsOf = now.Add(-milliseconds(age))
	}
	return state
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func typed[T ~string](texts []string) []T {
	var ids []T
	for _, text := range texts {
		ids = append(ids, T(text))
	}
	return ids
}

func untyped[T ~string](ids []T) []string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, string(id))
	}
	return texts
}
