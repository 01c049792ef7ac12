package identity

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/cairn-storage/cairn"
)

// KeyBytes is the length of the gossip key and of the cluster key.
const KeyBytes = 32

// Identity is what a node is and has: its name, its certificate, the authority and the cluster's keys. The certificate is
// replaced while the node runs; everything else never changes.
type Identity struct {
	Cluster   cairn.Cluster
	Node      cairn.NodeID
	Name      string
	Authority *Authority
	// GossipKey encrypts gossip. ClusterKey is for what every node must be able to derive, such as access passwords.
	GossipKey  []byte
	ClusterKey []byte
	// Patience is how many times as long as usual the nodes wait for each other; 0 is 1. It was decided when the cluster was
	// made: a lease must be over for all nodes at the same time.
	Patience int
	// Founder is the first administrator; set on the node that made the cluster and nowhere else.
	Founder *cairn.User
	// Peers are addresses of members when the node joined: where it asks for the leader until it has state of its own.
	Peers []string

	credential atomic.Pointer[tls.Certificate]
	dataDir    string
}

// Credential returns the node's certificate as it is now.
func (i *Identity) Credential() *tls.Certificate { return i.credential.Load() }

// Roots holds the cluster's authority.
func (i *Identity) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(i.Authority.Certificate)
	return pool
}

// RenewAt is when a third of the certificate's time is used.
func (i *Identity) RenewAt() time.Time {
	certificate := i.credential.Load().Leaf
	return certificate.NotBefore.Add(certificate.NotAfter.Sub(certificate.NotBefore) / 3)
}

// Bundle is a user's certificate with its key and the authority's certificate, each as PEM.
type Bundle struct {
	User           string
	CertificatePEM []byte
	KeyPEM         []byte
	AuthorityPEM   []byte
}

// PEM is the bundle as one file.
func (b Bundle) PEM() []byte {
	return append(append(append([]byte{}, b.CertificatePEM...), b.KeyPEM...), b.AuthorityPEM...)
}

// adminName is the first administrator.
const adminName = "admin"

// adminTTL is long, because the first administrator is who renews everybody else.
const adminTTL = 5 * 365 * 24 * time.Hour

// Found makes a cluster of one node: authority, keys, the node's certificate and that of the first administrator, and
// commits them to the data directory, where LoadAdmin finds the latter.
func Found(dataDir, nodeName, clusterName string, hosts []string, patience int, now time.Time) (*Identity, error) {
	if err := cairn.CheckName("node", nodeName); err != nil {
		return nil, err
	}
	if err := cairn.CheckName("cluster", clusterName); err != nil {
		return nil, err
	}
	staging, err := stage(dataDir)
	if err != nil {
		return nil, err
	}
	i, err := found(nodeName, clusterName, now)
	if err != nil {
		return nil, err
	}
	i.Patience = patience
	csr, key, err := NewRequest(hosts)
	if err != nil {
		return nil, err
	}
	der, err := i.Authority.SignNode(csr, i.Node, now)
	if err != nil {
		return nil, err
	}
	admin, err := i.foundAdmin(now)
	if err != nil {
		return nil, err
	}
	credential, err := i.certify(der, key)
	if err != nil {
		return nil, err
	}
	i.credential.Store(credential)
	if err := staging.write(fileAdmin, admin.PEM()); err != nil {
		return nil, err
	}
	return i, i.commit(staging)
}

// found makes the parts that do not depend on hosts.
func found(nodeName, clusterName string, now time.Time) (*Identity, error) {
	authority, err := NewAuthority(clusterName, now)
	if err != nil {
		return nil, err
	}
	keys := make([]byte, 2*KeyBytes)
	if _, err := rand.Read(keys); err != nil {
		return nil, fmt.Errorf("cluster keys: %w", err)
	}
	cluster, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("cluster id: %w", err)
	}
	node, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("node id: %w", err)
	}
	return &Identity{
		Cluster: cairn.Cluster{
			ID: cairn.ClusterID(cluster.String()), Name: clusterName,
			CAFingerprint: authority.Fingerprint(), CreatedAt: now.UnixNano(),
		},
		Node: cairn.NodeID(node.String()), Name: nodeName, Authority: authority,
		GossipKey: keys[:KeyBytes:KeyBytes], ClusterKey: keys[KeyBytes:],
	}, nil
}

func (i *Identity) foundAdmin(now time.Time) (Bundle, error) {
	const name = adminName
	csr, key, err := NewRequest(nil)
	if err != nil {
		return Bundle{}, err
	}
	serial, err := NewSecret()
	if err != nil {
		return Bundle{}, err
	}
	der, err := i.Authority.SignUser(csr, name, serial, adminTTL, now)
	if err != nil {
		return Bundle{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return Bundle{}, fmt.Errorf("certificate of %s: %w", name, err)
	}
	i.Founder = &cairn.User{
		Name: name, Role: cairn.UserAdmin, Serial: Serial(certificate),
		ExpiresAt: certificate.NotAfter.UnixNano(), CreatedAt: now.UnixNano(),
	}
	return Bundle{
		User: name, CertificatePEM: EncodeCertificate(der), KeyPEM: key,
		AuthorityPEM: EncodeCertificate(i.Authority.Certificate.Raw),
	}, nil
}

// Serial renders a certificate's serial as the user's row keeps it.
func Serial(certificate *x509.Certificate) string { return certificate.SerialNumber.Text(16) }

// certify checks that a certificate is this node's and fits its key.
func (i *Identity) certify(der, keyPEM []byte) (*tls.Certificate, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w: %w", err, cairn.ErrCorrupt)
	}
	if err := certificate.CheckSignatureFrom(i.Authority.Certificate); err != nil {
		return nil, fmt.Errorf("node certificate: is not signed by the cluster's authority: %w: %w", err, cairn.ErrCorrupt)
	}
	subject, err := SubjectOf(certificate)
	if err != nil {
		return nil, err
	}
	if node, err := subject.Node(); err != nil || node != i.Node {
		return nil, fmt.Errorf("node certificate: speaks for %s, want node/%s: %w", subject, i.Node, cairn.ErrCorrupt)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("node certificate: does not fit its key: %w", cairn.ErrCorrupt)
	}
	return &tls.Certificate{
		// The authority goes along, for the joiner that knows only its fingerprint.
		Certificate: [][]byte{der, i.Authority.Certificate.Raw},
		PrivateKey:  key,
		Leaf:        certificate,
	}, nil
}

// Renew replaces the node's certificate and key, on disk and then in memory. Connections that exist go on.
func (i *Identity) Renew(der, keyPEM []byte) error {
	credential, err := i.certify(der, keyPEM)
	if err != nil {
		return err
	}
	if err := replaceFile(identityDir(i.dataDir), fileNode, credentialPEM(der, keyPEM)); err != nil {
		return err
	}
	i.credential.Store(credential)
	return nil
}

// credentialPEM is one file, because a certificate without its key is worth nothing: they change in one rename.
func credentialPEM(der, keyPEM []byte) []byte {
	return append(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}), keyPEM...)
}
