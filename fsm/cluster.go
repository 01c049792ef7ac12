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
