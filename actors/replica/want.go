package replica

import (
	"net/netip"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// Want is everything that the state machine wants of one replica, taken from one view.
type Want struct {
	Replica   *cairn.Replica
	Share     *cairn.Share
	Specs     map[string]string  // extra specs of the share type
	Readable  bool               // clients may read it while it is a standby
	Fenced    bool               // another node may be made the writer without this one: as the type says, however many replicas there are
	Address   netip.Prefix       // the service address; not valid: none
	Squash    cairn.Squash       // of a share over NFS
	Rules     []cairn.AccessRule // granted to the share, in order of ID
	Snapshots []WantSnapshot     // in order of ID
	// Unproven are the rules among all of these that no exporter has taken yet: handed to the node, or refused before.
	Unproven map[cairn.RuleID]bool
	Copied   bool // it is still to be made from a snapshot that another pool has
	WantOthers
	// InFlight: some rules wait to hear whether they are enforced. Refused: some were not, when they were last tried.
	InFlight, Refused, Denying bool
}

// WantOthers is what a replica has to know of the others of its share.
type WantOthers struct {
	Standbys   []*cairn.Replica // of an active one
	ActiveNode cairn.NodeID     // of a standby: where the active one is
	ActiveDown bool             // that node is committed as down
	Interval   time.Duration    // between sync points
}

// WantSnapshot is a snapshot that is wanted on the replica, or on its way out.
type WantSnapshot struct {
	*cairn.SnapshotInstance
	Rules    []cairn.AccessRule // granted to the mounted snapshot
	Diverged bool
	// Object is the name that somebody else has given to the snapshot, or, of one that is to be released, that it gets; ""
	// if there is none.
	Object string
}

// gather reads what is wanted of the row's replica. Pure.
func gather(v *fsm.View, row *cairn.Replica) *Want {
	w := &Want{Replica: row, Share: v.Share(row.Share), Unproven: make(map[cairn.RuleID]bool)}
	if w.Share == nil { // a replica's share outlives it
		w.Share = &cairn.Share{ID: row.Share}
	}
	if t := v.Type(w.Share.Type); t != nil {
		w.Specs, w.Fenced, w.Readable = t.Specs, t.Failover == cairn.FailoverAuto, t.Replication == cairn.ReplicationReadable
	}
	w.Address, w.Copied = v.ServiceAddress(row.Share), Copied(v, row)
	if w.Share.Protocol == cairn.ProtocolNFS {
		w.Squash = squashOf(w.Share.Metadata)
	}
	w.Rules = w.granted(v, "")
	for instance := range v.InstancesOn(row.ID) {
		snap := v.Snapshot(instance.Snapshot)
		s := WantSnapshot{instance, w.granted(v, instance.Snapshot), snap != nil && snap.Diverged, v.SnapshotOrigin(instance.Snapshot)}
		if s.Want == cairn.Released && s.Object == "" && snap != nil {
			s.Object = snap.Name
		}
		w.Snapshots = append(w.Snapshots, s)
	}
	w.Interval = interval(w.Specs)
	for other := range v.ReplicasOf(row.Share) {
		switch {
		case other.ID == row.ID:
		case row.Role == cairn.RoleActive:
			w.Standbys = append(w.Standbys, other)
		case other.ID == w.Share.Active:
			w.ActiveNode = other.Node
			node := v.Node(other.Node)
			w.ActiveDown = node == nil || node.State == cairn.NodeDown
		}
	}
	return w
}

// squashOf reads metadata that was checked when it was set. What got past that makes nobody root.
func squashOf(metadata map[string]string) cairn.Squash {
	s, err := cairn.ParseSquash(cairn.ProtocolNFS, metadata)
	if err != nil {
		return cairn.Squash{Mode: cairn.SquashAll, UID: cairn.Nobody, GID: cairn.Nobody}
	}
	return s
}

// granted returns the rules that the exporter has to know, without what is not its business: a rule that becomes active
// is not a change of the export. A rule that was refused is tried again with every pass.
func (w *Want) granted(v *fsm.View, snapshot cairn.SnapshotID) []cairn.AccessRule {
	var rules []cairn.AccessRule
	for rule := range v.RulesOf(w.Share.ID, snapshot) {
		switch rule.State {
		case cairn.RuleApplying, cairn.RuleUpdating:
			w.InFlight, w.Unproven[rule.ID] = true, true
		case cairn.RuleError:
			w.Refused, w.Unproven[rule.ID] = true, true
		case cairn.RuleActive, cairn.RuleQueuedToUpdate:
		case cairn.RuleDenying:
			w.Denying = true
			continue
		default: // queued: not yet, or no more
			continue
		}
		r := *rule
		r.State, r.CreatedAt = "", 0
		rules = append(rules, r)
	}
	return rules
}

// proven leaves out the rules that no exporter has taken yet.
func (w *Want) proven(rules []cairn.AccessRule) []cairn.AccessRule {
	return slices.DeleteFunc(slices.Clone(rules), func(r cairn.AccessRule) bool { return w.Unproven[r.ID] })
}

// mounted reports whether clients may reach the snapshot.
func (s WantSnapshot) mounted() bool { return s.Want == cairn.Present && len(s.Rules) > 0 }

// serves reports whether the replica itself is to be exported. While a revert is wanted it is not: see Plan.
func (w *Want) serves() bool {
	return w.Share.Protocol != "" && w.writable() && w.Replica.Want.Revert == ""
}

// writable reports whether anybody may write to the replica.
func (w *Want) writable() bool {
	r := w.Replica
	return r.Role == cairn.RoleActive && r.Want.Presence == cairn.Present && !r.Want.Sealed && r.Want.Keep == (cairn.Keep{})
}
