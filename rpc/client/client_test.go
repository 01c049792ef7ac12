package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/client"
	"github.com/cairn-storage/cairn/rpc/errs"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// script is a server that answers as it is told and remembers what it was asked. Only how the client behaves is tested here; with the
// real server it is tested there.
type script struct {
	pb.UnimplementedShareServiceServer
	pb.UnimplementedAccessServiceServer
	mu      sync.Mutex
	answers []error // one after the other; the last one stays
	tokens  []string
	targets []*pb.AccessTarget
	names   []string
}

func (s *script) next() error {
	err := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	return errs.ToStatus(err)
}

func (s *script) CreateShare(_ context.Context, req *pb.CreateShareRequest) (*pb.CreateShareResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, req.GetMutation().GetToken())
	s.names = append(s.names, req.GetProject()+"/"+req.GetName())
	return &pb.CreateShareResponse{}, s.next()
}

func (s *script) GetShare(_ context.Context, req *pb.GetShareRequest) (*pb.GetShareResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, req.GetProject()+"/"+req.GetShare())
	return &pb.GetShareResponse{}, s.next()
}

func (s *script) ListAccess(_ context.Context, req *pb.ListAccessRequest) (*pb.ListAccessResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.targets = append(s.targets, req.GetTarget())
	return &pb.ListAccessResponse{}, nil
}

// ca makes certificates.
type ca struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newCA(t *testing.T) *ca {
	c := &ca{t: t}
	c.cert, c.key, c.pem, _ = c.make("")
	return c
}

// make signs a certificate for the URI; with "" it makes the CA itself.
func (c *ca) make(uri string) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: uri + "x"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	parent, signer := c.cert, c.key
	if uri == "" {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage, template.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		parent, signer = template, key
	} else {
		u, err := url.Parse(uri)
		if err != nil {
			c.t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// serve starts a server with a certificate for the URI, and returns its address.
func (c *ca) serve(uri string, s *script) string {
	c.t.Helper()
	_, _, certPEM, keyPEM := c.make(uri)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		c.t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(c.cert)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS13,
	})))
	pb.RegisterShareServiceServer(g, s)
	pb.RegisterAccessServiceServer(g, s)
	go g.Serve(listener)
	c.t.Cleanup(g.Stop)
	return listener.Addr().String()
}

func (c *ca) dial(project string, addresses ...string) *client.Client {
	c.t.Helper()
	_, _, certPEM, keyPEM := c.make("cairn://user/ann")
	api, err := client.Dial(client.Config{Addresses: addresses, Project: project, CA: c.pem, Certificate: certPEM, Key: keyPEM})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { api.Close() })
	return api
}

// within is a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestRetries(t *testing.T) {
	unavailable := fmt.Errorf("election: %w", cairn.ErrUnavailable)
	unknown := fmt.Errorf("leadership lost: %w", cairn.ErrUnknownOutcome)
	for name, test := range map[string]struct {
		answers  []error
		want     error
		attempts int // 0: as many as fit
	}{
		"ok":                           {[]error{nil}, nil, 1},
		"election":                     {[]error{unavailable, unavailable, nil}, nil, 3},
		"outcome unknown":              {[]error{unknown, nil}, nil, 2},
		"refused after unknown":        {[]error{unknown, fmt.Errorf("a: %w", cairn.ErrQuota)}, cairn.ErrQuota, 2},
		"unknown, then never again":    {[]error{unknown, unavailable}, cairn.ErrUnknownOutcome, 0},
		"never available":              {[]error{unavailable}, cairn.ErrUnavailable, 0},
		"busy is not tried again":      {[]error{fmt.Errorf("a: %w", cairn.ErrBusy)}, cairn.ErrBusy, 1},
		"stale is not tried again":     {[]error{fmt.Errorf("a: %w", cairn.ErrStale)}, cairn.ErrStale, 1},
		"a time-out is not tried":      {[]error{fmt.Errorf("a: %w", cairn.ErrTimeout)}, cairn.ErrTimeout, 1},
		"the unexpected is not either": {[]error{errors.New("a bug")}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, ca := &script{answers: test.answers}, newCA(t)
			api := ca.dial("", ca.serve("cairn://node/1", s))
			req := &pb.CreateShareRequest{Name: "a"}
			patience := 30 * time.Second
			if test.attempts == 0 {
				patience = 2 * time.Second
			}
			_, err := api.Shares().CreateShare(within(t, patience), req)
			if test.want != nil && !errors.Is(err, test.want) || test.want == nil && name != "the unexpected is not either" && err != nil {
				t.Errorf("got %v, want %v", err, test.want)
			}
			for _, sentinel := range cairn.Sentinels() {
				if errors.Is(err, sentinel) && sentinel != test.want {
					t.Errorf("%v is also %v", err, sentinel)
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if test.attempts > 0 && len(s.tokens) != test.attempts || test.attempts == 0 && len(s.tokens) < 2 {
				t.Errorf("%d attempts, want %d", len(s.tokens), test.attempts)
			}
			for _, token := range s.tokens {
				if token == "" || token != s.tokens[0] {
					t.Errorf("tokens %q: want one for all attempts", s.tokens)
				}
			}
			if req.GetMutation() != nil {
				t.Error("the caller's request was changed")
			}
		})
	}
}

func TestTwoRequestsHaveTwoTokens(t *testing.T) {
	s, ca := &script{answers: []error{nil}}, newCA(t)
	api := ca.dial("", ca.serve("cairn://node/1", s))
	for _, m := range []*pb.Mutation{nil, nil, {Token: "mine"}} {
		if _, err := api.Shares().CreateShare(t.Context(), &pb.CreateShareRequest{Name: "a", Mutation: m}); err != nil {
			t.Fatal(err)
		}
	}
	if s.tokens[0] == s.tokens[1] || s.tokens[2] != "mine" {
		t.Errorf("tokens %q", s.tokens)
	}
}

func TestProjectIsFilledIn(t *testing.T) {
	s, ca := &script{answers: []error{nil}}, newCA(t)
	api := ca.dial("team-a", ca.serve("cairn://node/1", s))
	for _, project := range []string{"", "other", "*"} {
		if _, err := api.Shares().GetShare(t.Context(), &pb.GetShareRequest{Share: "a", Project: project}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"team-a/a", "other/a", "*/a"}; !reflect.DeepEqual(s.names, want) {
		t.Errorf("got %q, want %q", s.names, want)
	}
	if _, err := api.Access().ListAccess(t.Context(), &pb.ListAccessRequest{Target: &pb.AccessTarget{Share: "a"}}); err != nil {
		t.Fatal(err)
	}
	if got := s.targets[0].GetProject(); got != "team-a" {
		t.Errorf("the target's project is %q", got)
	}
}

// TestAnyNodeWillDo: a dead address does not stop a client that knows a living one.
func TestAnyNodeWillDo(t *testing.T) {
	s, ca := &script{answers: []error{nil}}, newCA(t)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	api := ca.dial("", dead.Addr().String(), ca.serve("cairn://node/1", s))
	for range 5 {
		if _, err := api.Shares().GetShare(t.Context(), &pb.GetShareRequest{Share: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	alone := ca.dial("", dead.Addr().String())
	if _, err := alone.Shares().CreateShare(within(t, 300*time.Millisecond), &pb.CreateShareRequest{}); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("nobody listens: %v, want unavailable, because nothing was sent", err)
	}
}

// TestOnlyNodesAreTrusted: whoever else has a certificate, even of the same CA, is not talked to.
func TestOnlyNodesAreTrusted(t *testing.T) {
	mine, other := newCA(t), newCA(t)
	s := &script{answers: []error{nil}}
	for name, test := range map[string]struct {
		address string
		ok      bool
	}{
		"node":                {mine.serve("cairn://node/1", s), true},
		"user who listens":    {mine.serve("cairn://user/ann", s), false},
		"something else":      {mine.serve("https://node/1", s), false},
		"node of another one": {other.serve("cairn://node/1", s), false},
	} {
		patience := 500 * time.Millisecond // nobody answers
		if test.ok {
			patience = 30 * time.Second
		}
		_, err := mine.dial("", test.address).Shares().GetShare(within(t, patience), &pb.GetShareRequest{})
		if test.ok != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.names) != 1 {
		t.Errorf("%d requests arrived, want 1", len(s.names))
	}
}

func TestConfig(t *testing.T) {
	ca := newCA(t)
	_, _, certPEM, keyPEM := ca.make("cairn://user/ann")
	want := client.Config{Addresses: []string{"n1:7450", "[::1]:7450"}, Project: "team-a", CA: ca.pem, Certificate: certPEM, Key: keyPEM}
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, want.TOML(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := client.LoadConfig(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := client.LoadConfig(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"unknown key": {"addresses = []\ncolour = 1\n", `line 2: unknown key "colour"`},
		"no TOML":     {"addresses = [\n\n= ", "line "},
		"wrong type":  {"project = 7\n", "line 1"},
	} {
		_, err := client.ParseConfig([]byte(test.text))
		if !errors.Is(err, cairn.ErrInvalid) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", name, err, test.want)
		}
	}
	for name, cfg := range map[string]client.Config{
		"no address":  {CA: want.CA, Certificate: want.Certificate, Key: want.Key},
		"bad address": {Addresses: []string{"n1"}, CA: want.CA, Certificate: want.Certificate, Key: want.Key},
		"no CA":       {Addresses: want.Addresses, Certificate: want.Certificate, Key: want.Key},
		"no key":      {Addresses: want.Addresses, CA: want.CA, Certificate: want.Certificate},
	} {
		if _, err := client.Dial(cfg); !errors.Is(err, cairn.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyAndRequestBelongTogether(t *testing.T) {
	key, der, err := client.NewKeyAndCSR("ann")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil || !private.(*ecdsa.PrivateKey).PublicKey.Equal(csr.PublicKey) {
		t.Errorf("the key is not that of the request: %v", err)
	}
}
