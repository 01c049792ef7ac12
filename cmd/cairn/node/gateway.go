package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/drivers/webdav"
	"github.com/cairn-storage/cairn/gateway"
)

// GatewayConfig says how shares of other nodes are reached through this one.
type GatewayConfig struct {
	// Wait is how long a request waits while nobody serves its share, such as 15s, which is the default; 0s is not at all.
	Wait string `toml:"wait"`
}

// maxGatewayWait is longer than any client waits for an answer.
const maxGatewayWait = 5 * time.Minute

func (c *GatewayConfig) wait() (time.Duration, error) {
	if c.Wait == "" {
		return gateway.DefaultWait, nil
	}
	wait, err := time.ParseDuration(c.Wait)
	if err != nil || wait < 0 || wait > maxGatewayWait {
		return 0, fmt.Errorf("gateway.wait %q: want a time such as 15s, at most 5m: %w", c.Wait, cairn.ErrInvalid)
	}
	return wait, nil
}

func newGateway(config Config, member *cluster.Node, files *webdav.Exporter, logger *slog.Logger) *gateway.Gateway {
	wait, _ := config.Gateway.wait() // was checked when the configuration was read
	id := member.Identity()
	return gateway.New(gateway.Config{
		Self: id.Node, State: member.Machine(), Local: knownCertificates(member, files), Unchanged: webdav.Unchanged,
		Dial: dialHTTP(id), Node: nodeOf, Roots: id.Roots(), Wait: wait, Logger: logger,
	})
}

// nodeOf is the node that a connection's peer has proven to be.
func nodeOf(state tls.ConnectionState) (cairn.NodeID, error) {
	subject, err := identity.PeerOf(state)
	if err != nil {
		return "", err
	}
	return subject.Node()
}

// keepAlive notices a node that was unplugged while it owes an answer.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// dialHTTP connects to the HTTP ports of other nodes. They are known by their certificates, and not by their addresses.
func dialHTTP(id *cluster.Identity) func(context.Context, cairn.NodeID, string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 2 * time.Second, KeepAliveConfig: keepAlive}
	return func(ctx context.Context, node cairn.NodeID, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, dialer.Timeout)
		defer cancel()
		secure := tls.Client(conn, id.ClientConfig("http/1.1", node))
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secure, nil
	}
}
