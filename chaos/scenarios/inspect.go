package scenarios

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/traffic"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// leader is the server that leads, by the word of any that runs; nil if nobody knows.
func (r *run) leader(ctx context.Context) *local.Server {
	for _, s := range r.world.Cluster.Servers() {
		if status, err := r.world.Cluster.Status(ctx, s); err == nil && status.GetLeader() != "" {
			return r.world.Cluster.Server(status.GetLeader())
		}
	}
	return nil
}

// active is the server that serves a share, which is chosen by a place; nil if nobody knows.
func (r *run) active(ctx context.Context, place int) *local.Server {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	shares := r.traffic.Shares()
	answer, err := r.world.API.Shares().GetShare(ctx, &cairnv1.GetShareRequest{
		Share: shares[place%len(shares)].ID, Read: &cairnv1.Read{Stale: true},
	})
	if err != nil || len(answer.GetShare().GetReplicas()) == 0 {
		return nil
	}
	return r.world.Cluster.Server(answer.GetShare().GetReplicas()[0].GetNode())
}

// inspect waits until the cluster is at rest, and looks at everything.
func (r *run) inspect(ctx context.Context, healed time.Duration) error {
	r.say("everything is healed; waiting for rest")
	f := &r.result.Final
	r.result.History = r.traffic.History()
	f.Transient = r.settle(ctx, healed)
	for _, t := range f.Transient {
		if t.For > r.Limits.Settle {
			r.say("%s is still %s", t.Resource, t.State)
		}
	}
	f.Joins = r.world.Joins()
	var err error
	if f.Streams, err = r.traffic.Streams(ctx); err != nil {
		return err
	}
	if f.States, err = r.states(ctx); err != nil {
		return err
	}
	if err := r.readShares(ctx, f); err != nil {
		return err
	}
	if r.world.Cluster == nil {
		return nil
	}
	if err := r.probe(ctx, f); err != nil {
		return err
	}
	return r.lookAtDisks(ctx, healed, f)
}

// settle watches what is in transition until nothing is, or for longer than the limit.
func (r *run) settle(ctx context.Context, healed time.Duration) []model.Transient {
	limit := r.Limits.Settle + r.Limits.Settle/4
	seen := map[string]model.Transient{}
	for {
		moving, err := r.moving(ctx)
		since := r.traffic.Now() - healed
		if err != nil {
			moving = map[string]string{"the cluster": "not answering: " + err.Error()}
		}
		for resource, state := range moving {
			seen[resource] = model.Transient{Resource: resource, State: state, For: since}
		}
		if len(moving) == 0 || since > limit || ctx.Err() != nil {
			var all []model.Transient
			for _, t := range seen {
				all = append(all, t)
			}
			if len(all) == 0 {
				all = []model.Transient{{Resource: "the cluster", State: "at rest", For: since}}
			}
			return all
		}
		local.Pause(ctx, 250*time.Millisecond)
	}
}

// moving is the state of everything that is not at rest, by resource.
func (r *run) moving(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	moving := map[string]string{}
	nodes, err := r.world.API.Nodes().ListNodes(ctx, &cairnv1.ListNodesRequest{})
	if err != nil {
		return nil, err
	}
	for _, n := range nodes.GetNodes() {
		if n.GetState() != "up" || n.GetDraining() {
			moving["node/"+n.GetName()] = fmt.Sprintf("%s, draining %t", n.GetState(), n.GetDraining())
		}
	}
	shares, err := r.world.API.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: "*"})
	if err != nil {
		return nil, err
	}
	for _, s := range shares.GetShares() {
		if s.GetManilaStatus() != "available" || s.GetFault() != nil {
			moving["share/"+s.GetId()] = fmt.Sprintf("%s (%s)", s.GetManilaStatus(), s.GetFault().GetMessage())
		}
		for _, replica := range s.GetReplicas() {
			if r.traffic.Readable(s) && replica.GetState() == "in_sync" && len(replica.GetLocations()) == 0 {
				moving["replica/"+replica.GetId()] = "not to be read on " + replica.GetNode()
			}
			if !replica.GetSettled() || replica.GetState() == "out_of_sync" || replica.GetFault() != nil {
				moving["replica/"+replica.GetId()] = fmt.Sprintf("%s on %s, settled %t (%s)", replica.GetState(), replica.GetNode(), replica.GetSettled(), replica.GetFault().GetMessage())
			}
		}
	}
	snapshots, err := r.world.API.Snapshots().ListSnapshots(ctx, &cairnv1.ListSnapshotsRequest{Project: "*"})
	if err != nil {
		return nil, err
	}
	for _, s := range snapshots.GetSnapshots() {
		if s.GetStatus() != "available" || s.GetFault() != nil {
			moving["snapshot/"+s.GetId()] = fmt.Sprintf("%s (%s)", s.GetStatus(), s.GetFault().GetMessage())
		}
	}
	return moving, r.movingRules(ctx, moving)
}

func (r *run) movingRules(ctx context.Context, moving map[string]string) error {
	rules, err := r.world.API.Access().ListAccess(ctx, &cairnv1.ListAccessRequest{Target: &cairnv1.AccessTarget{Share: r.traffic.Rules()}})
	for _, rule := range rules.GetRules() {
		if rule.GetState() != "active" {
			moving["rule/"+rule.GetId()] = rule.GetState()
		}
	}
	return err
}

// states asks every node for its state until all have applied the same entry.
func (r *run) states(ctx context.Context) ([]model.StateAt, error) {
	var all []model.StateAt
	ask := func(ctx context.Context) (map[uint64]bool, error) {
		indexes := map[uint64]bool{}
		if r.world.Cluster == nil {
			status, err := r.world.API.Cluster().GetClusterStatus(ctx, &cairnv1.GetClusterStatusRequest{})
			if err == nil {
				all = append(all, stateOf(status))
				indexes[status.GetAppliedIndex()] = true
			}
			return indexes, err
		}
		for _, s := range r.world.Cluster.Servers() {
			status, err := r.world.Cluster.Status(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			all = append(all, stateOf(status))
			indexes[status.GetAppliedIndex()] = true
		}
		return indexes, nil
	}
	return all, local.Await(ctx, "all servers at the same entry", func(ctx context.Context) (bool, error) {
		indexes, err := ask(ctx)
		return err == nil && len(indexes) == 1, err
	})
}

func stateOf(s *cairnv1.GetClusterStatusResponse) model.StateAt {
	return model.StateAt{Node: s.GetAnsweredBy(), Index: s.GetAppliedIndex(), Digest: s.GetDigest(), Diverged: s.GetDiverged()}
}

// readShares reads every record through some door.
func (r *run) readShares(ctx context.Context, f *model.Final) error {
	for i, share := range r.traffic.Shares() {
		doors, err := r.traffic.Doors(ctx, share)
		if err != nil {
			return err
		}
		var files map[string]string
		err = local.Await(ctx, "the whole content of share "+share.Name, func(ctx context.Context) (bool, error) {
			if files, err = traffic.Read(ctx, doors[i%len(doors)]); err != nil {
				r.note("share %s: a read broke off: %v", share.Name, err)
			}
			return err == nil, err
		})
		if err != nil {
			return err
		}
		f.Shares = append(f.Shares, model.Contents{Share: share.Name, Files: files, Kept: map[string]string{}, DiskLost: r.world.Wiped() || r.world.Cluster == nil})
	}
	return nil
}

// failedOver is what the event of a failover says; its wording is part of the replicated state, and so does not change.
var failedOver = regexp.MustCompile(`node (\S+) takes over from node (\S+); up to (\S+) of writes`)

// takeovers reads the changes of roles from the events, and their epochs from what the copies acknowledged: a promotion that a failover
// cuts short has no event.
func takeovers(streams []model.Stream, shares []*traffic.Share, acks []model.Ack) []model.Takeover {
	down := map[string]time.Duration{}
	var all []model.Takeover
	if len(streams) == 0 {
		return nil
	}
	for _, event := range streams[0].Events {
		name := ""
		for _, share := range shares {
			if event.Resource == "share/"+share.Name && strings.Contains(event.Project, "-data") {
				name = share.Name
			}
		}
		said := failedOver.FindStringSubmatch(event.Message)
		switch {
		case event.Kind == "node.down":
			down[strings.TrimPrefix(event.Resource, "node/")] = event.At
		case name == "":
		case event.Kind == "share.promoted":
			all = append(all, model.Takeover{Share: name, From: epochAt(acks, name, event.At), Planned: true, At: event.At})
		case event.Kind == "share.failover" && said != nil:
			t := model.Takeover{Share: name, At: event.At}
			t.LeftBehind, _ = time.ParseDuration(said[3]) // 0 excuses nothing
			if at, known := down[said[2]]; known {
				t.At = at
			}
			t.From = epochAt(acks, name, t.At)
			all = append(all, t)
		}
	}
	return all
}

// epochAt is the newest epoch of a share in which a write was acknowledged that began before.
func epochAt(acks []model.Ack, share string, at time.Duration) (epoch uint64) {
	for _, ack := range acks {
		if ack.Share == share && ack.Call < at {
			epoch = max(epoch, ack.Epoch)
		}
	}
	return epoch
}
