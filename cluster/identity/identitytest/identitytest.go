// Package identitytest makes the identities of nodes and users without a cluster, for tests of what is done with them.
package identitytest

import (
	"bytes"
	"crypto/tls"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
)

// Found makes the identity of the first node, and with it the authority that signs for the others.
func Found(t testing.TB) *identity.Identity {
	t.Helper()
	founder, err := identity.Found(t.TempDir(), "founder", "lab", nil, 0, time.Now())
	must(t, err)
	return founder
}

// Member makes a node's identity as joining does.
func Member(t testing.TB, founder *identity.Identity, node cairn.NodeID) *identity.Identity {
	t.Helper()
	candidate, err := identity.NewCandidate(t.TempDir(), identity.Token{
		ID: "t", Cluster: founder.Cluster.ID, Fingerprint: founder.Authority.Fingerprint(), Node: node, Name: string(node),
	}, []string{"127.0.0.1"})
	must(t, err)
	der, err := founder.Authority.SignNode(candidate.Request, node, time.Now())
	must(t, err)
	certificate, key, err := founder.Authority.EncodePEM()
	must(t, err)
	id, err := candidate.Accept(identity.Grant{
		Cluster: founder.Cluster, Certificate: der, AuthorityPEM: certificate, SignerPEM: key,
		GossipKey: founder.GossipKey, ClusterKey: founder.ClusterKey,
	})
	must(t, err)
	return id
}

// User makes a user's certificate.
func User(t testing.TB, founder *identity.Identity, name string) tls.Certificate {
	t.Helper()
	request, key, err := identity.NewRequest(nil)
	must(t, err)
	der, err := founder.Authority.SignUser(request, name, bytes.Repeat([]byte{7}, 16), time.Hour, time.Now())
	must(t, err)
	certificate, err := tls.X509KeyPair(identity.EncodeCertificate(der), key)
	must(t, err)
	return certificate
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
