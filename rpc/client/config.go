package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/cairn-storage/cairn"
)

// Config is how a client finds a cluster, and who it is there.
type Config struct {
	// Addresses are nodes of the cluster (host:port); any of them will do.
	Addresses []string
	// Project is that of requests which name none; "" leaves it to the server.
	Project string
	// CA is the cluster's certificate; Certificate and Key are the user's. PEM.
	CA, Certificate, Key []byte
}

// file is Config as a TOML file.
type file struct {
	Addresses   []string `toml:"addresses"`
	Project     string   `toml:"project"`
	CA          string   `toml:"ca"`
	Certificate string   `toml:"certificate"`
	Key         string   `toml:"key"`
}

// LoadConfig reads a client configuration (TOML). Unknown keys are errors with a line number; a file that is not there is
// fs.ErrNotExist.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("client configuration: %w", err)
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("client configuration %s: %w", path, err)
	}
	return cfg, nil
}

// ParseConfig reads what TOML writes.
func ParseConfig(data []byte) (Config, error) {
	var f file
	if err := toml.NewDecoder(strings.NewReader(string(data))).DisallowUnknownFields().Decode(&f); err != nil {
		return Config{}, tomlError(err)
	}
	return Config{Addresses: f.Addresses, Project: f.Project, CA: []byte(f.CA), Certificate: []byte(f.Certificate), Key: []byte(f.Key)}, nil
}

// tomlError makes one line with a line number of what the decoder says.
func tomlError(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		row, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %q: %w", row, strings.Join(unknown.Errors[0].Key(), "."), cairn.ErrInvalid)
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, _ := wrong.Position()
		return fmt.Errorf("line %d: %s: %w", row, strings.TrimPrefix(wrong.Error(), "toml: "), cairn.ErrInvalid)
	}
	return fmt.Errorf("%s: %w", strings.Join(strings.Fields(err.Error()), " "), cairn.ErrInvalid)
}

// TOML renders the configuration as the file that LoadConfig reads. It holds a private key: write it for its owner only.
func (c Config) TOML() []byte {
	var b strings.Builder
	quoted := make([]string, len(c.Addresses))
	for i, address := range c.Addresses {
		quoted[i] = strconv.Quote(address)
	}
	fmt.Fprintf(&b, "addresses = [%s]\n", strings.Join(quoted, ", "))
	if c.Project != "" {
		fmt.Fprintf(&b, "project = %s\n", strconv.Quote(c.Project))
	}
	for _, block := range []struct {
		key string
		pem []byte
	}{{"ca", c.CA}, {"certificate", c.Certificate}, {"key", c.Key}} {
		fmt.Fprintf(&b, "%s = '''\n%s'''\n", block.key, block.pem)
	}
	return []byte(b.String())
}

func (c Config) check() error {
	if len(c.Addresses) == 0 {
		return fmt.Errorf("client: no addresses; name at least one node of the cluster: %w", cairn.ErrInvalid)
	}
	for _, address := range c.Addresses {
		if err := checkAddress(address); err != nil {
			return err
		}
	}
	return nil
}

// NewKeyAndCSR makes the private key (PEM) of a new user, which never leaves the machine, and the certificate signing request
// (DER) for UserService.CreateUser.
func NewKeyAndCSR(name string) (keyPEM, csrDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("key of user %s: %w", name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("key of user %s: %w", name, err)
	}
	csrDER, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate signing request of user %s: %w", name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), csrDER, nil
}
