package cluster

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/consensus"
)

// maxVoters is enough to lose two machines; more would only make every commit slower.
const maxVoters = 5

// elector is a server as the choice of voters sees it.
type elector struct {
	id      raft.ServerID
	votes   bool
	leads   bool
	healthy bool // or not unhealthy for long enough to be given up
	stable  bool // healthy for long enough to be promoted
}

// voters chooses who is promoted and who demoted.
//
// Five voters at most, and rather an odd number: four tolerate no more failures than three. Two are the exception to one:
// they tolerate none either, but what was acknowledged is on two disks. A voter that fails is replaced if somebody healthy
// can take its place, and otherwise stays: it was never the failure that lowered the quorum, and it may come back.
func voters(servers []elector) (promote, demote []raft.ServerID) {
	slices.SortStableFunc(servers, func(a, b elector) int { return cmp.Compare(a.id, b.id) })
	var failed, well, waiting []elector
	for _, s := range servers {
		switch {
		case s.votes && s.healthy || s.leads:
			well = append(well, s)
		case s.votes:
			failed = append(failed, s)
		case s.stable:
			waiting = append(waiting, s)
		}
	}
	want := wantedVoters(len(well) + len(failed) + len(waiting))
	for len(failed) > 0 && len(waiting) > 0 {
		promote, demote = append(promote, waiting[0].id), append(demote, failed[0].id)
		well, waiting, failed = append(well, waiting[0]), waiting[1:], failed[1:]
	}
	for have := len(well) + len(failed); have < want && len(waiting) > 0; have++ {
		promote, waiting = append(promote, waiting[0].id), waiting[1:]
	}
	for surplus := len(well) + len(failed) - want; surplus > 0; surplus-- {
		if len(failed) > 0 {
			demote, failed = append(demote, failed[0].id), failed[1:]
			continue
		}
		last := slices.IndexFunc(well, func(s elector) bool { return !s.leads })
		demote, well = append(demote, well[last].id), slices.Delete(well, last, last+1)
	}
	return promote, demote
}

func wantedVoters(servers int) int {
	switch {
	case servers >= maxVoters:
		return maxVoters
	case servers > 2 && servers%2 == 0:
		return servers - 1
	}
	return servers
}

// newPilot returns the autopilot of a term. It promotes and demotes; members come and go by their rows only.
func (t *term) newPilot() *autopilot.Autopilot {
	timing := t.node.config.Timing
	return autopilot.New(t.raft, pilotView{t},
		autopilot.WithPromoter(promoter{}),
		autopilot.WithUpdateInterval(timing.Pilot/2),
		autopilot.WithReconcileInterval(timing.Pilot),
		autopilot.WithLogger(consensus.Logger(t.node.config.Logger)))
}

// pilotView tells autopilot of the nodes. Their health comes from leases and heartbeats, not from gossip.
type pilotView struct{ term *term }

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (v pilotView) AutopilotConfig() *autopilot.Config {
	timing := v.term.node.config.Timing
	return &autopilot.Config{
		LastContactThreshold:    timing.Lease.TTL,
		MaxTrailingLogs:         timing.Raft.TrailingLogs,
		ServerStabilizationTime: timing.Stable,
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (pilotView) NotifyState(*autopilot.State) {}

// FetchServerStats implements autopilot.ApplicationIntegration, from memory.
func (v pilotView) FetchServerStats(_ context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	stats := make(map[raft.ServerID]*autopilot.ServerStats, len(servers))
	for id := range servers {
		if report, age, ok := v.term.reports.of(cairn.NodeID(id)); ok {
			stats[id] = &autopilot.ServerStats{LastContact: age, LastTerm: report.lastTerm, LastIndex: report.lastLog}
		}
	}
	return stats
}

// KnownServers implements autopilot.ApplicationIntegration.
func (v pilotView) KnownServers() map[raft.ServerID]*autopilot.Server {
	servers := make(map[raft.ServerID]*autopilot.Server)
	for node := range v.term.node.View().Nodes() {
		status := autopilot.NodeFailed
		if _, _, heard := v.term.reports.of(node.ID); heard && node.State == cairn.NodeUp {
			status = autopilot.NodeAlive
		}
		servers[raftID(node.ID)] = &autopilot.Server{
			ID: raftID(node.ID), Name: node.Name, Address: raftAddress(node.ID, node.Address), NodeStatus: status,
			RaftVersion: raft.ProtocolVersionMax, IsLeader: node.ID == v.term.node.identity.Node,
		}
	}
	return servers
}

// RemoveFailedServer implements autopilot.ApplicationIntegration. It is not asked to.
func (pilotView) RemoveFailedServer(*autopilot.Server) {}

// promoter is the choice of voters in autopilot's terms.
type promoter struct{}

// CalculatePromotionsAndDemotions implements autopilot.Promoter.
func (promoter) CalculatePromotionsAndDemotions(config *autopilot.Config, state *autopilot.State) (changes autopilot.RaftChanges) {
	now, settled := time.Now(), state.ServerStabilizationTime(config)
	// Nobody has failed before he was silent for as long as a newcomer must be heard: a leader that is new itself has
	// heard nobody yet.
	patient := config.ServerStabilizationTime
	var servers []elector
	for id, s := range state.Servers {
		servers = append(servers, elector{
			id: id, votes: s.HasVotingRights(), leads: s.State == autopilot.RaftLeader,
			healthy: s.Health.Healthy || now.Sub(s.Health.StableSince) < patient, stable: s.Health.IsStable(now, settled),
		})
	}
	changes.Promotions, changes.Demotions = voters(servers)
	return changes
}

// GetServerExt implements autopilot.Promoter.
func (promoter) GetServerExt(*autopilot.Config, *autopilot.ServerState) any { return nil }

// GetStateExt implements autopilot.Promoter.
func (promoter) GetStateExt(*autopilot.Config, *autopilot.State) any { return nil }

// GetNodeTypes implements autopilot.Promoter.
func (promoter) GetNodeTypes(*autopilot.Config, *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	return nil
}

// FilterFailedServerRemovals implements autopilot.Promoter: none are removed.
func (promoter) FilterFailedServerRemovals(*autopilot.Config, *autopilot.State, *autopilot.FailedServers) *autopilot.FailedServers {
	return &autopilot.FailedServers{}
}

// IsPotentialVoter implements autopilot.Promoter.
func (promoter) IsPotentialVoter(autopilot.NodeType) bool { return true }
