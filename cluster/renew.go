package cluster

import (
	"context"
	"time"

	"google.golang.org/grpc/keepalive"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

const (
	renewInterval = 24 * time.Hour
	renewRetry    = time.Minute
)

// renew replaces this node's certificate when a third of its time is used: it looks when the node starts and daily.
func (n *Node) renew() {
	next := time.Duration(0)
	for {
		select {
		case <-time.After(next):
		case <-n.life.ctx.Done():
			return
		}
		next = renewInterval
		if n.config.Now().Before(n.identity.RenewAt()) {
			continue
		}
		if err := n.renewNow(n.life.ctx); err != nil {
			n.config.Logger.Warn("certificate: renew", "until", n.identity.Credential().Leaf.NotAfter, "error", err)
			next = renewRetry
		}
	}
}

// renewNow asks the leader to sign a new key for the same hosts.
func (n *Node) renewNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.config.Timing.Call)
	defer cancel()
	leaf := n.identity.Credential().Leaf
	hosts := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	csr, keyPEM, err := identity.NewRequest(hosts)
	if err != nil {
		return err
	}
	var der []byte
	err = n.atLeader(ctx, func(leader cairn.NodeID) (err error) {
		if leader == n.identity.Node {
			der, err = n.identity.Authority.SignNode(csr, leader, n.config.Now())
			return err
		}
		conn, err := n.peers.ready(ctx, leader)
		if err != nil {
			return err
		}
		answer, err := peerv1.NewPeerServiceClient(conn).RenewCertificate(ctx, &peerv1.RenewCertificateRequest{CertificateRequest: csr})
		der = answer.GetCertificate()
		return fromStatus(err)
	})
	if err != nil {
		return err
	}
	return n.identity.Renew(der, keyPEM)
}

func wallClock() time.Time { return time.Now() }

func keepaliveFor(idle time.Duration) keepalive.ServerParameters {
	return keepalive.ServerParameters{MaxConnectionIdle: idle, MaxConnectionAge: idle}
}
