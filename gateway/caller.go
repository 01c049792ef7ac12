package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
)

// What one node tells another of the client whose request it passes on. From anybody but a node of the cluster, which has
// proven by its certificate that it is one, these headers are removed before anything is done with the request.
const (
	headerClient      = "Cairn-Gateway-Client"      // address and port
	headerCertificate = "Cairn-Gateway-Certificate" // that the client has shown, and proven to have: base64 of its DER
)

// unwrap returns the request as the client has made it if another node has passed it on, and nil if it comes from a client.
func (g *Gateway) unwrap(r *http.Request) (*http.Request, error) {
	client, certificate := r.Header[headerClient], r.Header[headerCertificate]
	delete(r.Header, headerClient)
	delete(r.Header, headerCertificate)
	if len(client) == 0 || !g.fromNode(r) {
		return nil, nil
	}
	if _, err := netip.ParseAddrPort(client[0]); len(client) != 1 || err != nil {
		return nil, fmt.Errorf("header %s: is no address", headerClient)
	}
	passed := r.Clone(r.Context())
	passed.RemoteAddr = client[0]
	state := *r.TLS
	state.PeerCertificates, state.VerifiedChains = nil, nil
	if len(certificate) > 0 {
		if err := g.verify(&state, certificate[0]); err != nil {
			return nil, fmt.Errorf("header %s: %w", headerCertificate, err)
		}
	}
	passed.TLS = &state
	return passed, nil
}

// fromNode reports whether a node of the cluster is at the other end of the request's connection.
func (g *Gateway) fromNode(r *http.Request) bool {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return false
	}
	id, err := g.config.Node(*r.TLS)
	return err == nil && g.config.State.View().Node(id) != nil
}

// verify makes state what the handshake with the client has made it at the other node.
func (g *Gateway) verify(state *tls.ConnectionState, text string) error {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: g.config.Roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return err
	}
	state.PeerCertificates, state.VerifiedChains = []*x509.Certificate{leaf}, chains
	return nil
}

// wrap adds to out who the client is.
func wrap(out *http.Request, in *http.Request) {
	out.Header.Set(headerClient, in.RemoteAddr)
	if in.TLS != nil && len(in.TLS.VerifiedChains) > 0 {
		out.Header.Set(headerCertificate, base64.StdEncoding.EncodeToString(in.TLS.VerifiedChains[0][0].Raw))
	}
}
