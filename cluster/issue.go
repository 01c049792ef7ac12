package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/fsm"
)

// What is shown once must come out the same when a request is asked again with its idempotency token. So a secret is
// derived from that and the cluster key, which only nodes have, and is kept nowhere.

// derive returns 32 bytes for a purpose; random ones if the request has no token to repeat.
func (n *Node) derive(purpose, token, name string) ([]byte, error) {
	if token == "" {
		return identity.NewSecret()
	}
	mac := hmac.New(sha256.New, n.identity.ClusterKey)
	for _, part := range []string{purpose, token, name} {
		fmt.Fprintf(mac, "%d:%s", len(part), part) // a hash never fails to be written
	}
	return mac.Sum(nil), nil
}

// CreateToken makes a join token for a node of that name, and returns it with the identifier that the node will have. ttl 0
// is an hour. It runs at the leader, which must have announced itself: in a cluster whose first row is somebody else's, the node
// that made it would count as removed.
func (n *Node) CreateToken(ctx context.Context, meta fsm.Meta, name string, ttl time.Duration) (string, cairn.NodeID, error) {
	switch {
	case !n.engine.Leading():
		return "", "", n.notLeader()
	case n.View().Node(n.identity.Node) == nil:
		return "", "", fmt.Errorf("join token: the leader %s has not announced itself yet: %w", n.identity.Name, cairn.ErrUnavailable)
	}
	ttl, err := identity.TokenTTL(ttl)
	if err != nil {
		return "", "", err
	}
	secret, err := n.derive("join token", meta.Token, name)
	if err != nil {
		return "", "", err
	}
	ids := [2]uuid.UUID{}
	for i := range ids {
		if ids[i], err = uuid.NewV7(); err != nil {
			return "", "", fmt.Errorf("join token: %w", err)
		}
	}
	result, err := n.Apply(ctx, meta, &fsm.CreateJoinToken{Token: cairn.JoinToken{
		ID: cairn.TokenID(ids[0].String()), Node: cairn.NodeID(ids[1].String()), Name: name,
		SecretHash: identity.SecretHash(secret), ExpiresAt: time.Unix(0, meta.At).Add(ttl).UnixNano(),
	}})
	if err == nil {
		err = result.Err
	}
	if err != nil {
		return "", "", err
	}
	row := n.View().Token(cairn.TokenID(result.ID)) // of the first attempt, if this was a second
	if row == nil {
		return "", "", fmt.Errorf("join token for node %s: the request was carried out, and it is gone since, used or deleted: %w", name, cairn.ErrNotFound)
	}
	text, err := Token{
		ID: row.ID, Cluster: n.identity.Cluster.ID, ClusterName: n.identity.Cluster.Name,
		Fingerprint: n.identity.Cluster.CAFingerprint, Node: row.Node, Name: row.Name, Secret: secret,
		Addresses: n.memberAddresses(), ExpiresAt: row.ExpiresAt,
	}.Encode()
	return text, row.Node, err
}

// IssueUser signs a user's key and commits the user. The certificate is worth nothing before the row that names its serial.
// It runs at the leader.
func (n *Node) IssueUser(ctx context.Context, meta fsm.Meta, name string, role cairn.UserRole, project cairn.ProjectID,
	csrDER []byte, ttl time.Duration) ([]byte, error) {
	if !n.engine.Leading() {
		return nil, n.notLeader()
	}
	serial, err := n.derive("user serial", meta.Token, name)
	if err != nil {
		return nil, err
	}
	der, err := n.identity.Authority.SignUser(csrDER, name, serial, ttl, n.config.Now())
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate of user %s: %w", name, err)
	}
	result, err := n.Apply(ctx, meta, &fsm.CreateUser{User: cairn.User{
		Name: name, Role: role, Project: project, Serial: identity.Serial(certificate),
		ExpiresAt: certificate.NotAfter.UnixNano(), CreatedAt: meta.At,
	}})
	if err == nil {
		err = result.Err
	}
	if err != nil {
		return nil, err
	}
	return identity.EncodeCertificate(der), nil
}
