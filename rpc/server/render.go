package server

import (
	"cmp"
	"net/url"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// timestamp renders a time of a row; "" for none.
func timestamp(at int64) string {
	if at == 0 {
		return ""
	}
	return time.Unix(0, at).UTC().Format(time.RFC3339Nano)
}

func faultPB(f cairn.Fault) *pb.Fault {
	if f.Healthy() {
		return nil
	}
	return &pb.Fault{Code: string(f.Code), Message: f.Message, At: timestamp(f.At)}
}

func locationsPB(locations []cairn.ExportLocation) []*pb.ExportLocation {
	var out []*pb.ExportLocation
	for _, l := range locations {
		out = append(out, &pb.ExportLocation{Url: l.URL, Preferred: l.Preferred, ReadOnly: l.ReadOnly})
	}
	return out
}

// sharePB renders a share with its newest task, which may be nil.
func sharePB(v *fsm.View, s *cairn.Share, task *cairn.Task) *pb.Share {
	out := &pb.Share{
		Id: string(s.ID), Project: string(s.Project), Name: s.Name, Description: s.Description, Format: string(s.Format),
		Protocol: string(s.Protocol), Type: s.Type, Size: s.Size, Status: string(s.Status), ManilaStatus: cairn.ManilaStatus(s, task),
		Fault: faultPB(s.Fault), Task: taskPB(task), Metadata: s.Metadata, SourceSnapshot: string(s.Source), CreatedAt: timestamp(s.CreatedAt),
	}
	if address := v.ServiceAddress(s.ID); address.IsValid() {
		out.ServiceAddress = address.String()
	}
	replicas := slices.SortedStableFunc(v.ReplicasOf(s.ID), func(a, b *cairn.Replica) int { return cmp.Compare(a.Role, b.Role) })
	for _, r := range replicas {
		out.Replicas = append(out.Replicas, replicaPB(v, r))
		if r.ID == s.Active {
			at := writtenAt(r)
			out.Locations = append(locationsPB(at), doors(v, r.Node, s.Protocol, at)...)
		}
	}
	return out
}

// maxDoors is how many nodes besides the active replica's are listed: enough to survive the loss of some.
const maxDoors = 7

// doors are the other nodes that lead to what is served at node, for protocols that every node passes on. They stay as they
// are when the share moves; the node itself is the shortest way.
func doors(v *fsm.View, node cairn.NodeID, protocol cairn.Protocol, served []cairn.ExportLocation) (out []*pb.ExportLocation) {
	if protocol != cairn.ProtocolWebDAV || len(served) == 0 {
		return nil
	}
	at, err := url.Parse(served[0].URL)
	if err != nil {
		return nil // it is shown as it is, and nothing can be made of it
	}
	for _, other := range slices.SortedFunc(v.Nodes(), func(a, b *cairn.Node) int { return cmp.Compare(a.Name, b.Name) }) {
		if other.ID == node || other.State != cairn.NodeUp || other.HTTPAddress == "" {
			continue
		}
		if len(out) == maxDoors {
			break
		}
		at.Host = other.HTTPAddress
		out = append(out, &pb.ExportLocation{Url: at.String(), ReadOnly: served[0].ReadOnly})
	}
	return out
}

// storedShare renders the share as the view has it, or says that it is gone.
func storedShare(v *fsm.View, id string) (*pb.Share, error) {
	s := v.Share(cairn.ShareID(id))
	if s == nil {
		return nil, gone(cairn.KindShare, id)
	}
	return sharePB(v, s, v.Task(s.ID)), nil
}

func replicaPB(v *fsm.View, r *cairn.Replica) *pb.Replica {
	_, pool := r.Pool.Split()
	return &pb.Replica{
		Id: string(r.ID), Node: nodeName(v, r.Node), Pool: pool, State: string(r.State), Epoch: r.Epoch, Settled: r.Settled(), Fault: faultPB(r.Have.Fault),
		Locations: locationsPB(readAt(r)),
	}
}

// readAt is where a replica that is not active is read. What its node reported while it was active is not that.
func readAt(r *cairn.Replica) (locations []cairn.ExportLocation) {
	for _, l := range r.Have.Locations {
		if r.Role == cairn.RoleStandby && l.ReadOnly {
			locations = append(locations, l)
		}
	}
	return locations
}

// writtenAt is where the active replica is reached. What its node reported while it was not active is not that.
func writtenAt(r *cairn.Replica) []cairn.ExportLocation {
	return slices.DeleteFunc(slices.Clone(r.Have.Locations), func(l cairn.ExportLocation) bool { return l.ReadOnly })
}

func taskPB(t *cairn.Task) *pb.Task {
	if t == nil {
		return nil
	}
	return &pb.Task{
		Id: string(t.ID), Share: string(t.Share), Kind: string(t.Kind), State: string(t.State), Size: t.Size, Snapshot: string(t.Snapshot),
		Fault: faultPB(t.Fault), StartedAt: timestamp(t.StartedAt), EndedAt: timestamp(t.EndedAt), Replica: string(t.Replica),
	}
}

// snapshotPB renders a snapshot of the share, which is nil only if both are gone.
func snapshotPB(v *fsm.View, s *cairn.Snapshot) *pb.Snapshot {
	out := &pb.Snapshot{
		Id: string(s.ID), Share: string(s.Share), Project: string(s.Project), Name: s.Name, Description: s.Description, Size: s.Size,
		Status: string(s.Status), Fault: faultPB(s.Fault), Metadata: s.Metadata, CreatedAt: timestamp(s.CreatedAt), Diverged: s.Diverged,
	}
	if share := v.Share(s.Share); share != nil {
		out.ShareName = share.Name
		for instance := range v.InstancesOf(s.ID) {
			if instance.Replica == share.Active || s.Diverged {
				out.Locations = locationsPB(instance.Locations)
				if holder := v.Replica(instance.Replica); holder != nil && len(out.Locations) > 0 {
					out.Locations[0].Preferred = true // read-only ones are not by themselves
					out.Locations = append(out.Locations, doors(v, holder.Node, share.Protocol, instance.Locations)...)
				}
			}
		}
	}
	return out
}

func rulePB(r *cairn.AccessRule) *pb.AccessRule {
	return &pb.AccessRule{
		Id: string(r.ID), Kind: string(r.Kind), Who: r.Who, Level: string(r.Level), State: string(r.State), CreatedAt: timestamp(r.CreatedAt),
	}
}

func rulesPB(v *fsm.View, share cairn.ShareID, snapshot cairn.SnapshotID) []*pb.AccessRule {
	var out []*pb.AccessRule
	for r := range v.RulesOf(share, snapshot) {
		out = append(out, rulePB(r))
	}
	return out
}

func poolPB(v *fsm.View, p *cairn.Pool, free int64) *pb.Pool {
	out := &pb.Pool{
		Name: poolName(v, p.ID), Node: nodeName(v, p.Node), Driver: p.Driver, Total: p.Total, Free: free, Provisioned: v.Provisioned(p.ID),
		Provisionable: p.Provisionable(), ReservedPercent: p.ReservedPercent, OverSubscriptionPercent: p.OverSubscriptionPercent,
		Frozen: p.Frozen, Fault: faultPB(p.Fault), Capabilities: texts(p.Capabilities), Protocols: texts(p.Protocols),
		Notes: p.Notes,
	}
	for range v.ReplicasIn(p.ID) {
		out.Replicas++
	}
	return out
}

func nodePB(v *fsm.View, n *cairn.Node, raft Status) *pb.Node {
	out := &pb.Node{
		Id: string(n.ID), Name: n.Name, Address: n.Address, HttpAddress: n.HTTPAddress, Zone: n.Zone, Labels: n.Labels, State: string(n.State),
		Draining: n.Draining, RaftRole: raft.role(n.ID), CommandVersion: n.CommandVersion, JoinedAt: timestamp(n.JoinedAt),
	}
	for range v.ReplicasOn(n.ID) {
		out.Replicas++
	}
	return out
}

// role is the node's part in Raft, "" if it has none.
func (s Status) role(id cairn.NodeID) string {
	for _, m := range s.Members {
		switch {
		case m.Node != id:
		case id == s.Leader:
			return "leader"
		case m.Voter:
			return "voter"
		default:
			return "non-voter"
		}
	}
	return ""
}

func amountsPB(l cairn.Limits) *pb.Amounts {
	return &pb.Amounts{Shares: l.Shares, Bytes: l.Bytes, Snapshots: l.Snapshots, SnapshotBytes: l.SnapshotBytes}
}

func quotaPB(v *fsm.View, project cairn.ProjectID, limits cairn.Limits) *pb.Quota {
	u := v.Usage(project)
	usage := cairn.Limits{Shares: u.Shares, Bytes: u.Bytes, Snapshots: u.Snapshots, SnapshotBytes: u.SnapshotBytes}
	return &pb.Quota{Project: string(project), Limits: amountsPB(limits), Usage: amountsPB(usage)}
}

func userPB(u *cairn.User) *pb.User {
	return &pb.User{Name: u.Name, Role: string(u.Role), Project: string(u.Project), ExpiresAt: timestamp(u.ExpiresAt)}
}

func eventPB(e *cairn.Event) *pb.Event {
	return &pb.Event{
		Seq: e.Seq, Index: e.Index, At: timestamp(e.At), Kind: e.Kind, Project: string(e.Project), Resource: e.Ref.String(), Id: e.Ref.ID, Message: e.Message,
	}
}

// nodeName is the node's name, or its ID once it is removed.
func nodeName(v *fsm.View, id cairn.NodeID) string {
	if n := v.Node(id); n != nil {
		return n.Name
	}
	return string(id)
}

// poolName is "node/pool" with names.
func poolName(v *fsm.View, id cairn.PoolID) string {
	node, pool := id.Split()
	return nodeName(v, node) + "/" + pool
}

func texts[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
