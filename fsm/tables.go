package fsm

import (
	"iter"

	"github.com/cairn-storage/cairn"
)

// Table names a table in changes, digests and snapshots. Names are append-only.
type Table string

// The tables. TableDivergence has no rows: a change of it says that Machine.Divergence may have news.
const (
	TableCluster     Table = "cluster"
	TableNodes       Table = "nodes"
	TablePools       Table = "pools"
	TableProvisioned Table = "provisioned"
	TableTypes       Table = "types"
	TableQuotas      Table = "quotas"
	TableUsage       Table = "usage"
	TableUsers       Table = "users"
	TableTokens      Table = "tokens"
	TableShares      Table = "shares"
	TableReplicas    Table = "replicas"
	TableSnapshots   Table = "snapshots"
	TableInstances   Table = "instances"
	TableOrigins     Table = "origins"
	TableRules       Table = "rules"
	TableTasks       Table = "tasks"
	TableAddresses   Table = "addresses"
	TableEvents      Table = "events"
	TableRequests    Table = "requests"
	TableDivergence  Table = "divergence"
)

// fleet is the tables of machines and of those who may use them.
type fleet struct {
	clusters    *table[cairn.Cluster]
	nodes       *table[cairn.Node]
	pools       *table[cairn.Pool]
	provisioned *table[provision]
	types       *table[cairn.ShareType]
	quotas      *table[cairn.Quota]
	usage       *table[cairn.Usage]
	users       *table[cairn.User]
	tokens      *table[cairn.JoinToken]
}

// work is the tables of shares and what belongs to them.
type work struct {
	shares    *table[cairn.Share]
	replicas  *table[cairn.Replica]
	snapshots *table[cairn.Snapshot]
	instances *table[cairn.SnapshotInstance]
	origins   *table[cairn.SnapshotOrigin]
	rules     *table[cairn.AccessRule]
	tasks     *table[cairn.Task]
	addresses *table[cairn.ServiceAddress]
}

// journal is the tables of what happened.
type journal struct {
	events   *table[cairn.Event]
	requests *table[request]
}

// provision is how many bytes have been promised on a pool. It is a row of its own, beside the pool that the node reports.
type provision struct {
	Pool  cairn.PoolID
	Bytes int64
}

// The indexes of the tables that have them, in the order of newTables. Parts of a key end with a zero byte, which no name
// and no identifier can hold, so a prefix never matches half a part.
const (
	nodesByName = 0

	sharesByName   = 0
	sharesBySource = 1

	replicasByShare = 0
	replicasByPool  = 1

	snapshotsByOrder = 0
	snapshotsByName  = 1

	instancesByReplica = 0
	rulesByTarget      = 0
	tasksByProject     = 0
	addressesByAddress = 0
	requestsByAge      = 0
)

func newView() *View {
	return &View{
		fleet: fleet{
			clusters:    newTable(TableCluster, func(*cairn.Cluster) string { return "cluster" }),
			nodes:       newTable(TableNodes, func(n *cairn.Node) string { return string(n.ID) }, func(n *cairn.Node) string { return n.Name + "\x00" }),
			pools:       newTable(TablePools, func(p *cairn.Pool) string { return string(p.ID) }),
			provisioned: newTable(TableProvisioned, func(p *provision) string { return string(p.Pool) }),
			types:       newTable(TableTypes, func(t *cairn.ShareType) string { return t.Name }),
			quotas:      newTable(TableQuotas, func(q *cairn.Quota) string { return string(q.Project) }),
			usage:       newTable(TableUsage, func(u *cairn.Usage) string { return string(u.Project) }),
			users:       newTable(TableUsers, func(u *cairn.User) string { return u.Name }),
			tokens:      newTable(TableTokens, func(t *cairn.JoinToken) string { return string(t.ID) }),
		},
		work: newWork(),
		journal: journal{
			events:   newTable(TableEvents, func(e *cairn.Event) string { return numberKey(e.Seq) }),
			requests: newTable(TableRequests, func(r *request) string { return r.Token }, func(r *request) string { return numberKey(r.Seq) }),
		},
	}
}

func newWork() work {
	return work{
		shares: newTable(TableShares, func(s *cairn.Share) string { return string(s.ID) },
			func(s *cairn.Share) string { return shareNameKey(s.Project, s.Format, s.Name) },
			func(s *cairn.Share) string {
				if s.Source == "" {
					return ""
				}
				return string(s.Source) + "\x00"
			}),
		replicas: newTable(TableReplicas, func(r *cairn.Replica) string { return string(r.ID) },
			func(r *cairn.Replica) string { return string(r.Share) + "\x00" },
			func(r *cairn.Replica) string { return string(r.Pool) + "\x00" }),
		snapshots: newTable(TableSnapshots, func(s *cairn.Snapshot) string { return string(s.ID) },
			func(s *cairn.Snapshot) string { return string(s.Share) + "\x00" + numberKey(s.Order) },
			func(s *cairn.Snapshot) string {
				return string(s.Project) + "\x00" + string(s.Share) + "\x00" + s.Name + "\x00"
			}),
		instances: newTable(TableInstances, func(i *cairn.SnapshotInstance) string { return instanceKey(i.Snapshot, i.Replica) },
			func(i *cairn.SnapshotInstance) string { return string(i.Replica) + "\x00" }),
		origins: newTable(TableOrigins, func(o *cairn.SnapshotOrigin) string { return string(o.Snapshot) }),
		rules: newTable(TableRules, func(r *cairn.AccessRule) string { return string(r.ID) },
			func(r *cairn.AccessRule) string {
				return ruleTargetKey(r.Share, r.Snapshot) + string(r.Kind) + "\x00" + r.Who + "\x00"
			}),
		tasks: newTable(TableTasks, func(t *cairn.Task) string { return string(t.Share) },
			func(t *cairn.Task) string { return string(t.Project) + "\x00" + string(t.Share) + "\x00" }),
		addresses: newTable(TableAddresses, func(a *cairn.ServiceAddress) string { return string(a.Share) },
			func(a *cairn.ServiceAddress) string { return addressKey(a.Address) }),
	}
}

func shareNameKey(project cairn.ProjectID, format cairn.Format, name string) string {
	return string(project) + "\x00" + name + "\x00" + string(format) + "\x00"
}

func instanceKey(snapshot cairn.SnapshotID, replica cairn.ReplicaID) string {
	return string(snapshot) + "/" + string(replica)
}

func ruleTargetKey(share cairn.ShareID, snapshot cairn.SnapshotID) string {
	return string(share) + "\x00" + string(snapshot) + "\x00"
}

// numberKey renders n so that keys sort like numbers.
func numberKey(n uint64) string {
	var key [20]byte
	for i := range key {
		key[len(key)-1-i] = '0' + byte(n%10)
		n /= 10
	}
	return string(key[:])
}

// anyTable is what digests and snapshots need of a table.
type anyTable interface {
	tableName() Table
	len() int
	// encoded yields every row in order of key, with its key and its bytes; they are good until the next one.
	encoded(c *rowCodec) iter.Seq2[string, []byte]
	// load decodes a row and adds it; it returns its hash. A row whose key does not follow the last one's is an error.
	load(c *rowCodec, data []byte) (hash uint64, err error)
}

// tables lists all tables in the order of snapshots.
func (v *View) tables() []anyTable {
	return []anyTable{
		v.clusters, v.nodes, v.pools, v.provisioned, v.types, v.quotas, v.usage, v.users, v.tokens,
		v.shares, v.replicas, v.snapshots, v.instances, v.rules, v.tasks, v.origins, v.addresses,
		v.events, v.requests,
	}
}

// clone freezes the state: neither of the two sees what the other changes from now on.
func (v *View) clone() *View {
	return &View{
		index: v.index, digest: v.digest,
		fleet: fleet{
			v.clusters.clone(), v.nodes.clone(), v.pools.clone(), v.provisioned.clone(), v.types.clone(), v.quotas.clone(),
			v.usage.clone(), v.users.clone(), v.tokens.clone(),
		},
		work: work{
			v.shares.clone(), v.replicas.clone(), v.snapshots.clone(), v.instances.clone(), v.origins.clone(), v.rules.clone(), v.tasks.clone(),
			v.addresses.clone(),
		},
		journal: journal{v.events.clone(), v.requests.clone()},
	}
}
