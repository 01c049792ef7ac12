package fsm

import "github.com/cairn-storage/cairn"

// AllowAccess adds an access rule to a share, or to its snapshot if Rule.Snapshot is set. A rule that exists with the same
// kind, client and level is the answer.
type AllowAccess struct{ Rule cairn.AccessRule }

// DenyAccess takes an access rule away. Its row goes when the node has reported that it is enforced.
type DenyAccess struct{ Rule cairn.RuleID }

// SetAccess makes Rules the whole set of a share or snapshot: adds, removals and changes of level in one step. A rule that
// exists keeps its ID and secret.
type SetAccess struct {
	Share    cairn.ShareID
	Snapshot cairn.SnapshotID
	Rules    []cairn.AccessRule
}

func (*AllowAccess) op() Op { return OpAllowAccess }
func (c *AllowAccess) target() string {
	return accessTarget(c.Rule.Share, c.Rule.Snapshot) + "/" + string(c.Rule.Kind) + "/" + c.Rule.Who
}

func (*DenyAccess) op() Op           { return OpDenyAccess }
func (c *DenyAccess) target() string { return "access/" + string(c.Rule) }

func (*SetAccess) op() Op           { return OpSetAccess }
func (c *SetAccess) target() string { return accessTarget(c.Share, c.Snapshot) }

func accessTarget(share cairn.ShareID, snapshot cairn.SnapshotID) string {
	if snapshot != "" {
		return "snapshot/" + string(snapshot)
	}
	return "share/" + string(share)
}
