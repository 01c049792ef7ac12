package cairn

import (
	"fmt"
	"strings"
)

// Identifiers are UUIDv7 strings minted by the API server, never by the state machine.
type (
	ClusterID  string
	NodeID     string
	ShareID    string
	ReplicaID  string
	SnapshotID string
	RuleID     string
	TaskID     string
	TokenID    string
	// ProjectID is chosen by the operator: a name, not a UUID.
	ProjectID string
	// PoolID is "<node id>/<pool name>"; see MakePoolID.
	PoolID string
)

// DefaultProject is the project of a request that names none.
const DefaultProject ProjectID = "default"

// DefaultType is the share type that every cluster starts with.
const DefaultType = "default"

// MakePoolID names the pool of a node.
func MakePoolID(node NodeID, pool string) PoolID { return PoolID(string(node) + "/" + pool) }

// Split returns the node and the pool's own name.
func (p PoolID) Split() (NodeID, string) {
	node, name, _ := strings.Cut(string(p), "/")
	return NodeID(node), name
}

// Kind names a table of resources, as in "share/backups".
type Kind string

// The kinds of resource that events, errors and commands of the CLI name.
const (
	KindCluster  Kind = "cluster"
	KindNode     Kind = "node"
	KindPool     Kind = "pool"
	KindType     Kind = "type"
	KindShare    Kind = "share"
	KindReplica  Kind = "replica"
	KindSnapshot Kind = "snapshot"
	KindRule     Kind = "access"
	KindTask     Kind = "task"
	KindQuota    Kind = "quota"
	KindToken    Kind = "token"
	KindUser     Kind = "user"
)

// Ref points to a resource for people: its kind, identifier and, where it has one, its name.
type Ref struct {
	Kind Kind
	ID   string
	Name string
}

// String renders "share/backups", with the identifier where there is no name.
func (r Ref) String() string {
	if r.Name != "" {
		return fmt.Sprintf("%s/%s", r.Kind, r.Name)
	}
	return fmt.Sprintf("%s/%s", r.Kind, r.ID)
}
