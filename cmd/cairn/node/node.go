package node

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/fence"
	"github.com/cairn-storage/cairn/drivers/webdav"
	"github.com/cairn-storage/cairn/failover"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/gateway"
	"github.com/cairn-storage/cairn/replication"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
	"github.com/cairn-storage/cairn/rpc/server"
)

// closeTimeout is how long calls and passes in progress get when the server stops; handOverTimeout is for the leadership.
const (
	closeTimeout    = 5 * time.Second
	handOverTimeout = 2 * time.Second
)

// Node is a server that runs. Its parts are started by Open and Serve and ended by Serve, in this order: no new requests,
// no new passes of actors, then the member of the cluster.
type Node struct {
	config Config
	logger *slog.Logger
	member *cluster.Node
	pools  []pool
	// exporters serve the shares of this node, by protocol.
	exporters map[cairn.Protocol]drivers.Exporter
	runtime   *actors.Runtime
	waker     *waker
	fencer    *replica.Fencer
	gate      *fence.Keeper // nil without NFS
	free      *freeSpace
	copies    *replicator
	gateway   *gateway.Gateway
	failover  *failover.Controller
	grpc      *grpc.Server
	http      *http.Server
	port      net.Listener // of http
}

// Run runs a server until the context ends or it cannot go on.
func Run(ctx context.Context, config Config, logger *slog.Logger) error {
	n, err := Open(ctx, config, Drivers(), logger)
	if err != nil {
		return err
	}
	return n.Serve(ctx)
}

// Open puts a server together. Both ports are bound, nothing is served yet.
func Open(ctx context.Context, config Config, drivers map[string]OpenPool, logger *slog.Logger) (_ *Node, err error) {
	id, err := cluster.LoadIdentity(config.DataDir)
	if err != nil {
		return nil, err
	}
	if config.Name != "" && config.Name != id.Name {
		return nil, fmt.Errorf("data directory %s: belongs to node %s, but the configuration is for %s: %w", config.DataDir, id.Name, config.Name, cairn.ErrPrecondition)
	}
	n := &Node{config: config, logger: logger.With("node", id.Name)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.abandon())
		}
	}()
	if n.pools, err = openPools(ctx, id.Node, config, drivers, n.logger); err != nil {
		return nil, err
	}
	if n.port, err = listen("http", config.HTTP); err != nil {
		return nil, err
	}
	n.free = newFreeSpace(n.pools, id.Patience)
	n.free.measure(ctx)
	assembled := make(chan struct{})
	duty := func(ctx context.Context) { // the member may lead before the rest is there
		select {
		case <-assembled:
			n.failover.Run(ctx)
		case <-ctx.Done():
		}
	}
	if n.member, err = openMember(ctx, config, n.free, duty, n.logger); err != nil {
		return nil, err
	}
	if err := n.assemble(ctx); err != nil {
		return nil, err
	}
	close(assembled)
	return n, nil
}

func openMember(ctx context.Context, config Config, free *freeSpace, duty func(context.Context), logger *slog.Logger) (*cluster.Node, error) {
	listener, err := listen("listen", config.Listen)
	if err != nil {
		return nil, err
	}
	return cluster.Open(ctx, cluster.Config{
		DataDir: config.DataDir, Listener: listener, Advertise: config.advertised(config.Listen),
		GossipBind: config.Gossip, GossipAdvertise: config.advertised(config.Gossip),
		Free: free.bytes, Duties: []func(context.Context){duty}, Logger: logger,
	})
}

// listen binds a port. key is the line of the configuration that says which.
func listen(key, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %q: something else listens there; stop it, or change %s in the configuration: %w", key, address, key, cairn.ErrInUse)
	case err != nil:
		return nil, fmt.Errorf("%s %q: %w", key, address, err)
	}
	return listener, nil
}

// assemble makes the parts that need the member.
func (n *Node) assemble(ctx context.Context) error {
	self := n.member.Identity().Node
	guard := &replica.Guard{Node: self, Viewer: n.member, LeaseValid: n.member.LeaseValid}
	files := webdav.New(webdav.Config{
		BaseURL: "https://" + n.config.advertised(n.port.Addr().String()), Guard: guard, Logger: n.logger,
	})
	n.exporters = map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: files}
	shared, err := openNFS(n.config, guard, n.logger)
	if err != nil {
		return err
	}
	if shared != nil {
		n.exporters[cairn.ProtocolNFS] = shared
		if n.gate, err = keepNFS(ctx, n.config, shared, guard, n.member, n.logger); err != nil {
			return err
		}
		n.exporters[cairn.ProtocolNFS] = n.gate
	}
	n.copies = newReplicator(n.member)
	actor := replica.New(replica.Config{
		Node: self, Viewer: n.member, Applier: replica.NewGatherer(n.member), Pools: driversOf(n.pools),
		Exporters: n.exporters, Puller: n.copies.client, Hint: n.copies.hints.Publish, Logger: n.logger,
	})
	n.runtime = actors.New(actors.Config{Logger: n.logger})
	n.runtime.Handle(cairn.KindReplica, actor)
	n.runtime.Handle(cairn.KindPool, &replica.Sweeper{Actor: actor, Wake: n.runtime.Wake})
	n.copies.feed(n.config, n.member, actor, n.runtime.Wake)
	n.waker = newWaker(self, n.member.Machine(), func(key actors.Key) {
		actor.Interrupt(n.member.View(), cairn.ReplicaID(key.ID))
		n.runtime.Wake(key)
	})
	n.failover = failover.New(failover.Config{
		Viewer: n.member, Applier: n.member, Asker: n.copies.client, Leases: n.member, Changes: n.member.Machine(), Logger: n.logger,
	})

	n.fencer = &replica.Fencer{Actor: actor, Guard: guard, Wake: n.runtime.Wake}
	if shared != nil {
		n.fencer.Protocols = []cairn.Protocol{cairn.ProtocolNFS}
	}
	n.gateway = newGateway(n.config, n.member, files, n.logger)
	registry := newRegistry(n.member, n.runtime, actor, files, n.gateway)
	explainer := &actorService{runtime: n.runtime}
	id := n.member.Identity()
	api := server.New(server.Config{
		Self: self, State: n.member, Leadership: n.member, Membership: membership{n.member}, Authority: n.member,
		Explain: explainer.explain(n.member, self), Replication: &standbys{n.copies.client, n.failover}, PoolFree: n.member.PoolFree, PasswordKey: id.ClusterKey,
		CA:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Authority.Certificate.Raw}),
		Logger: n.logger, Registry: registry,
	})
	n.grpc = grpc.NewServer(append(api.Options(n.member.ServerCredentials()), replication.ServerOption())...)
	api.Register(n.grpc)
	n.member.RegisterPeer(n.grpc)
	peerv1.RegisterActorServiceServer(n.grpc, explainer)
	peerv1.RegisterReplicationServiceServer(n.grpc, n.copies.server)
	n.http = httpServer(n.member, n.gateway, registry, n.logger)
	return nil
}

// Member is the node's part in the cluster.
func (n *Node) Member() *cluster.Node { return n.member }

// Serve serves until the context ends, which is a request to stop, or until the node cannot go on.
func (n *Node) Serve(ctx context.Context) error {
	serving, cancel := context.WithCancel(n.handOver(ctx))
	defer cancel()
	group, serving := errgroup.WithContext(serving)
	context.AfterFunc(serving, n.copies.server.Close) // or a graceful stop would wait for the streams
	group.Go(func() error { n.copies.watcher.Run(serving); return nil })
	group.Go(func() error { return serveGRPC(serving, n.grpc, n.member.APIListener()) })
	group.Go(func() error { return serveHTTP(serving, n.http, n.port) })
	group.Go(func() error { n.waker.run(serving); return nil })
	group.Go(func() error { n.gateway.Run(serving); return nil })
	group.Go(func() error { n.free.run(serving); return nil })
	group.Go(func() error { n.fencer.Run(serving); return nil })
	if n.gate != nil {
		group.Go(func() error { n.gate.Run(serving); return nil })
	}
	group.Go(func() error { return n.announceAll(serving) })
	group.Go(func() error {
		select {
		case <-serving.Done():
			return nil
		case err := <-n.member.Stopped():
			return err
		}
	})
	err := group.Wait()
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer stop()
	return errors.Join(err, n.runtime.Close(grace), n.copies.connections.Close(), closeExporters(n.exporters), n.member.Close(), closePools(n.pools))
}

// handOver returns a context that ends after ctx: as soon as this node has given the leadership away. Meanwhile it still
// answers, so clients see a short pause instead of an election. Where nobody can take over, the election comes anyway.
func (n *Node) handOver(ctx context.Context) context.Context {
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		defer stop()
		if !n.member.IsLeader() {
			return
		}
		grace, cancel := context.WithTimeout(stopping, handOverTimeout)
		defer cancel()
		if err := n.member.TransferLeadership(grace, ""); err != nil {
			n.logger.Info("leadership is not handed over; the others elect", "reason", err)
		}
	})
	return stopping
}

// abandon releases what Open had got hold of when it failed.
func (n *Node) abandon() error {
	var err error
	if n.member != nil {
		err = n.member.Close()
	}
	if n.port != nil {
		err = errors.Join(err, n.port.Close())
	}
	return errors.Join(err, closeExporters(n.exporters), closePools(n.pools))
}

// serveGRPC serves until the context ends, then lets calls in progress finish for a while.
func serveGRPC(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	stopped := make(chan struct{})
	defer func() { <-stopped }()
	ended := context.AfterFunc(ctx, func() {
		defer close(stopped)
		timer := time.AfterFunc(closeTimeout, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	})
	err := server.Serve(listener)
	if ended() {
		close(stopped)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("cluster port: %w", err)
}

// announceInterval is how long the node waits before it tells the cluster of itself again, after that failed.
const announceInterval = 500 * time.Millisecond

// announceAll announces the node, and once more if it learns to keep clients of NFS away later than that.
func (n *Node) announceAll(ctx context.Context) error {
	unfit := n.gate != nil && n.gate.Unfit() != nil
	if err := n.announce(ctx); err != nil || !unfit {
		return err
	}
	select {
	case <-n.gate.Fit():
		return n.announce(ctx)
	case <-ctx.Done():
		return nil
	}
}

// announce tells the cluster where this node is and what it has, until it is heard. What can be mended by waiting, such as
// a cluster without a leader, is waited for; a refusal ends the server.
func (n *Node) announce(ctx context.Context) error {
	timer := time.NewTicker(announceInterval)
	defer timer.Stop()
	for told := false; ; {
		err := n.announceOnce(ctx)
		switch {
		case err == nil:
			n.logger.Info("node is a member", "address", n.config.advertised(n.config.Listen), "pools", len(n.pools))
			for _, pool := range n.pools {
				n.runtime.Wake(actors.Key{Kind: cairn.KindPool, ID: string(pool.id)})
			}
			return nil
		case ctx.Err() != nil:
			return nil
		case !passing(err):
			return fmt.Errorf("announce: %w", err)
		case !told:
			n.logger.Warn("cluster does not answer; the node goes on asking", "error", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}

// passing reports whether an error may go away by itself.
func passing(err error) bool {
	return errors.Is(err, cairn.ErrUnavailable) || errors.Is(err, cairn.ErrUnknownOutcome) || errors.Is(err, cairn.ErrTimeout) ||
		errors.Is(err, context.DeadlineExceeded)
}

func (n *Node) announceOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	id := n.member.Identity()
	var rows []cairn.Pool
	for _, p := range n.pools {
		row, err := p.row(ctx, n.exporters, n.config.NFS, n.gate)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	return n.member.Announce(ctx, cairn.Node{
		ID: id.Node, Name: id.Name, Address: n.config.advertised(n.config.Listen), HTTPAddress: n.config.advertised(n.config.HTTP),
		Zone: n.config.Zone, Labels: n.config.Labels, State: cairn.NodeUp, CommandVersion: fsm.CurrentVersion,
	}, rows)
}
