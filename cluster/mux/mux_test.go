package mux_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/cluster/mux"
)

// port serves the three protocols of a node; each answers every connection with its own name.
func port(t *testing.T) (*identity.Identity, string) {
	t.Helper()
	id, err := identity.Found(t.TempDir(), "n1", "demo", []string{"127.0.0.1"}, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := mux.New(inner, mux.Protocols{
		identity.ProtocolGRPC: id.ServerConfig(tls.RequireAndVerifyClientCert, identity.ProtocolGRPC),
		identity.ProtocolRaft: id.ServerConfig(tls.RequireAndVerifyClientCert, identity.ProtocolRaft),
		identity.ProtocolJoin: id.ServerConfig(tls.NoClientCert, identity.ProtocolJoin),
	}, 5*time.Second, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{identity.ProtocolGRPC, identity.ProtocolRaft, identity.ProtocolJoin} {
		go func() {
			for {
				conn, err := m.Listener(name).Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, name)
				_ = conn.Close()
			}
		}()
	}
	return id, inner.Addr().String()
}

func ask(address string, config *tls.Config) (string, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func TestProtocolsAreToldApart(t *testing.T) {
	id, address := port(t)
	for _, test := range []struct {
		protocol string
		config   *tls.Config
	}{
		{identity.ProtocolGRPC, id.ClientConfig(identity.ProtocolGRPC, id.Node)},
		{identity.ProtocolRaft, id.ClientConfig(identity.ProtocolRaft, id.Node)},
		{identity.ProtocolJoin, identity.PinnedConfig(id.Cluster.CAFingerprint)},
	} {
		if got, err := ask(address, test.config); err != nil || got != test.protocol {
			t.Errorf("%s: got %q, %v", test.protocol, got, err)
		}
	}
}

func TestStrangersAreDropped(t *testing.T) {
	id, address := port(t)
	other, err := identity.Found(t.TempDir(), "n1", "demo", nil, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	without := id.ClientConfig(identity.ProtocolGRPC, id.Node)
	without.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	foreign := id.ClientConfig(identity.ProtocolRaft, id.Node)
	foreign.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return other.Credential(), nil }
	unknown := id.ClientConfig("http/1.1", id.Node)
	old := id.ClientConfig(identity.ProtocolGRPC, id.Node)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, config := range map[string]*tls.Config{
		"no certificate":                     without,
		"certificate of another cluster":     foreign,
		"unknown protocol":                   unknown,
		"TLS 1.2":                            old,
		"server is another node than wanted": id.ClientConfig(identity.ProtocolRaft, "someone-else"),
		"server is of another cluster":       other.ClientConfig(identity.ProtocolRaft, ""),
		"pin of another cluster":             identity.PinnedConfig(other.Cluster.CAFingerprint),
	} {
		if got, err := ask(address, config); err == nil {
			t.Errorf("%s: was served %q", name, got)
		}
	}
}

func TestPlaintextIsDropped(t *testing.T) {
	_, address := port(t)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection was kept open")
	}
	// All that may come back is a TLS alert, record type 21.
	if len(answer) > 0 && answer[0] != 21 {
		t.Errorf("plaintext was answered with %q", answer)
	}
}

func TestSilentPeersDoNotBlockOthers(t *testing.T) {
	id, address := port(t)
	for range 32 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if got, err := ask(address, id.ClientConfig(identity.ProtocolRaft, id.Node)); err != nil || got != identity.ProtocolRaft {
		t.Errorf("got %q, %v", got, err)
	}
}
