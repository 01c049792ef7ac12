package validate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
)

// OneWriter checks that at any instant at most one copy of a share was writable, by what the copies themselves acknowledged and not by
// what the cluster says of them: each epoch has one node, and once a write was acknowledged in an epoch none that begins
// afterwards is acknowledged in an older one. Acknowledgements over NFS do not say who gave them: of those NothingLost sees one that the
// old copy gave after it was taken over, since that record is in no line that goes on.
func OneWriter(acks []model.Ack) []Violation {
	var found []Violation
	for share, all := range byShare(signed(acks)) {
		nodes := map[uint64]model.Ack{}
		for _, ack := range all {
			first, known := nodes[ack.Epoch]
			switch {
			case ack.Node == "" || ack.Epoch == 0:
				found = append(found, violation(share, "record %d was acknowledged by nobody knows whom", ack.Record))
			case known && first.Node != ack.Node:
				found = append(found, violation(share, "in epoch %d node %s has acknowledged record %d, and node %s record %d",
					ack.Epoch, first.Node, first.Record, ack.Node, ack.Record))
			case !known:
				nodes[ack.Epoch] = ack
			}
		}
		found = append(found, oldEpochs(share, all)...)
	}
	return ordered(found)
}

// signed are the acknowledgements that should say who gave them.
func signed(acks []model.Ack) []model.Ack {
	return slices.DeleteFunc(slices.Clone(acks), func(a model.Ack) bool { return a.Protocol == model.NFS })
}

// oldEpochs finds acknowledged writes that began after a newer epoch had acknowledged one.
func oldEpochs(share string, acks []model.Ack) []Violation {
	ended := slices.SortedFunc(slices.Values(acks), func(a, b model.Ack) int { return cmp.Compare(a.Return, b.Return) })
	begun := slices.SortedFunc(slices.Values(acks), func(a, b model.Ack) int { return cmp.Compare(a.Call, b.Call) })
	var found []Violation
	var newest model.Ack
	next := 0
	for _, ack := range begun {
		for ; next < len(ended) && ended[next].Return < ack.Call; next++ {
			if ended[next].Epoch > newest.Epoch {
				newest = ended[next]
			}
		}
		if ack.Epoch < newest.Epoch {
			found = append(found, violation(share, "node %s has acknowledged record %d in epoch %d, begun %s after node %s had acknowledged record %d in epoch %d",
				ack.Node, ack.Record, ack.Epoch, ack.Call-newest.Return, newest.Node, newest.Record, newest.Epoch))
		}
	}
	return found
}

// cutSlack is by how much the time of a takeover may be off: it is told in milliseconds, by another clock of the same machine.
const cutSlack = 100 * time.Millisecond

// NothingLost checks that every record that was acknowledged is in its share in the end, with the bytes that were written. Missing may only
// be what a failover left behind within the time that it told, and that must be kept, unless the disk is gone: a planned promotion
// excuses nothing.
func NothingLost(acks []model.Ack, takeovers []model.Takeover, shares []model.Contents) []Violation {
	var found []Violation
	acknowledged := byShare(acks)
	for _, share := range shares {
		for _, ack := range acknowledged[share.Share] {
			switch sum, there := share.Files[ack.Path]; {
			case there && sum == ack.Sum:
			case there && !(ack.Protocol == model.NFS && excused(ack, takeovers)): // what was synced may hold a file that was not yet written to
				found = append(found, violation(share.Share, "record %d (%s) reads %s, and %s was acknowledged %s",
					ack.Record, ack.Path, sum, ack.Sum, by(ack)))
			case !excused(ack, takeovers):
				found = append(found, violation(share.Share, "record %d (%s), acknowledged %s at %s, is lost, and no failover left it behind",
					ack.Record, ack.Path, by(ack), ack.Return.Round(time.Millisecond)))
			case share.Kept[ack.Path] != ack.Sum && !share.DiskLost:
				found = append(found, violation(share.Share, "record %d (%s), acknowledged %s, stayed behind at a failover and is kept nowhere",
					ack.Record, ack.Path, by(ack)))
			}
		}
		delete(acknowledged, share.Share)
	}
	for share := range acknowledged {
		found = append(found, violation(share, "records were acknowledged, and nobody has looked what it holds"))
	}
	return ordered(found)
}

// by says what an acknowledgement says of who gave it.
func by(ack model.Ack) string {
	if ack.Protocol == model.NFS {
		return "over NFS"
	}
	return fmt.Sprintf("by node %s in epoch %d", ack.Node, ack.Epoch)
}

// excused reports whether a failover said that it leaves behind what was acknowledged then. An acknowledgement that does not say its epoch
// must be of a write that began before the old copy's time was over.
func excused(ack model.Ack, takeovers []model.Takeover) bool {
	return slices.ContainsFunc(takeovers, func(t model.Takeover) bool {
		before := t.From >= ack.Epoch
		if ack.Protocol == model.NFS {
			before = ack.Call <= t.At+cutSlack
		}
		return t.Share == ack.Share && !t.Planned && before && ack.Return >= t.At-t.LeftBehind-cutSlack
	})
}

// SnapshotsWhole checks that each snapshot that was acknowledged is on every replica that is active or in sync, and the same on all.
func SnapshotsWhole(copies []model.Copy) []Violation {
	var found []Violation
	first := map[string]model.Copy{}
	for _, c := range copies {
		if !c.Counts {
			continue
		}
		name := c.Share + "/" + c.Snapshot
		other, known := first[name]
		switch {
		case c.Sum == "":
			found = append(found, violation(name, "is not on node %s, whose replica counts as in sync", c.Node))
		case known && other.Sum != c.Sum:
			found = append(found, violation(name, "differs between node %s (%s) and node %s (%s)", other.Node, other.Sum, c.Node, c.Sum))
		case !known:
			first[name] = c
		}
	}
	return ordered(found)
}

func byShare(acks []model.Ack) map[string][]model.Ack {
	shares := map[string][]model.Ack{}
	for _, ack := range acks {
		shares[ack.Share] = append(shares[ack.Share], ack)
	}
	return shares
}

func ordered(found []Violation) []Violation {
	slices.SortStableFunc(found, func(a, b Violation) int { return cmp.Compare(a.Subject, b.Subject) })
	return found
}

// difference is what is in a and not in b, sorted.
func difference(a, b []string) []string {
	rest := map[string]bool{}
	for _, name := range a {
		rest[name] = true
	}
	for _, name := range b {
		delete(rest, name)
	}
	return slices.Sorted(maps.Keys(rest))
}
