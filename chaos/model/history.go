// Package model is what a chaos run remembers and what may be made of it: the history of operations, acknowledgements and
// faults, and for each kind of resource a sequential model of what the API may answer. Both are plain values. The package knows
// neither clients nor servers; whoever runs a cluster, real or simulated, fills a History in.
package model

import "time"

// Kind says what was asked for. The part before the dot chooses the model.
type Kind string

// Of a slot: the shares of one project, which a few clients use together, and their snapshots. Changes name what they change
// by ID: a name is resolved before a command is made, so by name they are two steps and not one.
const (
	CreateShare    Kind = "share.create"    // Name, Value, Size
	GetShare       Kind = "share.get"       // Name or ID
	ListShares     Kind = "share.list"      //
	UpdateShare    Kind = "share.update"    // ID, Value
	RenameShare    Kind = "share.rename"    // ID, Name
	ResizeShare    Kind = "share.resize"    // ID, Size
	DeleteShare    Kind = "share.delete"    // ID
	CreateSnapshot Kind = "snapshot.create" // ID of the share, Name
	ListSnapshots  Kind = "snapshot.list"   // ID of the share
	DeleteSnapshot Kind = "snapshot.delete" // ID of the snapshot
)

// Of a set: named values, such as types, limits of a project, open join tokens, or the access rules of one share. An entry may
// be shown as leaving for a while after it has been removed.
const (
	Put     Kind = "set.put"     // Name, Value; refused with "already exists" if the name has another value
	Add     Kind = "set.add"     // Name; the value is the ID that it gets; refused with "already exists" if there is one
	Set     Kind = "set.set"     // Name, Value; never refused with EXISTS
	Get     Kind = "set.get"     // Name
	List    Kind = "set.list"    //
	Remove  Kind = "set.remove"  // Name, and with an ID only if that is its value
	Replace Kind = "set.replace" // Items are the whole set
)

// Other is the beginning of kinds that no model describes: they are remembered, and must only not be answered with nonsense.
const Other = "other."

// Outcome says whether what an operation did is known.
type Outcome string

// Outcomes.
const (
	Known   Outcome = "known"   // answered: done or refused
	Unknown Outcome = "unknown" // may have been carried out, may be yet, or never
)

// Operation is one request and its answer.
type Operation struct {
	Client   int
	Kind     Kind
	Resource string // one history each: operations on different resources are independent
	Call     time.Duration
	Return   time.Duration // both since the run began; of an unknown outcome: when the client gave up
	Input    Input
	Output   Output
	Outcome  Outcome
}

// Input is what was asked; Kind says which fields count.
type Input struct {
	ID    string
	Name  string
	Value string
	Size  int64
	Items []Item
}

// Output is what was answered. A refusal is the name of a sentinel error, such as "not found"; it certainly changed nothing.
type Output struct {
	Refusal string
	ID      string // of what was created
	Items   []Item // what was shown; of a list in order of name
}

// Item is a resource as it was shown.
type Item struct {
	Name, ID, Value string
	Size            int64
	Epoch           uint64
	Leaving         bool // it is being deleted
}

// NFS is the protocol whose acknowledgements carry no epoch.
const NFS = "nfs"

// Ack is a record that the data path acknowledged: whatever was written under Path before was not, or not under this sum.
type Ack struct {
	Share  string
	Path   string
	Record uint64 // counts up per share
	Sum    string
	// Protocol is what it came over. An answer over NFS does not say who gave it, nor in which epoch.
	Protocol string
	Node     string // that committed it, in Epoch; "" and 0 where the answer did not say
	Epoch    uint64
	Call     time.Duration
	Return   time.Duration
}

// Takeover is a change of a share's active replica.
type Takeover struct {
	Share   string
	From    uint64 // the newest epoch before in which a write was acknowledged
	Planned bool
	// LeftBehind is how much time of writes the cluster said stays behind; 0 of a planned one.
	LeftBehind time.Duration
	// At is the last moment at which the old active one can have written, since the run began: of a failover when its node was
	// declared down.
	At time.Duration
}

// Fault is something that was done to the cluster.
type Fault struct {
	Kind   string // such as "kill"
	Target string // such as "n1", or "n1->n2"
	From   time.Duration
	To     time.Duration // healed
}

// History is everything that a run remembers.
type History struct {
	Operations []Operation
	Acks       []Ack
	Takeovers  []Takeover
	Faults     []Fault
}
