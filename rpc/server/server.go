// Package server is the gRPC edge of a node: it answers every service of the API from the replicated state, and turns
// requests that change something into commands. It decides everything that is not deterministic (identifiers, the time,
// placement, passwords); whether a command is allowed is decided again, for good, by package fsm.
//
// It does not know Raft, gossip, drivers or actors: what it needs of them are the small interfaces of Config. Every request
// is authenticated against the users of the cluster, and requests that change something are handed to the leader.
package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/placement"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// State is the replicated state as this node has it.
type State interface {
	// Apply commits the command. The error says that this was not decided, or not known to be (cairn.ErrUnavailable,
	// ErrUnknownOutcome, ErrTimeout, ErrUpgrade); a refusal is in the result.
	Apply(ctx context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error)
	// ReadView returns a state that includes everything that was committed before the call.
	ReadView(ctx context.Context) (*fsm.View, error)
	// View returns the node's own copy, however old.
	View() *fsm.View
	// Machine is for dry runs, subscriptions and the divergence alarm.
	Machine() *fsm.Machine
}

// Leadership is who leads, and the way there.
type Leadership interface {
	// Leader returns the leader's node and address, "" if none is known.
	Leader() (cairn.NodeID, string)
	// AwaitLeader is Leader that waits out an election; cairn.ErrUnavailable says that it did not end.
	AwaitLeader(ctx context.Context) (cairn.NodeID, string, error)
	IsLeader() bool
	// Conn returns the connection to a peer, which the callee keeps.
	Conn(ctx context.Context, node cairn.NodeID) (*grpc.ClientConn, error)
	// TransferLeadership returns when the node leads, or some other one if node is "".
	TransferLeadership(ctx context.Context, node cairn.NodeID) error
}

// Membership is the cluster as Raft has it.
type Membership interface {
	Status() Status
	// RemoveMember takes the node out of Raft and commits fsm.RemoveNode. It may be repeated.
	RemoveMember(ctx context.Context, meta fsm.Meta, node cairn.NodeID, force bool) error
}

// Authority signs certificates. Its methods run on the leader only, and repeated with the same token they give the same
// answer.
type Authority interface {
	// IssueUser signs the request for the user and commits the user with the certificate's serial and end. PEM.
	IssueUser(ctx context.Context, meta fsm.Meta, name string, role cairn.UserRole, project cairn.ProjectID,
		csrDER []byte, ttl time.Duration) (certificate []byte, err error)
	// CreateToken makes a join token for a node of that name and commits it.
	CreateToken(ctx context.Context, meta fsm.Meta, name string, ttl time.Duration) (token string, node cairn.NodeID, err error)
}

// Status is what one node knows of Raft.
type Status struct {
	Leader  cairn.NodeID // "" if none is known
	Term    uint64
	Members []Member
}

// Member is a node in the Raft configuration.
type Member struct {
	Node    cairn.NodeID
	Address string
	Voter   bool
	// ClockOffset is the node's clock minus the leader's, and LastIndex the newest entry that the node is known to have;
	// only the leader knows them.
	ClockOffset time.Duration
	LastIndex   uint64
}

// ActorStatus is what the node that hosts a replica says about its actor. The zero value is an actor with nothing to do.
type ActorStatus struct {
	Queued    bool
	Since     time.Time // of the pass that runs now; zero if none does
	Step      string    // of that pass, or of the last one that failed
	Attempts  int       // passes that failed in a row
	LastError string
	Next      time.Time // when it looks again by itself; zero if it waits to be woken
}

// Replication is the soft state of standbys, and failover on an operator's word.
type Replication interface {
	// SyncStates asks a node how far its standbys are. What it knows nothing of is left out.
	SyncStates(ctx context.Context, node cairn.NodeID, ids []cairn.ReplicaID) ([]SyncState, error)
	// Waits says why a share whose active replica's node is down has not failed over, "" if there is nothing to say.
	Waits(share cairn.ShareID) string
	// Force fails the share over to the replica and returns how much time of writes stays behind.
	Force(ctx context.Context, meta fsm.Meta, share cairn.ShareID, replica cairn.ReplicaID) (time.Duration, error)
	// Drill has a node try out one of its standbys.
	Drill(ctx context.Context, node cairn.NodeID, standby cairn.ReplicaID) (Drill, error)
}

// SyncState is how far a standby is.
type SyncState struct {
	Replica         cairn.ReplicaID
	Lag             time.Duration // since it certainly was as the active one; negative: never
	Behind          int64         // bytes, estimate
	Received, Total int64         // of the transfer under way
	Error           string
}

// Config is what a server is made of. All fields are needed except those that say otherwise.
type Config struct {
	Self       cairn.NodeID
	State      State
	Leadership Leadership
	Membership Membership
	Authority  Authority
	// Explain asks the hosting node for the actor of a replica; an error says that it did not answer.
	Explain func(ctx context.Context, node cairn.NodeID, replica cairn.ReplicaID) (ActorStatus, error)
	// Replication is what the leader knows of standbys, and can do with them.
	Replication Replication
	// PoolFree is the leader's telemetry: bytes free in a pool, -1 if not known.
	PoolFree func(cairn.PoolID) int64
	// PasswordKey is the cluster's key for passwords of access rules, the same on all nodes.
	PasswordKey []byte
	// CA is the cluster's certificate, PEM.
	CA       []byte
	Now      func() time.Time      // time.Now if nil
	Logger   *slog.Logger          // discards if nil
	Registry prometheus.Registerer // of its own if nil
}

// Server answers the API. Its zero value is of no use; call New.
type Server struct {
	cfg    Config
	limits limits
	census placement.Census
}

// limits are the times that a server waits; tests make them shorter.
type limits struct {
	request    time.Duration // deadline of a request that comes without one
	check      time.Duration // for a linearizable look at the users, when the node's own copy does not know the caller
	slowCall   time.Duration // a call that takes longer is worth a log line
	slowReader time.Duration // for a follower of events to take one message
	alive      time.Duration // between two signs of life of a stream
}

// New returns a server that answers as soon as it is registered.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	return &Server{cfg: cfg, limits: limits{
		request: 30 * time.Second, check: 5 * time.Second, slowCall: time.Second, slowReader: 10 * time.Second, alive: 5 * time.Second,
	}}
}

// Register adds every service of the API, health and reflection to g, which must have been made with Options.
func (s *Server) Register(g *grpc.Server) {
	pb.RegisterShareServiceServer(g, &shareService{Server: s})
	pb.RegisterReplicaServiceServer(g, &replicaService{Server: s})
	pb.RegisterSnapshotServiceServer(g, &snapshotService{Server: s})
	pb.RegisterAccessServiceServer(g, &accessService{Server: s})
	pb.RegisterTaskServiceServer(g, &taskService{Server: s})
	pb.RegisterTypeServiceServer(g, &typeService{Server: s})
	pb.RegisterQuotaServiceServer(g, &quotaService{Server: s})
	pb.RegisterEventServiceServer(g, &eventService{Server: s})
	pb.RegisterClusterServiceServer(g, &clusterService{Server: s})
	pb.RegisterNodeServiceServer(g, &nodeService{Server: s})
	pb.RegisterPoolServiceServer(g, &poolService{Server: s})
	pb.RegisterUserServiceServer(g, &userService{Server: s})
	healthpb.RegisterHealthServer(g, &healthService{Server: s})
	reflection.Register(g)
}

// at is the time that a command carries.
func (s *Server) at() int64 { return s.cfg.Now().UnixNano() }
