package webdav

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func rule(kind cairn.AccessKind, who string, level cairn.AccessLevel) cairn.AccessRule {
	return cairn.AccessRule{ID: "r", Kind: kind, Who: who, Level: level, State: cairn.RuleActive}
}

func inState(r cairn.AccessRule, state cairn.RuleState) cairn.AccessRule {
	r.State = state
	return r
}

func TestRules(t *testing.T) {
	const open, password = 0, 401
	ip := func(who string, level cairn.AccessLevel) cairn.AccessRule { return rule(cairn.AccessIP, who, level) }
	cert := func(who string, level cairn.AccessLevel) cairn.AccessRule { return rule(cairn.AccessCert, who, level) }
	alice := func(level cairn.AccessLevel) cairn.AccessRule { return userRule("alice", "secret", level) }
	named := func(name string) *tls.ConnectionState {
		leaf := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
	}
	unverified := func(name string) *tls.ConnectionState {
		state := named(name)
		state.VerifiedChains = nil
		return state
	}
	for name, c := range map[string]struct {
		rules    []cairn.AccessRule
		from     string
		user     string // user:password
		tls      *tls.ConnectionState
		ro, want int // status for reading and writing; 0: allowed
	}{
		"no rule":                      {nil, "10.0.0.7:1", "", nil, 403, 403},
		"address":                      {[]cairn.AccessRule{ip("10.0.0.7", "rw")}, "10.0.0.7:1", "", nil, open, open},
		"other address":                {[]cairn.AccessRule{ip("10.0.0.7", "rw")}, "10.0.0.8:1", "", nil, 403, 403},
		"address, read only":           {[]cairn.AccessRule{ip("10.0.0.7", "ro")}, "10.0.0.7:1", "", nil, open, 403},
		"range":                        {[]cairn.AccessRule{ip("10.0.0.0/8", "rw")}, "10.255.0.7:1", "", nil, open, open},
		"out of range":                 {[]cairn.AccessRule{ip("10.0.0.0/8", "rw")}, "11.0.0.7:1", "", nil, 403, 403},
		"IPv4 mapped":                  {[]cairn.AccessRule{ip("10.0.0.7", "rw")}, "[::ffff:10.0.0.7]:1", "", nil, open, open},
		"IPv6":                         {[]cairn.AccessRule{ip("fd00::/64", "rw")}, "[fd00::7]:1", "", nil, open, open},
		"IPv6 with zone":               {[]cairn.AccessRule{ip("fe80::/10", "rw")}, "[fe80::7%eth0]:1", "", nil, open, open},
		"everybody, both families":     {[]cairn.AccessRule{ip("0.0.0.0/0", "rw"), ip("::/0", "rw")}, "[fd00::7]:1", "", nil, open, open},
		"IPv4 wildcard is not IPv6":    {[]cairn.AccessRule{ip("0.0.0.0/0", "rw")}, "[fd00::7]:1", "", nil, 403, 403},
		"address that is none":         {[]cairn.AccessRule{ip("0.0.0.0/0", "rw"), ip("::/0", "rw")}, "@", "", nil, 403, 403},
		"highest of two":               {[]cairn.AccessRule{ip("10.0.0.0/8", "rw"), ip("10.0.0.7", "ro")}, "10.0.0.7:1", "", nil, open, open},
		"highest of two, other order":  {[]cairn.AccessRule{ip("10.0.0.7", "ro"), ip("10.0.0.0/8", "rw")}, "10.0.0.7:1", "", nil, open, open},
		"denied rule":                  {[]cairn.AccessRule{inState(ip("10.0.0.7", "rw"), cairn.RuleDenying)}, "10.0.0.7:1", "", nil, 403, 403},
		"rule waiting to be denied":    {[]cairn.AccessRule{inState(ip("10.0.0.7", "rw"), cairn.RuleQueuedToDeny)}, "10.0.0.7:1", "", nil, 403, 403},
		"applying rule":                {[]cairn.AccessRule{inState(ip("10.0.0.7", "rw"), cairn.RuleApplying)}, "10.0.0.7:1", "", nil, open, open},
		"user":                         {[]cairn.AccessRule{alice("rw")}, "10.0.0.7:1", "alice:secret", nil, open, open},
		"user, read only":              {[]cairn.AccessRule{alice("ro")}, "10.0.0.7:1", "alice:secret", nil, open, 403},
		"user, wrong password":         {[]cairn.AccessRule{alice("rw")}, "10.0.0.7:1", "alice:Secret", nil, password, password},
		"user, empty password":         {[]cairn.AccessRule{alice("rw")}, "10.0.0.7:1", "alice:", nil, password, password},
		"other user, same password":    {[]cairn.AccessRule{alice("rw")}, "10.0.0.7:1", "bob:secret", nil, password, password},
		"user who sends nothing":       {[]cairn.AccessRule{alice("rw")}, "10.0.0.7:1", "", nil, password, password},
		"user rule without secret":     {[]cairn.AccessRule{rule(cairn.AccessUser, "alice", "rw")}, "10.0.0.7:1", "alice:", nil, password, password},
		"denied user rule":             {[]cairn.AccessRule{inState(alice("rw"), cairn.RuleDenying)}, "10.0.0.7:1", "", nil, 403, 403},
		"address ro, password could":   {[]cairn.AccessRule{ip("10.0.0.7", "ro"), alice("rw")}, "10.0.0.7:1", "", nil, open, password},
		"address ro, password cannot":  {[]cairn.AccessRule{ip("10.0.0.7", "ro"), alice("ro")}, "10.0.0.7:1", "", nil, open, 403},
		"address ro and user rw":       {[]cairn.AccessRule{ip("10.0.0.7", "ro"), alice("rw")}, "10.0.0.7:1", "alice:secret", nil, open, open},
		"certificate":                  {[]cairn.AccessRule{cert("backup", "rw")}, "10.0.0.7:1", "", named("backup"), open, open},
		"other certificate":            {[]cairn.AccessRule{cert("backup", "rw")}, "10.0.0.7:1", "", named("other"), 403, 403},
		"certificate, not verified":    {[]cairn.AccessRule{cert("backup", "rw")}, "10.0.0.7:1", "", unverified("backup"), 403, 403},
		"certificate rule, plain HTTP": {[]cairn.AccessRule{cert("backup", "rw")}, "10.0.0.7:1", "", nil, 403, 403},
		"user name is no common name":  {[]cairn.AccessRule{cert("alice", "rw")}, "10.0.0.7:1", "alice:secret", nil, 403, 403},
		"common name is no user name":  {[]cairn.AccessRule{alice("rw")}, "10.0.0.7:1", "", named("alice"), password, password},
	} {
		t.Run(name, func(t *testing.T) {
			terms, err := newTerms(drivers.ExportSpec{ID: drivers.ExportID{Replica: "r"}, Share: "s", Staging: "/x", Rules: c.rules})
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", "/shares/s/", nil)
			r.RemoteAddr, r.TLS = c.from, c.tls
			if user, password, ok := strings.Cut(c.user, ":"); ok {
				r.SetBasicAuth(user, password)
			}
			if got := statusOf(terms.allow(r, levelRead)); got != c.ro {
				t.Errorf("reading: %d, want %d", got, c.ro)
			}
			if got := statusOf(terms.allow(r, levelWrite)); got != c.want {
				t.Errorf("writing: %d, want %d", got, c.want)
			}
		})
	}
}

func statusOf(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.status
	}
	return 0
}

func TestExportRefusesBadSpecs(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*drivers.ExportSpec)
		want  error
	}{
		"address that is none": {func(s *drivers.ExportSpec) { s.Rules[0].Who = "10.0.0" }, cairn.ErrInvalid},
		"kind that is none":    {func(s *drivers.ExportSpec) { s.Rules[0].Kind = "moon" }, cairn.ErrInvalid},
		"level that is none":   {func(s *drivers.ExportSpec) { s.Rules[0].Level = "" }, cairn.ErrInvalid},
		"user without a name":  {func(s *drivers.ExportSpec) { s.Rules[0] = userRule("", "x", "rw") }, cairn.ErrInvalid},
		"no share":             {func(s *drivers.ExportSpec) { s.Share = "" }, cairn.ErrInvalid},
		"no staging":           {func(s *drivers.ExportSpec) { s.Staging = "" }, cairn.ErrInvalid},
		"other file system":    {func(s *drivers.ExportSpec) { s.Staging = "/proc/self/fd" }, cairn.ErrInvalid},
		"root is gone":         {func(s *drivers.ExportSpec) { s.Root += "-gone" }, cairn.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			c.spoil(&f.spec)
			if _, err := f.e.Export(f.ctx, f.spec); !errors.Is(err, c.want) {
				t.Errorf("Export: %v; want %v", err, c.want)
			}
			if list, _ := f.e.Exports(f.ctx); len(list) != 0 {
				t.Errorf("a refused export is listed: %v", list)
			}
		})
	}
}

func TestReadOnlyForbidsEveryChange(t *testing.T) {
	f := newFixture(t)
	f.write("file", "old")
	f.write("dir/file", "old")
	f.spec.Rules[0].Level = cairn.AccessRO
	f.export()
	refused := func() {
		t.Helper()
		f.want(403, "PUT", "/file", "new")
		f.want(403, "PUT", "/new", "new")
		f.want(403, "DELETE", "/file", "")
		f.want(403, "MKCOL", "/newdir", "")
		f.want(403, "MOVE", "/file", "", "Destination: /moved")
		f.want(403, "COPY", "/file", "", "Destination: /copied")
		f.want(403, "PROPPATCH", "/file", "<propertyupdate xmlns='DAV:'/>")
		f.want(403, "LOCK", "/file", lockBody)
		f.want(403, "LOCK", "/new", lockBody)
		f.want(403, "UNLOCK", "/file", "", "Lock-Token: <1>")
		f.want(200, "GET", "/file", "")
		f.want(207, "PROPFIND", "/", "")
		f.want(405, "PATCH", "/file", "")
		for _, name := range []string{"new", "newdir", "moved", "copied"} {
			f.absent(name)
		}
		f.onDisk("file", "old")
	}
	refused()
	f.spec.Rules[0].Level, f.spec.ReadOnly = cairn.AccessRW, true
	if at := f.export(); !at.ReadOnly || at.Preferred {
		t.Errorf("location of a read-only export: %+v", at)
	}
	refused()
}

func TestPasswordIsAskedFor(t *testing.T) {
	f := newFixture(t)
	f.write("file", "content")
	f.spec.Rules = []cairn.AccessRule{userRule("alice", "secret", cairn.AccessRW)}
	f.export()
	if asked := f.want(401, "GET", "/file", "").header.Get("WWW-Authenticate"); !strings.HasPrefix(asked, "Basic ") {
		t.Errorf("WWW-Authenticate: %q", asked)
	}
	f.want(200, "GET", "/file", "", "Test-User: alice:secret")
	f.want(201, "PUT", "/new", "x", "Test-User: alice:secret")
}

// TestClientCertificate goes through a real handshake: a certificate counts only if its issuer does.
func TestClientCertificate(t *testing.T) {
	f := newFixture(t)
	f.write("file", "content")
	f.spec.Rules = []cairn.AccessRule{rule(cairn.AccessCert, "backup", cairn.AccessRW)}
	f.export()
	ca, caKey := certificate(t, "the CA", nil, nil)
	server := httptest.NewUnstartedServer(f.e)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	server.StartTLS()
	defer server.Close()
	for name, want := range map[string]int{"backup": 200, "other": 403, "": 403} {
		client := dial(t, server, netip.Addr{})
		if name != "" {
			leaf, key := certificate(t, name, ca, caKey)
			client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}
		}
		resp, err := client.Get(server.URL + "/shares/share-1/file")
		f.must(err)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("certificate of %q: %d, want %d", name, resp.StatusCode, want)
		}
	}
}

func certificate(t *testing.T, name string, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: issuer == nil, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed, key
}
