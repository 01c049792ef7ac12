package cairn

// Status is the life cycle of a share or snapshot. Health (Fault) and work in progress (Task) are told apart from it.
type Status string

// The three states of life. A resource that is gone has no row.
const (
	StatusCreating  Status = "creating"
	StatusAvailable Status = "available"
	StatusDeleting  Status = "deleting"
)

// legalStatus is the whole life cycle: from -> to. Removal of the row is legal from "deleting" only.
var legalStatus = map[Status][]Status{
	"":              {StatusCreating},
	StatusCreating:  {StatusAvailable, StatusDeleting},
	StatusAvailable: {StatusDeleting},
	StatusDeleting:  {},
}

// CanBecome reports whether a resource may go from s to next. The zero Status stands for "no row yet".
func (s Status) CanBecome(next Status) bool {
	for _, legal := range legalStatus[s] {
		if legal == next {
			return true
		}
	}
	return false
}

// Fault says why a resource is not healthy. The zero Fault is health. A fault clears itself: it is replaced by what the
// next look at the resource finds.
type Fault struct {
	Code    FaultCode
	Message string
	At      int64 // Unix nanoseconds
}

// Healthy reports whether there is no fault.
func (f Fault) Healthy() bool { return f.Code == "" }

// FaultCode is the machine-readable part of a fault.
type FaultCode string

// The faults that Cairn itself raises.
const (
	FaultNone      FaultCode = ""
	FaultMissing   FaultCode = "missing"     // the object is certainly gone from the pool
	FaultNoSpace   FaultCode = "no_space"    // the pool is full
	FaultInUse     FaultCode = "in_use"      // something still holds the object
	FaultExport    FaultCode = "export"      // data is there, but cannot be served
	FaultDataLoss  FaultCode = "data_loss"   // refused because data would be lost
	FaultForeign   FaultCode = "foreign"     // an object that Cairn does not own stands in the way
	FaultTimeout   FaultCode = "timeout"     // a storage call did not return in time; outcome unknown
	FaultPool      FaultCode = "pool"        // the pool itself does not answer
	FaultNodeDown  FaultCode = "node_down"   // the node that holds the resource holds no lease
	FaultUnknown   FaultCode = "unknown"     // the storage said something that Cairn does not recognise
	FaultUnsupport FaultCode = "unsupported" // the pool cannot do what is wanted
)

// Role is what a replica is wanted to be.
type Role string

// A share has at most one active replica; it alone is writable.
const (
	RoleActive  Role = "active"
	RoleStandby Role = "standby"
)

// ReplicaState is Manila's replica_state.
type ReplicaState string

// States of a replica; only a standby can be in_sync or out_of_sync.
const (
	ReplicaActive    ReplicaState = "active"
	ReplicaInSync    ReplicaState = "in_sync"
	ReplicaOutOfSync ReplicaState = "out_of_sync"
)

// Presence is whether an object is wanted, or found, on the pool.
type Presence string

// Released means: leave the data where it is, but without Cairn's mark (unmanage).
const (
	Present  Presence = "present"
	Absent   Presence = "absent"
	Released Presence = "released"
)

// NodeState is decided by the leader and committed, never guessed from gossip.
type NodeState string

// A node is up while it renews its lease.
const (
	NodeUp   NodeState = "up"
	NodeDown NodeState = "down"
)

// RuleState is Manila's state of an access rule. queued_*: accepted, but the share is not ready to take it (it is being
// created, or a task holds it). applying, denying, updating: handed to the node that serves the share. A denied rule's row
// goes away when the node has reported that it is enforced.
type RuleState string

// The states of an access rule.
const (
	RuleQueuedToApply  RuleState = "queued_to_apply"
	RuleApplying       RuleState = "applying"
	RuleActive         RuleState = "active"
	RuleQueuedToDeny   RuleState = "queued_to_deny"
	RuleDenying        RuleState = "denying"
	RuleQueuedToUpdate RuleState = "queued_to_update"
	RuleUpdating       RuleState = "updating"
	RuleError          RuleState = "error"
)

// Denied reports whether the rule is on its way out and must not be granted any more.
func (s RuleState) Denied() bool { return s == RuleQueuedToDeny || s == RuleDenying }
