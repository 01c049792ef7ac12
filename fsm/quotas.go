package fsm

import (
	"math"
	"strconv"

	"github.com/cairn-storage/cairn"
)

// SetQuota sets all limits of a project. A limit below what the project has is legal: it only stops growth. It is in older logs;
// nobody proposes it any more, since whoever means one limit would write back what he saw of the others.
type SetQuota struct{ Quota cairn.Quota }

// ChangeQuota sets those limits of a project that are not nil, and leaves the others as they are.
type ChangeQuota struct {
	Project                                 cairn.ProjectID
	Shares, Bytes, Snapshots, SnapshotBytes *int64
}

func (*SetQuota) op() Op           { return OpSetQuota }
func (c *SetQuota) target() string { return "quota/" + string(c.Quota.Project) }

func (*ChangeQuota) op() Op           { return OpChangeQuota }
func (c *ChangeQuota) target() string { return "quota/" + string(c.Project) }

func (c *ChangeQuota) apply(tx *Tx) (string, error) {
	row := cairn.Quota{Project: c.Project, Limits: tx.Quota(c.Project).Limits}
	for _, change := range []struct {
		limit *int64
		to    *int64
	}{
		{&row.Limits.Shares, c.Shares}, {&row.Limits.Bytes, c.Bytes}, {&row.Limits.Snapshots, c.Snapshots}, {&row.Limits.SnapshotBytes, c.SnapshotBytes},
	} {
		if change.to != nil {
			*change.limit = *change.to
		}
	}
	return (&SetQuota{row}).apply(tx)
}

func (c *SetQuota) apply(tx *Tx) (string, error) {
	row := c.Quota
	if err := cairn.CheckName("project", string(row.Project)); err != nil {
		return "", err
	}
	for _, r := range resources {
		if limit := *r.of(&row.Limits); limit < cairn.Unlimited {
			return "", cause(cairn.ErrInvalid, "quota of project %s: %s: limit %d: want 0 or more, or -1 for no limit", row.Project, r.name, limit)
		}
	}
	put(tx, tx.quotas, &row)
	l := row.Limits
	tx.event("quota.set", row.Project, cairn.Ref{Kind: cairn.KindQuota, Name: string(row.Project)},
		"quota of project %s set to %s shares, %s, %s snapshots, %s of snapshots", row.Project,
		limitText(l.Shares, countText), limitText(l.Bytes, cairn.FormatSize), limitText(l.Snapshots, countText), limitText(l.SnapshotBytes, cairn.FormatSize))
	return string(row.Project), nil
}

// resources is what quotas limit. Usage and limits have the same four amounts, so both are handled as cairn.Limits.
var resources = []struct {
	name string
	text func(int64) string
	of   func(*cairn.Limits) *int64
}{
	{"shares", countText, func(l *cairn.Limits) *int64 { return &l.Shares }},
	{"bytes", cairn.FormatSize, func(l *cairn.Limits) *int64 { return &l.Bytes }},
	{"snapshots", countText, func(l *cairn.Limits) *int64 { return &l.Snapshots }},
	{"snapshot bytes", cairn.FormatSize, func(l *cairn.Limits) *int64 { return &l.SnapshotBytes }},
}

func countText(n int64) string { return strconv.FormatInt(n, 10) }

func limitText(n int64, text func(int64) string) string {
	if n == cairn.Unlimited {
		return "unlimited"
	}
	return text(n)
}

// charge adds to what a project uses, unless that would exceed a limit.
func (tx *Tx) charge(project cairn.ProjectID, amounts cairn.Limits) error {
	used, limits := used(tx.Usage(project)), tx.Quota(project).Limits
	for _, r := range resources {
		now, asked, limit := *r.of(&used), *r.of(&amounts), *r.of(&limits)
		if limit == cairn.Unlimited {
			limit = math.MaxInt64
		}
		if asked > 0 && (now > limit || asked > limit-now) {
			return cause(cairn.ErrQuota, "project %s: %s: %s used and %s asked, but the limit is %s",
				project, r.name, r.text(now), r.text(asked), r.text(limit))
		}
	}
	tx.use(project, amounts, +1)
	return nil
}

// giveBack lowers what a project uses.
func (tx *Tx) giveBack(project cairn.ProjectID, amounts cairn.Limits) { tx.use(project, amounts, -1) }

func (tx *Tx) use(project cairn.ProjectID, amounts cairn.Limits, sign int64) {
	sum := used(tx.Usage(project))
	for _, r := range resources {
		*r.of(&sum) += sign * *r.of(&amounts)
	}
	if sum == (cairn.Limits{}) {
		remove(tx, tx.usage, string(project))
		return
	}
	put(tx, tx.usage, &cairn.Usage{
		Project: project, Shares: sum.Shares, Bytes: sum.Bytes, Snapshots: sum.Snapshots, SnapshotBytes: sum.SnapshotBytes,
	})
}

func used(u cairn.Usage) cairn.Limits {
	return cairn.Limits{Shares: u.Shares, Bytes: u.Bytes, Snapshots: u.Snapshots, SnapshotBytes: u.SnapshotBytes}
}
