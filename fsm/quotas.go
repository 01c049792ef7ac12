package fsm

import "github.com/cairn-storage/cairn"

// SetQuota sets all limits of a project. A limit below what the project has is legal: it only stops growth.
type SetQuota struct{ Quota cairn.Quota }

func (*SetQuota) op() Op           { return OpSetQuota }
func (c *SetQuota) target() string { return "quota/" + string(c.Quota.Project) }
