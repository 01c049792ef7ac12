package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
)

func found(t *testing.T, dir string) (*identity.Identity, identity.Bundle) {
	t.Helper()
	id, err := identity.Found(dir, "n1", "demo", []string{"127.0.0.1", "n1.example"}, 3, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := identity.LoadAdmin(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id, admin
}

func TestFoundAndLoad(t *testing.T) {
	dir := t.TempDir()
	id, admin := found(t, dir)
	loaded, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Node != id.Node || loaded.Cluster != id.Cluster || !bytes.Equal(loaded.GossipKey, id.GossipKey) ||
		!bytes.Equal(loaded.ClusterKey, id.ClusterKey) || *loaded.Founder != *id.Founder || loaded.Patience != 3 {
		t.Errorf("loaded %+v", loaded)
	}
	leaf := loaded.Credential().Leaf
	if leaf.IPAddresses[0].String() != "127.0.0.1" || leaf.DNSNames[0] != "n1.example" || leaf.URIs[0].String() != "cairn://node/"+string(id.Node) {
		t.Errorf("certificate for %v %v %v", leaf.IPAddresses, leaf.DNSNames, leaf.URIs)
	}
	pair, err := tls.X509KeyPair(admin.CertificatePEM, admin.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if subject, err := identity.SubjectOf(pair.Leaf); err != nil || subject.String() != "user/admin" {
		t.Errorf("administrator: %v, %v", subject, err)
	}
	if identity.Serial(pair.Leaf) != id.Founder.Serial {
		t.Error("the administrator's row has another serial than the certificate")
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCrashWhileFounding: whatever a crash leaves in the staging directory, the node has no identity, and the next attempt
// succeeds.
func TestCrashWhileFounding(t *testing.T) {
	whole := t.TempDir()
	found(t, whole)
	files, err := os.ReadDir(filepath.Join(whole, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(files) + 1 {
		dir := t.TempDir()
		staging := filepath.Join(dir, "identity.tmp")
		if err := os.Mkdir(staging, 0o700); err != nil {
			t.Fatal(err)
		}
		for i, file := range files[:n] {
			data, err := os.ReadFile(filepath.Join(whole, "identity", file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if i == n-1 {
				data = data[:len(data)/2] // the crash came while this one was written
			}
			if err := os.WriteFile(filepath.Join(staging, file.Name()), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := identity.Load(dir); !errors.Is(err, cairn.ErrNotFound) {
			t.Errorf("after %d files: %v", n, err)
		}
		id, _ := found(t, dir)
		if loaded, err := identity.Load(dir); err != nil || loaded.Node != id.Node {
			t.Errorf("after %d files: %v", n, err)
		}
	}
}

func TestDirectoriesOfOthers(t *testing.T) {
	dir := t.TempDir()
	id, _ := found(t, dir)
	other := t.TempDir()
	found(t, other)
	for _, test := range []struct {
		name    string
		prepare func(dir string) error
		want    error
		text    string
	}{
		{"a node's", func(string) error { return nil }, cairn.ErrExists, "belongs to node n1 of cluster demo already"},
		{"state without an identity", func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, "identity")); err != nil {
				return err
			}
			return os.Mkdir(filepath.Join(dir, "raft"), 0o700)
		}, cairn.ErrExists, "holds raft of another node"},
		{"half an identity", func(dir string) error { return os.Remove(filepath.Join(dir, "identity", "identity.json")) }, cairn.ErrExists, "holds identity"},
		{"unreadable", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "identity", "identity.json"), []byte("{"), 0o600)
		}, cairn.ErrCorrupt, "identity.json"},
		{"certificate of another node", func(dir string) error { return copyFile(dir, other, "node.pem") }, cairn.ErrCorrupt, "node certificate"},
		{"authority of another cluster", func(dir string) error {
			return errors.Join(copyFile(dir, other, "ca.crt"), copyFile(dir, other, "ca.key"))
		}, cairn.ErrCorrupt, "another cluster"},
		{"key of another authority", func(dir string) error { return copyFile(dir, other, "ca.key") }, cairn.ErrCorrupt, "does not fit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			broken := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(broken, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if err := test.prepare(broken); err != nil {
				t.Fatal(err)
			}
			_, err := identity.Found(broken, "n1", "demo", nil, 0, time.Now())
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v with %q in one line", err, test.want, test.text)
			}
		})
	}
	if loaded, err := identity.Load(dir); err != nil || loaded.Node != id.Node {
		t.Errorf("the refused attempts changed something: %v", err)
	}
}

func copyFile(to, from, name string) error {
	data, err := os.ReadFile(filepath.Join(from, "identity", name))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "identity", name), data, 0o600)
}

// TestRequestsDoNotChooseTheirName: what a machine asks to be called is not what it is called.
func TestRequestsDoNotChooseTheirName(t *testing.T) {
	id, _ := found(t, t.TempDir())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "node/other"},
		URIs:    []*url.URL{{Scheme: "cairn", Host: "node", Path: "/other"}, {Scheme: "cairn", Host: "user", Path: "/admin"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	node, err := id.Authority.SignNode(request, "mine", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	user, err := id.Authority.SignUser(request, "alice", make([]byte, 32), time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for der, want := range map[string]string{string(node): "node/mine", string(user): "user/alice"} {
		certificate, err := x509.ParseCertificate([]byte(der))
		if err != nil {
			t.Fatal(err)
		}
		if subject, err := identity.SubjectOf(certificate); err != nil || subject.String() != want {
			t.Errorf("got %v, %v, want %s", subject, err, want)
		}
	}
	request[len(request)-1] ^= 1
	if _, err := id.Authority.SignNode(request, "mine", time.Now()); !errors.Is(err, cairn.ErrInvalid) {
		t.Errorf("a request without possession of its key: %v", err)
	}
}

// TestUsersAreNotNodes lets a user's certificate answer as a node, and connect as one.
func TestUsersAreNotNodes(t *testing.T) {
	id, admin := found(t, t.TempDir())
	user, err := tls.X509KeyPair(admin.CertificatePEM, admin.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	posing := id.ServerConfig(tls.NoClientCert, identity.ProtocolRaft)
	posing.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &user, nil }
	if err := shake(t, posing, id.ClientConfig(identity.ProtocolRaft, "")); err == nil {
		t.Error("a user's certificate was taken for a node's")
	}
	client := id.ClientConfig(identity.ProtocolRaft, id.Node)
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &user, nil }
	if err := shake(t, id.ServerConfig(tls.RequireAndVerifyClientCert, identity.ProtocolRaft), client); err == nil {
		t.Error("a user was let in to Raft")
	}
	client.NextProtos = []string{identity.ProtocolGRPC}
	if err := shake(t, id.ServerConfig(tls.RequireAndVerifyClientCert, identity.ProtocolGRPC), client); err != nil {
		t.Errorf("a user was not let in to gRPC: %v", err)
	}
}

// shake returns the error of either side.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	if err := errors.Join(a.SetDeadline(deadline), b.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(a, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		served <- errors.Join(err, a.Close())
	}()
	conn := tls.Client(b, client)
	err = conn.Handshake()
	if err == nil {
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells a client only then that it was refused
	}
	return errors.Join(err, b.Close(), <-served)
}

// TestCandidateKeepsItsKey: the next attempt with the same token asks with the same key, one with another token does not.
func TestCandidateKeepsItsKey(t *testing.T) {
	id, _ := found(t, t.TempDir())
	dir := t.TempDir()
	token := identity.Token{ID: "t1", Cluster: id.Cluster.ID, Fingerprint: id.Cluster.CAFingerprint, Node: "x", Name: "n2"}
	hash := func(token identity.Token) string {
		candidate, err := identity.NewCandidate(dir, token, []string{"h"})
		if err != nil {
			t.Fatal(err)
		}
		sum, err := identity.KeyHash(candidate.Request)
		if err != nil {
			t.Fatal(err)
		}
		return string(sum)
	}
	first := hash(token)
	if hash(token) != first {
		t.Error("another key for the same token")
	}
	token.ID = "t2"
	if hash(token) == first {
		t.Error("the same key for another token")
	}
}

// TestJoinCutOffAtItsCommit: the cluster has given its answer, and the token is used up by the key that asked. If the directory
// does not get its name then, the next attempt has to have that key.
func TestJoinCutOffAtItsCommit(t *testing.T) {
	id, _ := found(t, t.TempDir())
	dir := t.TempDir()
	token := identity.Token{ID: "t1", Cluster: id.Cluster.ID, Fingerprint: id.Cluster.CAFingerprint, Node: "x", Name: "n2"}
	var keys [][]byte
	for _, cutOff := range []bool{true, false} {
		candidate, err := identity.NewCandidate(dir, token, []string{"h"})
		if err != nil {
			t.Fatal(err)
		}
		key, err := identity.KeyHash(candidate.Request)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		der, err := id.Authority.SignNode(candidate.Request, token.Node, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		certPEM, keyPEM, err := id.Authority.EncodePEM()
		if err != nil {
			t.Fatal(err)
		}
		inTheWay := filepath.Join(dir, "identity")
		if cutOff { // the rename finds a directory that is not empty
			if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		_, err = candidate.Accept(identity.Grant{
			Cluster: id.Cluster, Certificate: der, AuthorityPEM: certPEM, SignerPEM: keyPEM, GossipKey: id.GossipKey, ClusterKey: id.ClusterKey,
		})
		if (err != nil) != cutOff {
			t.Fatalf("cut off: %t, and %v", cutOff, err)
		}
		if cutOff {
			if err := os.RemoveAll(inTheWay); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !bytes.Equal(keys[0], keys[1]) {
		t.Error("the second attempt asks with another key, and its token is used up")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "identity", "join.json")); err != nil || len(left) > 0 {
		t.Errorf("%v is left of the join (%v)", left, err)
	}
}

func TestRenew(t *testing.T) {
	dir := t.TempDir()
	id, _ := found(t, dir)
	old := id.Credential().Leaf.SerialNumber
	csr, key, err := identity.NewRequest([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := id.Authority.SignNode(csr, "other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Renew(foreign, key); !errors.Is(err, cairn.ErrCorrupt) || id.Credential().Leaf.SerialNumber.Cmp(old) != 0 {
		t.Errorf("another node's certificate: %v", err)
	}
	der, err := id.Authority.SignNode(csr, id.Node, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Renew(der, key); err != nil {
		t.Fatal(err)
	}
	loaded, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded.Credential().Leaf.SerialNumber; got.Cmp(old) == 0 || got.Cmp(id.Credential().Leaf.SerialNumber) != 0 {
		t.Error("disk and memory differ")
	}
}

func TestTokenText(t *testing.T) {
	secret, err := identity.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	token := identity.Token{
		ID: "t", Cluster: "c", Fingerprint: strings.Repeat("a", 64), Node: "n", Name: "n2", Secret: secret, Addresses: []string{"h:1"},
	}
	text, err := token.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := identity.ParseToken(" " + text + "\n"); err != nil || !bytes.Equal(parsed.Secret, secret) {
		t.Errorf("round trip: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "cut": text[:len(text)-3], "JSON of something else": "e30"} {
		if _, err := identity.ParseToken(text); !errors.Is(err, cairn.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
