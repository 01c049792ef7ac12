package fsm

import "github.com/cairn-storage/cairn"

// CreateSnapshot cuts a point in time of a share. Project, Size, Status, Fault, Order and CreatedAt of Snapshot are set here.
// A name that is taken is refused even for an equal request: another call means another point in time.
type CreateSnapshot struct{ Snapshot cairn.Snapshot }

// DeleteSnapshot removes a snapshot. Of one that is being deleted it succeeds.
type DeleteSnapshot struct{ ID cairn.SnapshotID }

func (*CreateSnapshot) op() Op { return OpCreateSnapshot }
func (c *CreateSnapshot) target() string {
	return "share/" + string(c.Snapshot.Share) + "/snapshot/" + c.Snapshot.Name
}

func (*DeleteSnapshot) op() Op           { return OpDeleteSnapshot }
func (c *DeleteSnapshot) target() string { return "snapshot/" + string(c.ID) }
