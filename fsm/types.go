package fsm

import (
	"maps"

	"github.com/cairn-storage/cairn"
)

// CreateType makes a share type. It succeeds again for the same type.
type CreateType struct{ Type cairn.ShareType }

// DeleteType removes a share type that no share has.
type DeleteType struct{ Name string }

func (*CreateType) op() Op           { return OpCreateType }
func (c *CreateType) target() string { return "type/" + c.Type.Name }

func (*DeleteType) op() Op           { return OpDeleteType }
func (c *DeleteType) target() string { return "type/" + c.Name }

func (c *CreateType) apply(tx *Tx) (string, error) {
	row := c.Type
	if err := checkType(&row); err != nil {
		return "", err
	}
	row.CreatedAt = tx.meta.At
	if old := tx.Type(row.Name); old != nil {
		if field := typeDifference(old, &row); field != "" {
			return "", cause(cairn.ErrExists, "type %s: exists with another %s", row.Name, field)
		}
		return row.Name, nil
	}
	put(tx, tx.types, &row)
	tx.event("type.created", "", cairn.Ref{Kind: cairn.KindType, Name: row.Name}, "type %s created", row.Name)
	return row.Name, nil
}

func checkType(t *cairn.ShareType) error {
	if err := cairn.CheckName("type", t.Name); err != nil {
		return err
	}
	if err := checkText("description", t.Description, maxDescription, true); err != nil {
		return err
	}
	switch {
	case t.Format != cairn.FormatFiles && t.Format != cairn.FormatBlock:
		return cause(cairn.ErrInvalid, "type %s: format %q: want files or block", t.Name, t.Format)
	case t.Replication != cairn.ReplicationNone && t.Replication != cairn.ReplicationReadable && t.Replication != cairn.ReplicationDR:
		return cause(cairn.ErrInvalid, "type %s: replication %q: want readable or dr", t.Name, t.Replication)
	case t.Failover != "" && t.Failover != cairn.FailoverManual && t.Failover != cairn.FailoverAuto:
		return cause(cairn.ErrInvalid, "type %s: failover %q: want auto or manual", t.Name, t.Failover)
	case t.Failover == cairn.FailoverAuto && t.Replication == cairn.ReplicationNone:
		return cause(cairn.ErrInvalid, "type %s: automatic failover needs replication", t.Name)
	case t.MaxRPO < 0 || t.MaxRPO > 0 && t.Failover != cairn.FailoverAuto:
		return cause(cairn.ErrInvalid, "type %s: max_rpo: want a time for automatic failover", t.Name)
	case t.Replication != cairn.ReplicationNone && t.Format != cairn.FormatFiles:
		return cause(cairn.ErrNotSupported, "type %s: only file shares can be replicated", t.Name)
	case (t.Clone || t.Revert || t.MountSnapshots) && !t.Snapshots:
		return cause(cairn.ErrInvalid, "type %s: clone, revert and mounted snapshots need snapshots", t.Name)
	case t.MountSnapshots && t.Format != cairn.FormatFiles:
		return cause(cairn.ErrInvalid, "type %s: only snapshots of file shares can be mounted", t.Name)
	}
	if err := checkText("driver", t.Driver, maxMetadataKey, false); err != nil {
		return err
	}
	return checkMetadata(t.Specs)
}

func typeDifference(a, b *cairn.ShareType) string {
	switch {
	case a.Format != b.Format:
		return "format"
	case a.Driver != b.Driver:
		return "driver"
	case a.Replication != b.Replication || a.Failover != b.Failover || a.MaxRPO != b.MaxRPO:
		return "replication"
	case a.Snapshots != b.Snapshots || a.Clone != b.Clone || a.Revert != b.Revert || a.MountSnapshots != b.MountSnapshots:
		return "snapshot support"
	case !maps.Equal(a.Specs, b.Specs):
		return "extra spec"
	}
	return ""
}

func (c *DeleteType) apply(tx *Tx) (string, error) {
	if tx.Type(c.Name) == nil {
		return "", missing(cairn.KindType, c.Name)
	}
	users := 0
	for s := range tx.Shares("") {
		if s.Type == c.Name {
			users++
		}
	}
	if users > 0 {
		return "", cause(cairn.ErrInUse, "type %s: %s", c.Name, plural(users, "share has it", "shares have it"))
	}
	remove(tx, tx.types, c.Name)
	tx.event("type.deleted", "", cairn.Ref{Kind: cairn.KindType, Name: c.Name}, "type %s deleted", c.Name)
	return c.Name, nil
}
