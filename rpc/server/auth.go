package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// What a node says about the user whose request it forwards. The leader believes it from node certificates only, and checks
// the serial again, so a certificate that was revoked a moment ago does not slip through a node that has not heard of it.
const (
	forwardedFor    = "cairn-forwarded-for"
	forwardedSerial = "cairn-forwarded-serial"
)

// claim is who a verified certificate says the caller is.
type claim struct {
	node   cairn.NodeID // of a node's certificate
	user   string       // of a user's
	serial string       // lower-case hex
}

// String names the caller in log lines.
func (c claim) String() string {
	if c.node != "" {
		return "node/" + string(c.node)
	}
	return "user/" + c.user
}

// caller is an authenticated user, or a node in its own name (then user is nil).
type caller struct {
	claim     claim
	user      *cairn.User
	forwarded bool // another node handed the request on
}

type callerKey struct{}

// callerOf returns who calls. Every handler of the API runs behind authenticate, which puts a user there.
func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

// identify is the auth function of every method: users have theirs, nodes the protocol between nodes.
func (s *Server) identify(ctx context.Context) (context.Context, error) {
	if method, _ := grpc.Method(ctx); isPeerMethod(method) {
		return s.authenticateNode(ctx)
	}
	return s.authenticate(ctx)
}

// authenticate finds out who calls and whether that role may call this method; whose things the caller sees is for the
// handler.
func (s *Server) authenticate(ctx context.Context) (context.Context, error) {
	method, _ := grpc.Method(ctx)
	who, err := claimOf(ctx)
	if err != nil {
		return nil, err
	}
	c := &caller{claim: who}
	if who.node != "" {
		if _, err := s.confirm(ctx, who); err != nil {
			return nil, err
		}
		if isHealthMethod(method) {
			return context.WithValue(ctx, callerKey{}, c), nil
		}
		if c.claim, c.forwarded = forwardedClaim(ctx); !c.forwarded || !methods[method].leader {
			return nil, fmt.Errorf("%s: a node may not call %s in its own name: %w", who, method, cairn.ErrDenied)
		}
	}
	v, err := s.confirm(ctx, c.claim)
	if err != nil {
		return nil, err
	}
	c.user = v.User(c.claim.user)
	if err := authorise(c.user, method); err != nil {
		return nil, err
	}
	return context.WithValue(ctx, callerKey{}, c), nil
}

// authenticateNode lets any node call the node-to-node protocol. Whether the node is a member is for each call to judge:
// one that is about to become one may say who it is, and one that was removed must be told so.
func (s *Server) authenticateNode(ctx context.Context) (context.Context, error) {
	who, err := claimOf(ctx)
	if err != nil {
		return nil, err
	}
	if who.node == "" {
		return nil, fmt.Errorf("%s: only nodes of the cluster may call this: %w", who, cairn.ErrDenied)
	}
	return context.WithValue(ctx, callerKey{}, &caller{claim: who}), nil
}

// confirm checks the claim against the node's own copy of the state. That copy may not know the newest users and nodes, so
// before it refuses anybody it asks for a state that does. It returns the state that knows the caller.
func (s *Server) confirm(ctx context.Context, who claim) (*fsm.View, error) {
	at := s.at()
	if v := s.cfg.State.View(); who.check(v, at) == nil {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.limits.check)
	defer cancel()
	v, err := s.cfg.State.ReadView(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be checked now: %w", who, err)
	}
	return v, who.check(v, at)
}

// check returns nil if the view knows the caller.
func (c claim) check(v *fsm.View, at int64) error {
	if c.node != "" {
		return checkNode(v, c.node)
	}
	user := v.User(c.user)
	switch {
	case user == nil:
		return fmt.Errorf("user %s: is not a user of this cluster, or was deleted: %w", shown(c.user), cairn.ErrUnauthenticated)
	case user.Serial != c.serial:
		return fmt.Errorf("user %s: the certificate was replaced by a newer one; use that: %w", shown(c.user), cairn.ErrUnauthenticated)
	case user.ExpiresAt <= at:
		return fmt.Errorf("user %s: the certificate expired at %s; ask an administrator for a new one: %w",
			shown(c.user), timestamp(user.ExpiresAt), cairn.ErrUnauthenticated)
	}
	return nil
}

// checkNode accepts members, and a node that has joined and is about to announce itself: its token is consumed.
func checkNode(v *fsm.View, id cairn.NodeID) error {
	if v.Node(id) != nil {
		return nil
	}
	for token := range v.Tokens() {
		if token.Node == id && len(token.UsedBy) > 0 {
			return nil
		}
	}
	return fmt.Errorf("node %s: is not a node of this cluster, or was removed: %w", shown(string(id)), cairn.ErrUnauthenticated)
}

// authorise holds the user against the table of methods.
func authorise(user *cairn.User, method string) error {
	rule, known := methods[method]
	name := method[strings.LastIndex(method, "/")+1:]
	switch {
	case !known:
		return fmt.Errorf("user %s: %s is not open to users: %w", user.Name, method, cairn.ErrDenied)
	case rank[user.Role] < rank[rule.least]:
		return fmt.Errorf("user %s: is %s, and %s needs %s or more: %w", user.Name, user.Role, name, rule.least, cairn.ErrDenied)
	case rule.scope == scopeCluster && user.Project != "":
		return fmt.Errorf("user %s: is bound to project %s, and %s is about the whole cluster: %w", user.Name, user.Project, name, cairn.ErrDenied)
	}
	return nil
}

// claimOf reads the identity in the certificate that the TLS handshake has verified.
func claimOf(ctx context.Context) (claim, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return claim{}, fmt.Errorf("connection: has no peer: %w", cairn.ErrUnauthenticated)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return claim{}, fmt.Errorf("connection: has no verified client certificate: %w", cairn.ErrUnauthenticated)
	}
	return claimIn(info.State.VerifiedChains[0][0])
}

// claimIn reads cairn://user/<name> or cairn://node/<id>, of which a certificate has exactly one.
func claimIn(cert *x509.Certificate) (claim, error) {
	var names []*url.URL
	for _, uri := range cert.URIs {
		if uri.Scheme == "cairn" {
			names = append(names, uri)
		}
	}
	if len(names) == 1 {
		name := strings.TrimPrefix(names[0].Path, "/")
		switch {
		case name == "" || strings.Contains(name, "/"):
		case names[0].Host == "user":
			return claim{user: name, serial: cert.SerialNumber.Text(16)}, nil
		case names[0].Host == "node":
			return claim{node: cairn.NodeID(name)}, nil
		}
	}
	return claim{}, fmt.Errorf("certificate: names neither a user nor a node of Cairn: %w", cairn.ErrUnauthenticated)
}

func forwardedClaim(ctx context.Context) (claim, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	names, serials := md.Get(forwardedFor), md.Get(forwardedSerial)
	if len(names) != 1 || len(serials) != 1 {
		return claim{}, false
	}
	return claim{user: names[0], serial: serials[0]}, true
}
