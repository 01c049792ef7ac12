package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// echo is the API's own service with answers that are made already: what gRPC, mutual TLS 1.3 and the loopback network take
// for messages of this size.
type echo struct {
	cairnv1.UnimplementedShareServiceServer
	share *cairnv1.Share
}

// CreateShare implements cairnv1.ShareServiceServer.
func (e *echo) CreateShare(context.Context, *cairnv1.CreateShareRequest) (*cairnv1.CreateShareResponse, error) {
	return &cairnv1.CreateShareResponse{Share: e.share, Event: 1}, nil
}

// GetShare implements cairnv1.ShareServiceServer.
func (e *echo) GetShare(context.Context, *cairnv1.GetShareRequest) (*cairnv1.GetShareResponse, error) {
	return &cairnv1.GetShareResponse{Share: e.share, Event: 1}, nil
}

// newEcho serves the share and returns a client.
func newEcho(b *testing.B, share *cairnv1.Share) cairnv1.ShareServiceClient {
	b.Helper()
	certificate, pool := selfSigned(b)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})))
	cairnv1.RegisterShareServiceServer(server, &echo{share: share})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, RootCAs: pool,
	})))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return cairnv1.NewShareServiceClient(conn)
}

// selfSigned makes one certificate for both sides.
func selfSigned(b *testing.B) (tls.Certificate, *x509.CertPool) {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
