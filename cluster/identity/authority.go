package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/cairn-storage/cairn"
)

const (
	authorityTTL = 20 * 365 * 24 * time.Hour
	// NodeTTL is how long a node's certificate is valid; it is renewed when a third of that is used.
	NodeTTL = 365 * 24 * time.Hour
	// backdate allows for clocks that differ by what joining tolerates, and some more.
	backdate = 5 * time.Minute

	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// Authority signs the certificates of one cluster.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes the authority of a new cluster.
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Cairn cluster " + cluster},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityTTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return &Authority{Certificate: certificate, key: key}, nil
}

// ParseAuthority reads what EncodePEM wrote.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	certificate, err := parseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("certificate authority: its key does not fit its certificate: %w", cairn.ErrCorrupt)
	}
	return &Authority{Certificate: certificate, key: key}, nil
}

// EncodePEM returns the certificate and the private key.
func (a *Authority) EncodePEM() (certPEM, keyPEM []byte, err error) {
	keyPEM, err = encodeKey(a.key)
	if err != nil {
		return nil, nil, err
	}
	return EncodeCertificate(a.Certificate.Raw), keyPEM, nil
}

// Fingerprint is the lower-case hex SHA-256 of a certificate's DER; a join token pins that of the authority.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Fingerprint of the authority's own certificate.
func (a *Authority) Fingerprint() string { return Fingerprint(a.Certificate.Raw) }

// SignNode signs the public key of a certificate request for a node. The hosts are the request's; the name is not: it is
// the one that the token was made for.
func (a *Authority) SignNode(csrDER []byte, node cairn.NodeID, now time.Time) ([]byte, error) {
	request, err := parseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	template := leaf(Subject{Kind: SubjectNode, Name: string(node)}, now, NodeTTL)
	template.DNSNames, template.IPAddresses = request.DNSNames, request.IPAddresses
	template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	if template.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	return a.sign(template, request)
}

// SignUser signs the public key of a certificate request for a user, who can only be a client. Of serial the first 16 bytes
// become the certificate's serial number, so that a repeated request gets the same one.
func (a *Authority) SignUser(csrDER []byte, user string, serial []byte, ttl time.Duration, now time.Time) ([]byte, error) {
	request, err := parseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	template := leaf(Subject{Kind: SubjectUser, Name: user}, now, ttl)
	template.SerialNumber = new(big.Int).SetBytes(serial[:16])
	template.SerialNumber.SetBit(template.SerialNumber, 127, 0) // positive in DER, and never 0
	template.SerialNumber.SetBit(template.SerialNumber, 126, 1)
	return a.sign(template, request)
}

func (a *Authority) sign(template *x509.Certificate, request *x509.CertificateRequest) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, request.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", template.Subject.CommonName, err)
	}
	return der, nil
}

func leaf(subject Subject, now time.Time, ttl time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: subject.String()},
		URIs:        []*url.URL{subject.url()},
		NotBefore:   now.Add(-backdate),
		NotAfter:    now.Add(ttl),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// NewRequest makes a private key and a certificate request for it that asks for the hosts: names and addresses at which
// the machine can be reached, without ports.
func NewRequest(hosts []string) (csrDER, keyPEM []byte, err error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	csrDER, err = RequestFor(keyPEM, hosts)
	return csrDER, keyPEM, err
}

// RequestFor makes a certificate request for a key that exists, as a second attempt to join needs it.
func RequestFor(keyPEM []byte, hosts []string) ([]byte, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return der, nil
}

// KeyHash is the SHA-256 of the public key in a certificate request: who consumed a token.
func KeyHash(csrDER []byte) ([]byte, error) {
	request, err := parseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(request.RawSubjectPublicKeyInfo)
	return sum[:], nil
}

func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", err, cairn.ErrInvalid)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", err, cairn.ErrInvalid)
	}
	if _, ok := request.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("certificate request: want an ECDSA key, got %T: %w", request.PublicKey, cairn.ErrInvalid)
	}
	return request, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return key, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("certificate serial: %w", err)
	}
	return serial, nil
}

// EncodeCertificate renders a certificate as PEM.
func EncodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemCertificate {
		return nil, fmt.Errorf("no PEM certificate: %w", cairn.ErrCorrupt)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, cairn.ErrCorrupt)
	}
	return certificate, nil
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemKey {
		return nil, fmt.Errorf("no PEM private key: %w", cairn.ErrCorrupt)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("private key: %w: %w", err, cairn.ErrCorrupt)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key: want ECDSA, got %T: %w", parsed, cairn.ErrCorrupt)
	}
	return key, nil
}
