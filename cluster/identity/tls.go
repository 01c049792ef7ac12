package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
)

// Protocols that the one TCP port tells apart by ALPN.
const (
	ProtocolGRPC = "h2"         // clients and peers; client certificate required
	ProtocolRaft = "cairn-raft" // Raft streams; node certificates only
	ProtocolJoin = "cairn-join" // JoinService; no client certificate
)

// ServerConfig answers for this node. auth says what is asked of the client.
func (i *Identity) ServerConfig(auth tls.ClientAuthType, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		ClientAuth: auth,
		ClientCAs:  i.Roots(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.credential.Load(), nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil // auth has already refused this where a certificate is required
			}
			subject, err := PeerOf(state)
			if err == nil && state.NegotiatedProtocol == ProtocolRaft {
				_, err = subject.Node()
			}
			return err
		},
		// A resumed session would carry the verdict on a certificate past its expiry.
		SessionTicketsDisabled: true,
	}
}

// ClientConfig speaks for this node to the node want; "" means any node of the cluster. The peer is known by the name in
// its certificate and not by its address, so an address that moved to another machine is noticed.
func (i *Identity) ClientConfig(protocol string, want cairn.NodeID) *tls.Config {
	roots := i.Roots()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return i.credential.Load(), nil
		},
		// The chain and the name are verified below: names are node IDs, not hosts.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyNode(state, roots, want, time.Now())
		},
	}
}

// verifyNode checks that the peer is the wanted node, by its chain and its URI.
func verifyNode(state tls.ConnectionState, roots *x509.CertPool, want cairn.NodeID, now time.Time) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("peer: sent no certificate: %w", cairn.ErrUnauthenticated)
	}
	leaf := state.PeerCertificates[0]
	options := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if _, err := leaf.Verify(options); err != nil {
		return fmt.Errorf("peer: %w: %w", err, cairn.ErrUnauthenticated)
	}
	subject, err := SubjectOf(leaf)
	if err != nil {
		return err
	}
	node, err := subject.Node()
	if err != nil {
		return err
	}
	if want != "" && node != want {
		return fmt.Errorf("peer: is node %s, want node %s: %w", node, want, cairn.ErrUnauthenticated)
	}
	return nil
}

// PinnedConfig is for a machine that has a token and nothing else. The server must show an authority with the pinned
// fingerprint and a node's certificate signed by it, before a single byte of the token is sent. Dates are not checked:
// the joiner's clock may be wrong, which joining itself finds out and says.
func PinnedConfig(fingerprint string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{ProtocolJoin},
		InsecureSkipVerify: true, // verified below, against the pin
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, certificate := range state.PeerCertificates {
				if Fingerprint(certificate.Raw) != fingerprint {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(certificate)
				return verifyNode(state, roots, "", state.PeerCertificates[0].NotBefore)
			}
			return fmt.Errorf("server: is not of the cluster that the token was made for (its certificate authority has another fingerprint): %w", cairn.ErrUnauthenticated)
		},
	}
}
