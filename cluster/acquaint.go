package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn/cluster/identity"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// acquaint tells gossip where the members are that it has not met. Only they know where they gossip, so they are asked.
func (n *Node) acquaint() {
	every(n.life.ctx, 10*n.config.Timing.Probe, func() {
		met := make(map[string]bool)
		for _, m := range n.gossip.Members() {
			met[m.Address] = true
		}
		for _, address := range n.acquaintances() {
			if met[address] {
				continue
			}
			ctx, cancel := context.WithTimeout(n.life.ctx, n.config.Timing.Dial)
			hello, err := n.hello(ctx, address)
			cancel()
			if err == nil {
				err = n.gossip.Join(hello.GetGossipAddress())
			}
			if err != nil {
				n.config.Logger.Debug("gossip: member does not answer", "address", address, "error", err)
			}
		}
	})
}

// acquaintances are the addresses of all other members that this node has ever heard of.
func (n *Node) acquaintances() []string {
	var addresses []string
	seen := map[string]bool{n.config.Advertise: true, "": true}
	add := func(address string) {
		if !seen[address] {
			seen[address] = true
			addresses = append(addresses, address)
		}
	}
	for node := range n.View().Nodes() {
		add(node.Address)
	}
	for _, server := range n.engine.Servers() {
		_, hostPort := splitRaftAddress(server.Address)
		add(hostPort)
	}
	for _, m := range n.gossip.Members() {
		add(m.Address)
	}
	for _, address := range append(append([]string{}, n.identity.Peers...), n.config.Seeds...) {
		add(address)
	}
	return addresses
}

// hello asks whoever is at an address, provided that it is a node of this cluster.
func (n *Node) hello(ctx context.Context, address string) (*peerv1.HelloResponse, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(handshaken{}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return dialTLS(ctx, n.config.Network.Dial, address, n.identity.ClientConfig(identity.ProtocolGRPC, ""))
		}),
		grpc.WithDisableRetry())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return peerv1.NewPeerServiceClient(conn).Hello(ctx, &peerv1.HelloRequest{})
}

// dialTLS connects to an address; config says who must be there.
func dialTLS(ctx context.Context, dial Dial, address string, config *tls.Config) (net.Conn, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}
