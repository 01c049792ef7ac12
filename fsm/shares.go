package fsm

import "github.com/cairn-storage/cairn"

// Placement says which pool gets a replica, and under which ID.
type Placement struct {
	ID   cairn.ReplicaID
	Pool cairn.PoolID
}

// CreateShare makes a share with its replica. Status, Fault, Active and CreatedAt of Share are set here. If a share of that
// name exists with the same specification, also while it is being created, its ID is the answer.
//
// With Adopt it manages an existing object of the pool by that name, under the given Task.
type CreateShare struct {
	Share    cairn.Share
	Replicas []Placement
	Adopt    string
	Task     cairn.TaskID
}

// DeleteShare removes a share that has no snapshots. Of one that is being deleted it succeeds.
type DeleteShare struct{ ID cairn.ShareID }

// UpdateShare renames a share and changes its description and metadata. nil leaves a field as it is.
type UpdateShare struct {
	ID             cairn.ShareID
	Name           *string
	Description    *string
	SetMetadata    map[string]string
	RemoveMetadata []string
}

func (*CreateShare) op() Op { return OpCreateShare }
func (c *CreateShare) target() string {
	return string(c.Share.Format) + "/" + string(c.Share.Project) + "/" + c.Share.Name
}

func (*DeleteShare) op() Op           { return OpDeleteShare }
func (c *DeleteShare) target() string { return "share/" + string(c.ID) }

func (*UpdateShare) op() Op           { return OpUpdateShare }
func (c *UpdateShare) target() string { return "share/" + string(c.ID) }
