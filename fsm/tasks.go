package fsm

import "github.com/cairn-storage/cairn"

// ResizeShare extends or shrinks a share. Quota and capacity for an extension are taken at once; those of a shrink are given
// back when it has happened.
type ResizeShare struct {
	ID   cairn.ShareID
	Size int64
	Task cairn.TaskID
}

// RevertShare takes a share back to its newest snapshot.
type RevertShare struct {
	ID       cairn.ShareID
	Snapshot cairn.SnapshotID
	Task     cairn.TaskID
}

// UnmanageShare forgets a share and leaves its data in the pool under the name Release, without Cairn's mark.
type UnmanageShare struct {
	ID      cairn.ShareID
	Task    cairn.TaskID
	Release string
}

// CancelTask ends the running task of a share where that is possible: a resize that has not happened, or a manage, which
// leaves the object under its own name.
type CancelTask struct{ Share cairn.ShareID }

func (*ResizeShare) op() Op           { return OpResizeShare }
func (c *ResizeShare) target() string { return "share/" + string(c.ID) }

func (*RevertShare) op() Op           { return OpRevertShare }
func (c *RevertShare) target() string { return "share/" + string(c.ID) }

func (*UnmanageShare) op() Op           { return OpUnmanageShare }
func (c *UnmanageShare) target() string { return "share/" + string(c.ID) }

func (*CancelTask) op() Op           { return OpCancelTask }
func (c *CancelTask) target() string { return "share/" + string(c.Share) }
