package virtual

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/failover"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/replication"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// scale is what every timing of the product is multiplied by.
const scale = 100

func timing() cluster.Timing {
	t := cluster.DefaultTiming()
	for _, d := range []*time.Duration{
		&t.Raft.Heartbeat, &t.Raft.DiskLimit, &t.Raft.RPC, &t.Lease.TTL, &t.Lease.Margin, &t.Heartbeat, &t.Election, &t.Stable, &t.Pilot, &t.Checkpoint,
		&t.Raft.Read, &t.Raft.Stop, &t.Dial, &t.Handshake, &t.Call, &t.Probe,
	} {
		*d *= scale
	}
	t.Raft.Commit = t.Raft.Heartbeat / 3 // the only one that is longer than in proportion: it is what an idle cluster costs most by
	t.Raft.SnapshotEvery, t.Raft.SnapshotCheck, t.Raft.TrailingLogs = 150, 5*time.Minute, 20
	return t
}

func failoverTiming() failover.Timing {
	t := failover.DefaultTiming()
	for _, d := range []*time.Duration{&t.Interval, &t.Ask, &t.Call, &t.Promotion, &t.Rest} {
		*d *= scale
	}
	return t
}

// machine is a computer with a disk. What is on the disk outlives its processes.
type machine struct {
	world   *world
	number  int
	name    string
	dir     string
	address string
	shelf   *shelf
	skew    atomic.Int64 // of its wall clock
	hung    atomic.Pointer[chan struct{}]
	full    atomic.Bool // the disk of its log
	log     tail        // what its processes said
	process *process    // nil while none runs; replaced by the judging goroutine, under the lock of the users once there are any
}

// process is one life of a server: what cmd/cairn/node puts together, but for the API and WebDAV.
type process struct {
	*machine
	dead     atomic.Bool // nothing that it still does counts
	failed   atomic.Bool // it has ended itself
	member   *cluster.Node
	self     cairn.NodeID
	pool     *pool
	guard    *replica.Guard
	exporter *exporter
	actor    *replica.Actor
	runtime  *actors.Runtime
	copies   *replication.Server
	conns    *replication.Connections
	grpc     *grpc.Server
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

var errDead = errors.New("the process is dead")

func (m *machine) now() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }

func (m *machine) dial(ctx context.Context, address string) (net.Conn, error) {
	return m.world.network.dial(ctx, m.name, address)
}

// boot starts a process, which announces itself as soon as somebody listens. The caller makes it that of the machine.
func (m *machine) boot() *process {
	w, logger := m.world, slog.New(slog.NewTextHandler(&m.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if w.verbose {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("on", m.name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{machine: m, cancel: cancel}
	ip := fmt.Sprintf("10.0.0.%d", m.number)
	began := time.Now()
	assembled := make(chan struct{})
	var decider *failover.Controller
	var err error
	p.member, err = cluster.Open(ctx, cluster.Config{
		DataDir: m.dir, Listener: w.network.listen(m.name, m.address), Advertise: m.address, GossipBind: ip + ":7451",
		Network: &cluster.Network{Dial: m.dial, Gossip: w.network.gossip(m.name, ip, 7451)},
		Timing:  timing(), Clock: func() time.Duration { return time.Since(began) }, Now: m.now, Logger: logger,
		Middleware: func(logs raft.LogStore) raft.LogStore { return &disk{logs, p} },
		Duties: []func(context.Context){func(ctx context.Context) {
			select {
			case <-assembled:
				decider.Run(ctx)
			case <-ctx.Done():
			}
		}},
	})
	if err != nil {
		w.t.Fatalf("%s does not start: %v", m.name, err)
	}
	p.watch()
	p.self = p.member.Identity().Node
	id := cairn.MakePoolID(p.self, "tank")
	p.pool = &pool{m.shelf, p}
	p.guard = &replica.Guard{Node: p.self, Viewer: p.member, LeaseValid: p.member.LeaseValid}
	p.exporter = &exporter{process: p, specs: make(map[drivers.ExportID]drivers.ExportSpec)}
	p.conns = &replication.Connections{Dial: p.member.Dial, Silence: scale * 10 * time.Second}
	client, hints := replication.NewClient(p.conns.Conn, 0), new(replication.Hints)
	gatherer := replica.NewGatherer(p.member)
	gatherer.Timeout *= scale
	p.actor = replica.New(replica.Config{
		Node: p.self, Viewer: p.member, Applier: gatherer, Pools: map[cairn.PoolID]drivers.Pool{id: p.pool},
		Exporters: map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: p.exporter},
		Puller:    client, Hint: hints.Publish, Now: m.now, Logger: logger, Recheck: scale * time.Minute, StepTimeout: scale * time.Minute,
	})
	p.runtime = actors.New(actors.Config{Logger: logger, SlotTimeout: scale * 10 * time.Second, Backoff: actors.Backoff{Min: scale * 200 * time.Millisecond, Max: scale * time.Minute}})
	p.runtime.Handle(cairn.KindReplica, p.actor)
	p.runtime.Handle(cairn.KindPool, &replica.Sweeper{Actor: p.actor, Wake: p.runtime.Wake})
	p.copies = replication.NewServer(replication.ServerConfig{Self: p.self, Viewer: p.member, Source: p.actor, Hints: hints, Caller: cluster.Caller})
	watcher := &replication.Watcher{Self: p.self, State: p.member.Machine(), Conn: p.conns.Conn, Wake: func(id cairn.ReplicaID) { p.wake(string(id)) }}
	decider = failover.New(failover.Config{Viewer: p.member, Applier: p.member, Asker: client, Leases: p.member, Changes: p.member.Machine(), Logger: logger, Timing: failoverTiming()})
	close(assembled)
	p.grpc = grpc.NewServer(replication.ServerOption(), grpc.Creds(p.member.ServerCredentials()),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true})) // as package rpc/server has it
	p.member.RegisterPeer(p.grpc)
	peerv1.RegisterReplicationServiceServer(p.grpc, p.copies)
	p.running.Go(func() { _ = p.grpc.Serve(p.member.APIListener()) })
	p.running.Go(func() { watcher.Run(ctx) })
	p.running.Go(func() { p.follow(ctx) })
	p.running.Go(func() { p.announce(ctx) })
	p.running.Go(func() {
		select {
		case <-p.member.Stopped():
			p.failed.Store(true)
		case <-ctx.Done():
		}
	})
	return p
}

func (p *process) wake(id string) {
	p.actor.Interrupt(p.member.View(), cairn.ReplicaID(id))
	p.runtime.Wake(actors.Key{Kind: cairn.KindReplica, ID: id})
}

// follow wakes actors after changes.
func (p *process) follow(ctx context.Context) {
	changes := make(chan []fsm.Change, 1)
	changes <- nil
	defer p.member.Machine().Subscribe(func(some []fsm.Change) {
		select {
		case changes <- some:
		default: // what is merged is everything
			select {
			case <-changes:
			default:
			}
			changes <- nil
		}
	})()
	for {
		select {
		case <-ctx.Done():
			return
		case some := <-changes:
			for key := range replica.Woken(p.member.View(), p.self, some) {
				if key.Kind == cairn.KindReplica {
					p.wake(key.ID)
				} else {
					p.runtime.Wake(key)
				}
			}
		}
	}
}

// announce tells the cluster of the node until it is heard.
func (p *process) announce(ctx context.Context) {
	pool := cairn.Pool{
		ID: cairn.MakePoolID(p.self, "tank"), Node: p.self, Name: "tank", Driver: "memory", Total: 1 << 40, OverSubscriptionPercent: 100,
		Protocols: []cairn.Protocol{cairn.ProtocolWebDAV}, Capabilities: drivers.CapabilitiesOf(p.pool),
	}
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, scale*30*time.Second)
		err := p.member.Announce(attempt, cairn.Node{HTTPAddress: p.address}, []cairn.Pool{pool})
		cancel()
		if err == nil {
			p.runtime.Wake(actors.Key{Kind: cairn.KindPool, ID: string(pool.ID)})
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(scale * 5 * time.Second):
		}
	}
}

// die ends the process as a crash does: its network goes first, and nothing that it still does reaches the disk.
func (p *process) die(silently bool) {
	p.dead.Store(true)
	p.world.network.kill(p.name, silently)
	p.world.network.change(func() { p.world.network.frozen[p.name] = true })
	p.release()
	p.cancel()
	p.copies.Close()
	p.grpc.Stop()
	ended, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	err := errors.Join(p.runtime.Close(ended), p.conns.Close(), p.member.Close())
	p.running.Wait()
	if err != nil && p.world.verbose {
		p.world.t.Logf("%s: %v", p.name, err)
	}
	p.world.network.change(func() { delete(p.world.network.frozen, p.name) })
}

// hang makes the disk of the log answer nothing until release.
func (m *machine) hang() {
	hung := make(chan struct{})
	m.hung.CompareAndSwap(nil, &hung)
}

func (m *machine) release() {
	if hung := m.hung.Swap(nil); hung != nil {
		close(*hung)
	}
}

// disk is the log of a process: each write takes a while, and one of a dead process does not happen, or is not heard of.
type disk struct {
	raft.LogStore
	process *process
}

func (d *disk) StoreLog(log *raft.Log) error { return d.StoreLogs([]*raft.Log{log}) }

func (d *disk) StoreLogs(logs []*raft.Log) error {
	if hung := d.process.hung.Load(); hung != nil {
		<-*hung
	}
	<-time.After(d.process.world.some(2 * time.Millisecond))
	if d.process.dead.Load() {
		return errDead
	}
	if d.process.full.Load() {
		return syscall.ENOSPC
	}
	if err := d.LogStore.StoreLogs(logs); err != nil {
		return err
	}
	d.process.stored(logs)
	<-time.After(d.process.world.some(2 * time.Millisecond))
	if d.process.dead.Load() {
		return errDead
	}
	return nil
}
