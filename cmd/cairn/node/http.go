package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/fsm"
)

// headerTimeout bounds how long a client may take to send its request line and headers; bodies are the exporter's to bound.
const headerTimeout = 20 * time.Second

// httpServer makes the server of the HTTPS port: shares, mounted snapshots, metrics and health.
func httpServer(member *cluster.Node, shares http.Handler, registry *prometheus.Registry, logger *slog.Logger) *http.Server {
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	route := func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		// Not by a ServeMux, which would answer paths with dots and double slashes itself: the exporter judges its paths.
		case strings.HasPrefix(path, "/shares/"), strings.HasPrefix(path, "/snapshots/"), strings.HasPrefix(path, "/replicas/"):
			shares.ServeHTTP(w, r)
		case path == "/metrics":
			metrics.ServeHTTP(w, r)
		case path == "/healthz":
			health(w, member)
		default:
			http.NotFound(w, r)
		}
	}
	// HTTP/1.1 alone, as WebDAV clients speak it: over HTTP/2 a refused upload loses its reason in some of them (curl 7.88), and
	// large files gain nothing from it.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           http.HandlerFunc(route),
		Protocols:         protocols,
		TLSConfig:         httpTLS(member.Identity()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // handshakes that clients give up
	}
}

// httpTLS takes certificates of the cluster's users where a client offers one, and asks none of those who do not.
func httpTLS(id *cluster.Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs:  id.Roots(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return id.Credential(), nil
		},
	}
}

// viewer reads the node's own copy of the state.
type viewer interface{ View() *fsm.View }

// knownCertificates lets a request go on without its client certificate when that is not the newest one of a user of the
// cluster: the authority's signature alone says nothing about a user who was deleted since.
func knownCertificates(state viewer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !knownUser(state.View(), r.TLS) {
			bare := *r.TLS
			bare.PeerCertificates, bare.VerifiedChains = nil, nil
			r = r.Clone(r.Context())
			r.TLS = &bare
		}
		next.ServeHTTP(w, r)
	})
}

func knownUser(v *fsm.View, state *tls.ConnectionState) bool {
	subject, err := identity.PeerOf(*state)
	if err != nil || subject.Kind != identity.SubjectUser {
		return false
	}
	user := v.User(subject.Name)
	return user != nil && user.Serial == state.PeerCertificates[0].SerialNumber.Text(16)
}

// health answers load balancers and supervisors: 200 while this node can answer for the cluster.
func health(w http.ResponseWriter, member *cluster.Node) {
	leader, _ := member.Leader()
	index, diverged := member.Machine().Divergence()
	switch {
	case diverged:
		http.Error(w, fmt.Sprintf("state differs from the leader's since log entry %d", index), http.StatusServiceUnavailable)
	case leader == "":
		http.Error(w, "no leader is known", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "ok")
	}
}

// serveHTTP serves until the context ends, then lets requests in progress finish for a while.
func serveHTTP(ctx context.Context, server *http.Server, listener net.Listener) error {
	stopped := make(chan struct{})
	defer func() { <-stopped }()
	ended := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.ServeTLS(listener, "", "")
	if ended() {
		close(stopped)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("http port: %w", err)
}
