package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"github.com/cairn-storage/cairn"
)

// The two kinds of subject that a certificate can speak for.
const (
	SubjectNode = "node"
	SubjectUser = "user"
)

// Subject is whom a certificate speaks for.
type Subject struct {
	Kind string // SubjectNode or SubjectUser
	Name string // node ID or user name
}

// String renders "node/<id>" or "user/<name>", the form in which commands record their actor.
func (s Subject) String() string { return s.Kind + "/" + s.Name }

func (s Subject) url() *url.URL {
	return &url.URL{Scheme: "cairn", Host: s.Kind, Path: "/" + s.Name}
}

// Node returns the node that the subject is, or cairn.ErrDenied.
func (s Subject) Node() (cairn.NodeID, error) {
	if s.Kind != SubjectNode {
		return "", fmt.Errorf("certificate of %s: only a node may do this: %w", s, cairn.ErrDenied)
	}
	return cairn.NodeID(s.Name), nil
}

// SubjectOf reads the subject of a certificate whose chain has been verified. A certificate without exactly one Cairn URI
// speaks for nobody.
func SubjectOf(certificate *x509.Certificate) (Subject, error) {
	if len(certificate.URIs) != 1 {
		return Subject{}, fmt.Errorf("certificate %q: has %d names, want one: %w", certificate.Subject.CommonName, len(certificate.URIs), cairn.ErrUnauthenticated)
	}
	uri := certificate.URIs[0]
	name := strings.TrimPrefix(uri.Path, "/")
	if uri.Scheme != "cairn" || uri.Host != SubjectNode && uri.Host != SubjectUser || name == "" {
		return Subject{}, fmt.Errorf("certificate %q: %s names neither a node nor a user: %w", certificate.Subject.CommonName, uri, cairn.ErrUnauthenticated)
	}
	return Subject{Kind: uri.Host, Name: name}, nil
}

// PeerOf reads the subject of a connection's peer. The chain has been verified by the handshake.
func PeerOf(state tls.ConnectionState) (Subject, error) {
	if len(state.PeerCertificates) == 0 {
		return Subject{}, fmt.Errorf("connection: without a certificate: %w", cairn.ErrUnauthenticated)
	}
	return SubjectOf(state.PeerCertificates[0])
}
