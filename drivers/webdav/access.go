package webdav

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// level is what a client may do; a higher one includes the lower.
type level int

const (
	levelNone level = iota
	levelRead
	levelWrite
)

// terms are how an export is served at one time: immutable, replaced as a whole.
type terms struct {
	spec  drivers.ExportSpec
	rules []grant
	// users is the highest level that a password could give.
	users level
	// ledger is nil unless the exporter enforces the size.
	ledger *ledger
}

// grant is an access rule, ready to be matched.
type grant struct {
	kind   cairn.AccessKind
	who    string
	client netip.Prefix
	secret cairn.Secret
	level  level
}

func newTerms(spec drivers.ExportSpec) (*terms, error) {
	t := &terms{spec: spec}
	switch {
	case spec.ID.Replica == "" || spec.Share == "" && spec.ID.Snapshot == "":
		return nil, fmt.Errorf("spec names no replica or no share: %w", cairn.ErrInvalid)
	case spec.Standby && spec.ID.Snapshot == "":
		return nil, fmt.Errorf("a replica that is not active is served from a snapshot: %w", cairn.ErrInvalid)
	case !t.readOnly() && spec.Staging == "":
		return nil, fmt.Errorf("a writable replica needs a staging directory: %w", cairn.ErrInvalid)
	}
	for _, rule := range spec.Rules {
		if rule.State.Denied() {
			continue
		}
		g, err := newGrant(rule)
		if err != nil {
			return nil, fmt.Errorf("access rule %s: %w", rule.ID, err)
		}
		if g.kind == cairn.AccessUser {
			t.users = max(t.users, g.level)
		}
		t.rules = append(t.rules, g)
	}
	return t, nil
}

func newGrant(rule cairn.AccessRule) (grant, error) {
	g := grant{kind: rule.Kind, who: rule.Who, secret: rule.Secret}
	switch rule.Level {
	case cairn.AccessRO:
		g.level = levelRead
	case cairn.AccessRW:
		g.level = levelWrite
	default:
		return grant{}, fmt.Errorf("level %q is not rw or ro: %w", rule.Level, cairn.ErrInvalid)
	}
	var err error
	switch {
	case rule.Who == "":
		err = fmt.Errorf("names nobody: %w", cairn.ErrInvalid)
	case rule.Kind == cairn.AccessIP:
		g.client, err = cairn.ParseClient(rule.Who)
	case rule.Kind != cairn.AccessUser && rule.Kind != cairn.AccessCert:
		err = fmt.Errorf("kind %q is not ip, user or cert: %w", rule.Kind, cairn.ErrInvalid)
	}
	return g, err
}

// readOnly reports whether nobody may write, whatever the rules say.
func (t *terms) readOnly() bool { return t.spec.ReadOnly || t.spec.ID.Snapshot != "" }

// rank orders the exports of one path: the writable one answers first.
func (t *terms) rank() int {
	if t.readOnly() {
		return 1
	}
	return 0
}

// allow returns nil if the client has the wanted level, or the refusal to send. A client that has shown no good password
// is asked for one where that could help.
func (t *terms) allow(r *http.Request, want level) error {
	have, passed := t.levelOf(r)
	switch {
	case have >= want:
		return nil
	case !passed && (t.users >= want || have == levelNone && t.users > levelNone):
		return refuse(http.StatusUnauthorized, "this share needs the user and password of one of its access rules")
	case have == levelNone:
		return refuse(http.StatusForbidden, "no access rule of this share names this client; ask for one: cairn access allow")
	}
	return refuse(http.StatusForbidden, "the access rules of this share let this client read only")
}

// levelOf is the highest level of all rules that match, and whether a user rule is among them.
func (t *terms) levelOf(r *http.Request) (have level, passed bool) {
	user, password, _ := r.BasicAuth()
	client, name := clientAddress(r), certificateName(r)
	for _, g := range t.rules {
		var match bool
		switch g.kind {
		case cairn.AccessIP:
			match = g.client.Contains(client)
		case cairn.AccessUser:
			match = g.who == user && g.secret.Matches(password)
			passed = passed || match
		case cairn.AccessCert:
			match = g.who == name
		}
		if match {
			have = max(have, g.level)
		}
	}
	return have, passed
}

// clientAddress is the zero Addr, which no prefix contains, if the address cannot be read.
func clientAddress(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}

// certificateName is the common name of a client certificate that the TLS layer has verified, or "".
func certificateName(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	return r.TLS.VerifiedChains[0][0].Subject.CommonName
}
