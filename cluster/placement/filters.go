package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
)

// filters are asked in this order; the first that gives a reason rejects the pool. What can never change comes first, so
// that the reason which is shown is the one that waiting or making space does not help against.
var filters = []struct {
	name  string
	never bool // neither time nor space changes the answer
	check func(Request, Candidate) string
}{
	{"pinned", true, pinned},
	{"zone", true, zone},
	{"driver", true, driver},
	{"anti-affinity", true, apart},
	{"protocol", true, protocol},
	{"capability", true, capability},
	{"node", false, node},
	{"draining", false, draining},
	{"frozen", false, frozen},
	{"fault", false, fault},
	{"capacity", false, capacity},
	{"free space", false, freeSpace},
}

func neverFits(filter string) bool {
	for _, f := range filters {
		if f.name == filter {
			return f.never
		}
	}
	return false
}

func pinned(req Request, c Candidate) string {
	if req.Pool == "" || req.Pool == c.Pool.ID {
		return ""
	}
	_, name := req.Pool.Split()
	return "only pool " + name + " of the requested node may take it"
}

func zone(req Request, c Candidate) string {
	if req.Zone == "" || c.Node != nil && c.Node.Zone == req.Zone {
		return ""
	}
	if c.Node == nil || c.Node.Zone == "" {
		return "is in no zone, not in " + req.Zone
	}
	return fmt.Sprintf("is in zone %s, not in %s", c.Node.Zone, req.Zone)
}

func apart(req Request, c Candidate) string {
	if slices.Contains(req.Apart, c.Pool.Node) {
		return "the node has a replica already"
	}
	return ""
}

func driver(req Request, c Candidate) string {
	if req.Driver != "" && req.Driver != c.Pool.Driver {
		return fmt.Sprintf("is %s, the other replicas are %s", c.Pool.Driver, req.Driver)
	}
	if req.Type == nil || req.Type.Driver == "" || req.Type.Driver == c.Pool.Driver {
		return ""
	}
	return fmt.Sprintf("is %s, type %s wants %s", c.Pool.Driver, req.Type.Name, req.Type.Driver)
}

func protocol(req Request, c Candidate) string {
	if req.Type != nil && req.Type.Format != "" && req.Format != "" && req.Type.Format != req.Format {
		return fmt.Sprintf("type %s is for %s, not for %s", req.Type.Name, req.Type.Format, req.Format)
	}
	if req.Protocol == "" || slices.Contains(c.Pool.Protocols, req.Protocol) {
		return overNFS(req, c)
	}
	if len(c.Pool.Protocols) == 0 {
		return fmt.Sprintf("serves no protocol, not %s", req.Protocol)
	}
	return fmt.Sprintf("serves %s, not %s", join(c.Pool.Protocols), req.Protocol)
}

// overNFS is what types promise that not every pool keeps under clients whom nobody can hold.
func overNFS(req Request, c Candidate) string {
	switch {
	case req.Protocol != cairn.ProtocolNFS || req.Type == nil:
		return ""
	case req.Type.Failover == cairn.FailoverAuto && !slices.Contains(c.Pool.Capabilities, cairn.CapFence):
		return "its node cannot fence its NFS server, which failover = auto needs; the pool's notes say why"
	case req.Type.Replication != cairn.ReplicationNone && !slices.Contains(c.Pool.Capabilities, cairn.CapLiveSnapshot):
		return fmt.Sprintf("%s cannot cut snapshots while clients of nfs write, so replicas could not follow; use webdav, or another driver", c.Pool.Driver)
	}
	return ""
}

func capability(req Request, c Candidate) string {
	var missing []cairn.Capability
	for _, need := range needs(req) {
		if !slices.Contains(c.Pool.Capabilities, need) {
			missing = append(missing, need)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("driver %s cannot %s", c.Pool.Driver, join(missing))
}

// needs are the capabilities that the type promises to users, and those of this request, each once, sorted.
func needs(req Request) []cairn.Capability {
	all := slices.Clone(req.Needs)
	if t := req.Type; t != nil {
		if t.Snapshots || t.MountSnapshots {
			all = append(all, cairn.CapSnapshot)
		}
		if t.Clone {
			all = append(all, cairn.CapClone)
		}
		if t.Revert {
			all = append(all, cairn.CapRevert)
		}
		if t.Replication != cairn.ReplicationNone {
			all = append(all, cairn.CapReplicate)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func node(_ Request, c Candidate) string {
	switch {
	case c.Node == nil:
		return "is not a member of the cluster"
	case c.Node.State != cairn.NodeUp:
		return "is " + string(c.Node.State)
	}
	return ""
}

func draining(_ Request, c Candidate) string {
	if c.Node.Draining {
		return "the node is draining"
	}
	return ""
}

func frozen(_ Request, c Candidate) string {
	if c.Pool.Frozen {
		return "takes no new replicas until it is thawed"
	}
	return ""
}

func fault(_ Request, c Candidate) string {
	if !c.Pool.Fault.Healthy() {
		return fmt.Sprintf("%s: %s", c.Pool.Fault.Code, c.Pool.Fault.Message)
	}
	return ""
}

// capacity is Manila's rule for thin pools: promises may exceed the disk by the over-subscription ratio, not more.
func capacity(req Request, c Candidate) string {
	total := c.Pool.Provisionable()
	left := max(0, total-c.Provisioned)
	if req.Size <= left {
		return ""
	}
	return fmt.Sprintf("%s of %s left", cairn.FormatSize(left), cairn.FormatSize(total))
}

// freeSpace keeps the reserve of the pool free on the disk itself. A thin replica need not fit into what is free now,
// but a pool that has already eaten into its reserve takes no more.
func freeSpace(_ Request, c Candidate) string {
	reserved := c.Pool.Total / 100 * c.Pool.ReservedPercent
	if c.Free < 0 || c.Free > reserved {
		return ""
	}
	return fmt.Sprintf("%s free on disk, %s reserved", cairn.FormatSize(c.Free), cairn.FormatSize(reserved))
}

func join[T ~string](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = string(item)
	}
	return strings.Join(texts, ", ")
}
