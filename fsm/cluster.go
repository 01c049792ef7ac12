package fsm

import "github.com/cairn-storage/cairn"

// InitCluster names the cluster and its first administrator, and creates the share type "default". It succeeds again for
// the same cluster.
type InitCluster struct {
	Cluster cairn.Cluster
	Admin   cairn.User
}

func (*InitCluster) op() Op           { return OpInitCluster }
func (c *InitCluster) target() string { return "cluster/" + string(c.Cluster.ID) }

func (c *InitCluster) apply(tx *Tx) (string, error) {
	if err := checkID(cairn.KindCluster, c.Cluster.ID); err != nil {
		return "", err
	}
	if err := cairn.CheckName("cluster", c.Cluster.Name); err != nil {
		return "", err
	}
	if old := tx.Cluster(); old != nil {
		if old.ID == c.Cluster.ID {
			return string(old.ID), nil
		}
		return "", cause(cairn.ErrExists, "cluster %s: this is cluster %s already", c.Cluster.ID, old.ID)
	}
	if c.Admin.Role != cairn.UserAdmin {
		return "", cause(cairn.ErrInvalid, "user %q: the first user must be an administrator", c.Admin.Name)
	}
	row := c.Cluster
	row.CreatedAt = tx.meta.At
	put(tx, tx.clusters, &row)
	tx.event("cluster.created", "", cairn.Ref{Kind: cairn.KindCluster, ID: string(row.ID), Name: row.Name}, "cluster %s created", row.Name)
	if _, err := (&CreateUser{c.Admin}).apply(tx); err != nil {
		return "", err
	}
	_, err := (&CreateType{cairn.ShareType{
		Name: cairn.DefaultType, Description: "file shares with everything that pools offer", Format: cairn.FormatFiles,
		Snapshots: true, Clone: true, Revert: true, MountSnapshots: true,
	}}).apply(tx)
	return string(row.ID), err
}
