package fsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/datadriven"

	"github.com/cairn-storage/cairn"
)

// renderChanges tells what became of every row that a command wrote, and which events it caused.
func renderChanges(before, after *View, changes []Change) string {
	var out strings.Builder
	var seen []Change
	for _, c := range changes {
		if c.Table == TableRequests || slices.Contains(seen, c) {
			continue
		}
		seen = append(seen, c)
		old, now := renderRow(before, c), renderRow(after, c)
		switch {
		case c.Table == TableDivergence:
			fmt.Fprintf(&out, "  ! the state differs from the leader's at entry %s\n", strings.TrimLeft(c.Key, "0"))
		case old == "" && now == "":
		case c.Table == TableEvents && old == "":
			fmt.Fprintf(&out, "  * %s\n", now)
		case c.Table == TableEvents:
		case old == "":
			fmt.Fprintf(&out, "  + %s\n", now)
		case now == "":
			fmt.Fprintf(&out, "  - %s\n", old)
		default:
			fmt.Fprintf(&out, "  ~ %s\n", now)
		}
	}
	return out.String()
}

// renderRow returns the row as one line, or "" if there is none.
func renderRow(v *View, c Change) string {
	switch c.Table {
	case TableCluster:
		return line(v.clusters.get(c.Key), func(r *cairn.Cluster) string { return "cluster " + r.Name + " " + string(r.ID) })
	case TableNodes:
		return line(v.nodes.get(c.Key), renderNode)
	case TablePools:
		return line(v.pools.get(c.Key), renderPool)
	case TableProvisioned:
		return line(v.provisioned.get(c.Key), func(p *provision) string {
			return fmt.Sprintf("pool %s has promised %s", p.Pool, cairn.FormatSize(p.Bytes))
		})
	case TableTypes:
		return line(v.types.get(c.Key), renderType)
	case TableQuotas:
		return line(v.quotas.get(c.Key), func(q *cairn.Quota) string {
			text := "quota " + string(q.Project)
			for _, r := range resources {
				text += " " + r.name + "=" + limitText(*r.of(&q.Limits), r.text)
			}
			return text
		})
	case TableUsage:
		return line(v.usage.get(c.Key), func(u *cairn.Usage) string {
			return fmt.Sprintf("project %s uses %d shares of %s, %d snapshots of %s", u.Project,
				u.Shares, cairn.FormatSize(u.Bytes), u.Snapshots, cairn.FormatSize(u.SnapshotBytes))
		})
	case TableUsers:
		return line(v.users.get(c.Key), func(u *cairn.User) string {
			return fmt.Sprintf("user %s %s project=%q serial=%s", u.Name, u.Role, u.Project, u.Serial)
		})
	case TableTokens:
		return line(v.tokens.get(c.Key), func(t *cairn.JoinToken) string {
			return fmt.Sprintf("token %s for %s (%s) used=%v", t.ID, t.Name, t.Node, len(t.UsedBy) > 0)
		})
	}
	return renderWork(v, c)
}

func renderWork(v *View, c Change) string {
	switch c.Table {
	case TableShares:
		return line(v.shares.get(c.Key), func(s *cairn.Share) string { return renderShare(v, s) })
	case TableReplicas:
		return line(v.replicas.get(c.Key), renderReplica)
	case TableSnapshots:
		return line(v.snapshots.get(c.Key), func(s *cairn.Snapshot) string {
			diverged := ""
			if s.Diverged {
				diverged = " diverged"
			}
			return fmt.Sprintf("snapshot %s %s of %s #%d %s %s%s%s", s.ID, s.Name, s.Share, s.Order, cairn.FormatSize(s.Size), s.Status, diverged, renderFault(s.Fault))
		})
	case TableInstances:
		return line(v.instances.get(c.Key), func(i *cairn.SnapshotInstance) string {
			return fmt.Sprintf("instance of %s on %s: wants %s, has %s%s", i.Snapshot, i.Replica, i.Want, i.Have, renderFault(i.Fault))
		})
	case TableOrigins:
		return line(v.origins.get(c.Key), func(o *cairn.SnapshotOrigin) string {
			return fmt.Sprintf("snapshot %s was %q", o.Snapshot, o.Object)
		})
	case TableRules:
		return line(v.rules.get(c.Key), func(r *cairn.AccessRule) string {
			return fmt.Sprintf("access %s to %s: %s %s %s %s", r.ID, accessTarget(r.Share, r.Snapshot), r.Kind, r.Who, r.Level, r.State)
		})
	case TableTasks:
		return line(v.tasks.get(c.Key), func(t *cairn.Task) string {
			to := ""
			if t.Replica != "" {
				to = " of " + string(t.Replica)
			}
			return fmt.Sprintf("task %s of %s: %s%s %s%s", t.ID, t.Share, t.Kind, to, t.State, renderFault(t.Fault))
		})
	case TableAddresses:
		return line(v.addresses.get(c.Key), func(a *cairn.ServiceAddress) string { return "address of " + string(a.Share) + ": " + a.Address })
	case TableEvents:
		return line(v.events.get(c.Key), func(e *cairn.Event) string { return fmt.Sprintf("%d %s: %s", e.Seq, e.Kind, e.Message) })
	}
	return ""
}

func line[R any](r *R, render func(*R) string) string {
	if r == nil {
		return ""
	}
	return render(r)
}

func renderFault(f cairn.Fault) string {
	if f.Healthy() {
		return ""
	}
	return fmt.Sprintf(" FAULT %s: %s (since %ds)", f.Code, f.Message, f.At/second)
}

func renderNode(n *cairn.Node) string {
	text := fmt.Sprintf("node %s %s", n.Name, n.State)
	if n.Draining {
		text += " draining"
	}
	return text
}

func renderPool(p *cairn.Pool) string {
	text := fmt.Sprintf("pool %s %s of %s, can bear %s", p.ID, p.Driver, cairn.FormatSize(p.Total), cairn.FormatSize(p.Provisionable()))
	if p.Frozen {
		text += " frozen"
	}
	return text + renderFault(p.Fault)
}

func renderType(t *cairn.ShareType) string {
	text := fmt.Sprintf("type %s %s", t.Name, t.Format)
	for _, flag := range []struct {
		set  bool
		name string
	}{{t.Snapshots, "snapshots"}, {t.Clone, "clone"}, {t.Revert, "revert"}, {t.MountSnapshots, "mount"}} {
		if flag.set {
			text += " " + flag.name
		}
	}
	for _, word := range []string{string(t.Replication), string(t.Failover)} {
		if word != "" {
			text += " " + word
		}
	}
	if t.MaxRPO > 0 {
		text += fmt.Sprintf(" max_rpo=%ds", t.MaxRPO/second)
	}
	return text
}

func renderShare(v *View, s *cairn.Share) string {
	text := fmt.Sprintf("share %s %s/%s %s %s, Manila says %s", s.ID, s.Project, s.Name, cairn.FormatSize(s.Size), s.Status, cairn.ManilaStatus(s, v.Task(s.ID)))
	for _, key := range sortedKeys(s.Metadata) {
		text += " " + key + "=" + s.Metadata[key]
	}
	return text + renderFault(s.Fault)
}

// renderReplica leaves out role, state and epoch of a replica that has always been active.
func renderReplica(r *cairn.Replica) string {
	text := fmt.Sprintf("replica %s in %s ", r.ID, r.Pool)
	switch {
	case r.Role != cairn.RoleActive:
		text += fmt.Sprintf("%s %s epoch %d ", r.Role, r.State, r.Epoch)
	case r.State != cairn.ReplicaActive:
		text += fmt.Sprintf("ACTIVE BUT %s ", r.State)
	case r.Epoch > 1:
		text += fmt.Sprintf("%s epoch %d ", r.Role, r.Epoch)
	}
	text += fmt.Sprintf("generation %d: wants %s %s", r.Generation, r.Want.Presence, cairn.FormatSize(r.Want.Size))
	sealed := ""
	if r.Want.Sealed {
		sealed = "and a last sync point"
	}
	text += renderMore([]more{
		{"cloned from", string(r.Want.Source)}, {"adopting", r.Want.Adopt}, {"reverted to", string(r.Want.Revert)}, {"left as", r.Want.Release},
		{"sealed", sealed}, {"synced to", string(r.Want.SyncTo)}, {"keep", string(r.Want.Keep.Snapshot)}, {"of what follows", string(r.Want.Keep.Base)},
	})
	text += fmt.Sprintf("; has %s %s", r.Have.Presence, cairn.FormatSize(r.Have.Size))
	text += renderMore([]more{{"sealed at", string(r.Have.Sealed)}, {"synced to", string(r.Have.Synced)}, {"kept", string(r.Have.Kept)}})
	if r.Have.Diverged {
		text += " diverged"
	}
	return text + renderFault(r.Have.Fault)
}

// more is a part of a row that is named only if it is set.
type more struct{ what, value string }

func renderMore(parts []more) (text string) {
	for _, m := range parts {
		if m.value != "" {
			text += " " + m.what + " " + m.value
		}
	}
	return text
}

// show lists all rows, or those of the tables that are named.
func (s *story) show(d *datadriven.TestData) string {
	v := s.m.View()
	var out strings.Builder
	for _, t := range v.tables() {
		if len(d.CmdArgs) > 0 && !d.HasArg(string(t.tableName())) || len(d.CmdArgs) == 0 && t.tableName() == TableEvents {
			continue
		}
		for key := range t.encoded(newRowCodec()) {
			if text := renderRow(v, Change{t.tableName(), key}); text != "" {
				fmt.Fprintln(&out, text)
			}
		}
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

// special handles the directives that look at the machine from outside.
func (s *story) special(d *datadriven.TestData) string {
	switch d.Cmd {
	case "restore": // the machine goes on from its own snapshot
		s.m = restored(s.t, s.m)
		return "ok\n"
	case "diverged":
		index, diverged := s.m.Divergence()
		return fmt.Sprintf("%v %d\n", diverged, index)
	case "events":
		v := s.m.View()
		return fmt.Sprintf("%d to %d, %d rows\n", v.FirstEvent(), v.LastEvent(), v.events.len())
	case "requests":
		return fmt.Sprintf("%d remembered\n", s.m.View().requests.len())
	}
	s.t.Fatalf("no such directive: %s", d.Cmd)
	return ""
}
