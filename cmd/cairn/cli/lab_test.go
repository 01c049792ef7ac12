package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/cairn-storage/cairn/rpc/client"
	"github.com/cairn-storage/cairn/rpc/errs"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// now is the time at which every test looks at the clock.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// lab is a server of the API with fixed data on a loopback port, behind the same TLS that a cluster has, so the commands run
// through the real client. What commands change takes effect step by step: each look at a share that is on its way shows the
// next state and tells it as an event, as a cluster does.
type lab struct {
	pb.UnimplementedShareServiceServer
	pb.UnimplementedReplicaServiceServer
	pb.UnimplementedSnapshotServiceServer
	pb.UnimplementedAccessServiceServer
	pb.UnimplementedTypeServiceServer
	pb.UnimplementedQuotaServiceServer
	pb.UnimplementedTaskServiceServer
	pb.UnimplementedUserServiceServer
	pb.UnimplementedEventServiceServer
	pb.UnimplementedClusterServiceServer
	pb.UnimplementedNodeServiceServer
	pb.UnimplementedPoolServiceServer

	address string
	config  string // the client's configuration file

	mu       sync.Mutex
	changed  *sync.Cond
	requests []string         // what was asked, without tokens
	fail     map[string]error // by method
	coming   []func()         // what happens next, one at each look
	journal  []*pb.Event
	breaks   int  // how many streams of events end after their first event
	stuck    bool // nothing happens
	repeats  bool // streams begin one event too early
	data
}

// data is what a lab begins with.
type data struct {
	shares    []*pb.Share
	snapshots []*pb.Snapshot
	rules     []*pb.AccessRule
	nodes     []*pb.Node
	pools     []*pb.Pool
	held      []string // shares on the node that is drained
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{fail: map[string]error{}, data: fixedData(), journal: fixedJournal()}
	l.changed = sync.NewCond(&l.mu)
	ca, caKey := newCA(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAndVerifyClientCert,
			ClientCAs: poolOf(ca), Certificates: []tls.Certificate{pairOf(t, ca, caKey, "cairn://node/0199-node")},
		})),
		grpc.UnaryInterceptor(l.intercept))
	registerLab(server, l)
	go server.Serve(listener) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	l.address = listener.Addr().String()
	l.config = filepath.Join(t.TempDir(), "client.toml")
	writeConfig(t, l.config, l.clientConfig(t, ca, caKey))
	return l
}

func registerLab(server *grpc.Server, l *lab) {
	pb.RegisterShareServiceServer(server, l)
	pb.RegisterReplicaServiceServer(server, l)
	pb.RegisterSnapshotServiceServer(server, l)
	pb.RegisterAccessServiceServer(server, l)
	pb.RegisterTypeServiceServer(server, l)
	pb.RegisterQuotaServiceServer(server, l)
	pb.RegisterTaskServiceServer(server, l)
	pb.RegisterUserServiceServer(server, l)
	pb.RegisterEventServiceServer(server, l)
	pb.RegisterClusterServiceServer(server, l)
	pb.RegisterNodeServiceServer(server, l)
	pb.RegisterPoolServiceServer(server, l)
}

func (l *lab) clientConfig(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey) client.Config {
	t.Helper()
	pair := pairOf(t, ca, caKey, "cairn://user/ann")
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return client.Config{
		Addresses: []string{l.address}, CA: pemOf("CERTIFICATE", ca.Raw),
		Certificate: pemOf("CERTIFICATE", pair.Certificate[0]), Key: pemOf("PRIVATE KEY", der),
	}
}

func writeConfig(t *testing.T, path string, cfg client.Config) {
	t.Helper()
	if err := os.WriteFile(path, cfg.TOML(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// intercept writes down every request and makes those fail that are meant to.
func (l *lab) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	l.mu.Lock()
	l.requests = append(l.requests, method+" "+requestText(request.(proto.Message)))
	err := l.fail[method]
	l.mu.Unlock()
	if err != nil {
		return nil, errs.ToStatus(err)
	}
	return handle(ctx, request)
}

// requestText is a request as JSON without the token, which is random, and without keys.
func requestText(message proto.Message) string {
	encoded, err := protojson.Marshal(message)
	if err != nil {
		return err.Error()
	}
	var fields structpb.Struct
	if err := protojson.Unmarshal(encoded, &fields); err != nil {
		return err.Error()
	}
	delete(fields.Fields, "csr")
	if mutation := fields.Fields["mutation"].GetStructValue(); mutation != nil {
		delete(mutation.Fields, "token")
		if len(mutation.Fields) == 0 {
			delete(fields.Fields, "mutation")
		}
	}
	text, err := compact(&fields)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// asked returns the requests so far and forgets them.
func (l *lab) asked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.requests
	l.requests = nil
	return asked
}

// run is one command of a person or a script.
type run struct {
	args      []string
	env       map[string]string
	stdin     string
	terminals string // which of "stdin stdout stderr" are terminals
}

// outcome is what it left.
type outcome struct {
	stdout, stderr string
	code           int
}

func (l *lab) cairn(ctx context.Context, r run) outcome {
	env := map[string]string{"CAIRN_CONFIG": l.config, "HOME": "/nonexistent"}
	for k, v := range r.env {
		env[k] = v
	}
	r.env = env
	return cairnCommand(ctx, r)
}

// cairnCommand runs a command without any server.
func cairnCommand(ctx context.Context, r run) outcome {
	stdin := strings.NewReader(r.stdin)
	var stdout, stderr bytes.Buffer
	app := &App{
		Getenv: func(key string) string { return r.env[key] },
		Stdin:  stdin, Stdout: &stdout, Stderr: &stderr,
		Terminal: func(stream any) bool {
			name := map[any]string{stdin: "stdin", &stdout: "stdout", &stderr: "stderr"}[stream]
			return name != "" && strings.Contains(r.terminals, name)
		},
		Now:  func() time.Time { return now },
		Dial: client.Dial,
	}
	code := app.Run(ctx, r.args)
	return outcome{stdout.String(), stderr.String(), code}
}

func newCA(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	return signed(t, template, template, &key.PublicKey, key), key
}

func signed(t *testing.T, template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// pairOf is a certificate with its key for the holder that the URI names.
func pairOf(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, holder string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(holder)
	if err != nil {
		t.Fatal(err)
	}
	cert := signed(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "lab"}, URIs: []*url.URL{uri},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, ca, &key.PublicKey, caKey)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func poolOf(ca *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
