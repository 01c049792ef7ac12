package fsm

import (
	"iter"
	"net/netip"
	"strings"

	"github.com/cairn-storage/cairn"
)

// View is the state after one log entry, frozen. All pointers that it returns are rows that nobody may change; nil means
// that there is certainly no such row. Iterators yield in order of key unless they say otherwise. A View is safe for
// concurrent use and never blocks the machine; it keeps the rows of its time in memory as long as it is held.
type View struct {
	index  uint64
	digest uint64
	fleet
	work
	journal
}

// Index returns the log index of the entry that led to this state.
func (v *View) Index() uint64 { return v.index }

// Digest returns the XOR of the hashes of all rows. Equal states have equal digests on every node.
func (v *View) Digest() uint64 { return v.digest }

// Cluster returns the cluster's row, or nil before InitCluster.
func (v *View) Cluster() *cairn.Cluster { return v.clusters.get("cluster") }

// Share returns the share.
func (v *View) Share(id cairn.ShareID) *cairn.Share { return v.shares.get(string(id)) }

// ShareByName returns the share of that name.
func (v *View) ShareByName(project cairn.ProjectID, format cairn.Format, name string) *cairn.Share {
	return first(v.shares.by(sharesByName, shareNameKey(project, format, name)))
}

// Shares yields the shares of a project, or of all if it is "", by project and name.
func (v *View) Shares(project cairn.ProjectID) iter.Seq[*cairn.Share] {
	return v.shares.by(sharesByName, projectPrefix(project))
}

// SharesFrom yields the shares that were created from the snapshot.
func (v *View) SharesFrom(id cairn.SnapshotID) iter.Seq[*cairn.Share] {
	return v.shares.by(sharesBySource, string(id)+"\x00")
}

// Replica returns the replica.
func (v *View) Replica(id cairn.ReplicaID) *cairn.Replica { return v.replicas.get(string(id)) }

// Replicas yields all replicas.
func (v *View) Replicas() iter.Seq[*cairn.Replica] { return v.replicas.all("") }

// ReplicasOf yields the replicas of a share.
func (v *View) ReplicasOf(id cairn.ShareID) iter.Seq[*cairn.Replica] {
	return v.replicas.by(replicasByShare, string(id)+"\x00")
}

// ReplicasOn yields the replicas that a node hosts, by pool.
func (v *View) ReplicasOn(id cairn.NodeID) iter.Seq[*cairn.Replica] {
	return v.replicas.by(replicasByPool, string(id)+"/")
}

// ReplicasIn yields the replicas in a pool.
func (v *View) ReplicasIn(id cairn.PoolID) iter.Seq[*cairn.Replica] {
	return v.replicas.by(replicasByPool, string(id)+"\x00")
}

// Snapshot returns the snapshot.
func (v *View) Snapshot(id cairn.SnapshotID) *cairn.Snapshot { return v.snapshots.get(string(id)) }

// SnapshotByName returns the share's snapshot of that name.
func (v *View) SnapshotByName(id cairn.ShareID, name string) *cairn.Snapshot {
	share := v.Share(id)
	if share == nil {
		return nil
	}
	return first(v.snapshots.by(snapshotsByName, string(share.Project)+"\x00"+string(id)+"\x00"+name+"\x00"))
}

// SnapshotsOf yields the snapshots of a share, oldest first.
func (v *View) SnapshotsOf(id cairn.ShareID) iter.Seq[*cairn.Snapshot] {
	return v.snapshots.by(snapshotsByOrder, string(id)+"\x00")
}

// Snapshots yields the snapshots of a project, or of all if it is "", by project, share and name.
func (v *View) Snapshots(project cairn.ProjectID) iter.Seq[*cairn.Snapshot] {
	return v.snapshots.by(snapshotsByName, projectPrefix(project))
}

// Instance returns the copy of a snapshot on a replica.
func (v *View) Instance(snapshot cairn.SnapshotID, replica cairn.ReplicaID) *cairn.SnapshotInstance {
	return v.instances.get(instanceKey(snapshot, replica))
}

// InstancesOf yields the copies of a snapshot.
func (v *View) InstancesOf(id cairn.SnapshotID) iter.Seq[*cairn.SnapshotInstance] {
	return v.instances.all(string(id) + "/")
}

// InstancesOn yields the snapshots that are wanted or found on a replica.
func (v *View) InstancesOn(id cairn.ReplicaID) iter.Seq[*cairn.SnapshotInstance] {
	return v.instances.by(instancesByReplica, string(id)+"\x00")
}

// SnapshotOrigin returns the name that the snapshot had on its pool before it came under management; "" if Cairn has cut it.
func (v *View) SnapshotOrigin(id cairn.SnapshotID) string {
	if origin := v.origins.get(string(id)); origin != nil {
		return origin.Object
	}
	return ""
}

// Rule returns the access rule.
func (v *View) Rule(id cairn.RuleID) *cairn.AccessRule { return v.rules.get(string(id)) }

// RulesOf yields the access rules of a share, or of its snapshot if that is not "", by kind and client.
func (v *View) RulesOf(share cairn.ShareID, snapshot cairn.SnapshotID) iter.Seq[*cairn.AccessRule] {
	return v.rules.by(rulesByTarget, ruleTargetKey(share, snapshot))
}

// allRulesOf yields the access rules of a share and of all its snapshots.
func (v *View) allRulesOf(share cairn.ShareID) iter.Seq[*cairn.AccessRule] {
	return v.rules.by(rulesByTarget, string(share)+"\x00")
}

// ServiceAddress returns the service address of the share; it is not valid if there is none.
func (v *View) ServiceAddress(id cairn.ShareID) netip.Prefix {
	row := v.addresses.get(string(id))
	if row == nil {
		return netip.Prefix{}
	}
	prefix, _ := netip.ParsePrefix(row.Address) // what is stored was checked
	return prefix
}

// Task returns the newest task of the share.
func (v *View) Task(id cairn.ShareID) *cairn.Task { return v.tasks.get(string(id)) }

// Tasks yields the tasks of a project, or of all if it is "", by project and share.
func (v *View) Tasks(project cairn.ProjectID) iter.Seq[*cairn.Task] {
	return v.tasks.by(tasksByProject, projectPrefix(project))
}

// Node returns the node.
func (v *View) Node(id cairn.NodeID) *cairn.Node { return v.nodes.get(string(id)) }

// NodeByName returns the node of that name.
func (v *View) NodeByName(name string) *cairn.Node {
	return first(v.nodes.by(nodesByName, name+"\x00"))
}

// Nodes yields all nodes.
func (v *View) Nodes() iter.Seq[*cairn.Node] { return v.nodes.all("") }

// Pool returns the pool.
func (v *View) Pool(id cairn.PoolID) *cairn.Pool { return v.pools.get(string(id)) }

// Pools yields all pools.
func (v *View) Pools() iter.Seq[*cairn.Pool] { return v.pools.all("") }

// PoolsOf yields the pools of a node.
func (v *View) PoolsOf(id cairn.NodeID) iter.Seq[*cairn.Pool] { return v.pools.all(string(id) + "/") }

// Provisioned returns how many bytes have been promised on the pool.
func (v *View) Provisioned(id cairn.PoolID) int64 {
	if p := v.provisioned.get(string(id)); p != nil {
		return p.Bytes
	}
	return 0
}

// Type returns the share type.
func (v *View) Type(name string) *cairn.ShareType { return v.types.get(name) }

// Types yields all share types.
func (v *View) Types() iter.Seq[*cairn.ShareType] { return v.types.all("") }

// Quota returns the project's quota. A project that nobody has set one for has no limits.
func (v *View) Quota(id cairn.ProjectID) cairn.Quota {
	if q := v.quotas.get(string(id)); q != nil {
		return *q
	}
	return cairn.Quota{Project: id, Limits: cairn.Limits{
		Shares: cairn.Unlimited, Bytes: cairn.Unlimited, Snapshots: cairn.Unlimited, SnapshotBytes: cairn.Unlimited,
	}}
}

// Usage returns what the project has.
func (v *View) Usage(id cairn.ProjectID) cairn.Usage {
	if u := v.usage.get(string(id)); u != nil {
		return *u
	}
	return cairn.Usage{Project: id}
}

// Projects yields the projects that have a quota or use something.
func (v *View) Projects() iter.Seq[cairn.ProjectID] {
	return func(yield func(cairn.ProjectID) bool) {
		next, stop := iter.Pull(v.usage.all(""))
		defer stop()
		used, more := next()
		for q := range v.quotas.all("") {
			for ; more && used.Project < q.Project; used, more = next() {
				if !yield(used.Project) {
					return
				}
			}
			if more && used.Project == q.Project {
				used, more = next()
			}
			if !yield(q.Project) {
				return
			}
		}
		for ; more; used, more = next() {
			if !yield(used.Project) {
				return
			}
		}
	}
}

// User returns the user.
func (v *View) User(name string) *cairn.User { return v.users.get(name) }

// Users yields all users.
func (v *View) Users() iter.Seq[*cairn.User] { return v.users.all("") }

// Token returns the join token.
func (v *View) Token(id cairn.TokenID) *cairn.JoinToken { return v.tokens.get(string(id)) }

// Tokens yields all join tokens.
func (v *View) Tokens() iter.Seq[*cairn.JoinToken] { return v.tokens.all("") }

// Events yields the events with a higher Seq, oldest first. The oldest ones are forgotten: if FirstEvent is above after+1,
// some have been missed.
func (v *View) Events(after uint64) iter.Seq[*cairn.Event] {
	return func(yield func(*cairn.Event) bool) {
		v.events.rows.AscendGreaterOrEqual(row[cairn.Event]{key: numberKey(after + 1)}, func(r row[cairn.Event]) bool {
			return yield(r.value)
		})
	}
}

// FirstEvent returns the Seq of the oldest event that is kept, 0 if there is none.
func (v *View) FirstEvent() uint64 {
	if r, ok := v.events.rows.Min(); ok {
		return r.value.Seq
	}
	return 0
}

// LastEvent returns the Seq of the newest event, 0 if there is none.
func (v *View) LastEvent() uint64 {
	if r, ok := v.events.rows.Max(); ok {
		return r.value.Seq
	}
	return 0
}

// CommandVersion returns the newest version of the command set that every node understands.
func (v *View) CommandVersion() uint32 {
	oldest := CurrentVersion
	for n := range v.Nodes() {
		oldest = min(oldest, n.CommandVersion)
	}
	return oldest
}

func projectPrefix(project cairn.ProjectID) string {
	if project == "" {
		return ""
	}
	return string(project) + "\x00"
}

// Request returns the ID of the object that the request with this idempotency token was about; false if the token is not
// known (any more).
func (v *View) Request(token string) (id string, known bool) {
	done := v.requests.get(token)
	if done == nil {
		return "", false
	}
	kind, id, _ := strings.Cut(done.Target, "/")
	if kind != string(cairn.KindPool) { // the one kind whose IDs have a slash
		id, _, _ = strings.Cut(id, "/")
	}
	return id, true
}
