package identity

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cairn-storage/cairn"
)

// Files of the identity directory, <data>/identity. It comes into being in one rename of <data>/identity.tmp.
const (
	fileIdentity  = "identity.json" // names and keys
	fileAuthority = "ca.crt"
	fileSigner    = "ca.key"
	fileNode      = "node.pem"  // certificate and key
	fileAdmin     = "admin.pem" // of the first administrator, where the cluster was made
	fileJoin      = "join.json" // while joining: the token's ID and the key, kept for the next attempt
)

func identityDir(dataDir string) string { return filepath.Join(dataDir, "identity") }

// record is identity.json.
type record struct {
	Cluster    cairn.Cluster
	Node       cairn.NodeID
	Name       string
	GossipKey  []byte
	ClusterKey []byte
	Patience   int         `json:",omitempty"`
	Founder    *cairn.User `json:",omitempty"`
	Peers      []string    `json:",omitempty"`
}

// Load reads the identity of a data directory. cairn.ErrNotFound means that the directory has none: it has neither
// founded nor joined a cluster.
func Load(dataDir string) (*Identity, error) {
	dir := identityDir(dataDir)
	data, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data directory %s: belongs to no cluster yet; use `cairn cluster init` or `cairn node join`: %w", dataDir, cairn.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dataDir, err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", filepath.Join(dir, fileIdentity), err, cairn.ErrCorrupt)
	}
	i := &Identity{
		Cluster: r.Cluster, Node: r.Node, Name: r.Name,
		GossipKey: r.GossipKey, ClusterKey: r.ClusterKey, Patience: r.Patience, Founder: r.Founder, Peers: r.Peers, dataDir: dataDir,
	}
	if len(i.GossipKey) != KeyBytes || len(i.ClusterKey) != KeyBytes {
		return nil, fmt.Errorf("%s: keys have the wrong length: %w", filepath.Join(dir, fileIdentity), cairn.ErrCorrupt)
	}
	return i, i.loadCertificates(dir)
}

func (i *Identity) loadCertificates(dir string) error {
	certPEM, err := os.ReadFile(filepath.Join(dir, fileAuthority))
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, fileSigner))
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if i.Authority, err = ParseAuthority(certPEM, keyPEM); err != nil {
		return err
	}
	if i.Authority.Fingerprint() != i.Cluster.CAFingerprint {
		return fmt.Errorf("%s: is the authority of another cluster: %w", filepath.Join(dir, fileAuthority), cairn.ErrCorrupt)
	}
	data, err := os.ReadFile(filepath.Join(dir, fileNode))
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return fmt.Errorf("%s: no PEM certificate: %w", filepath.Join(dir, fileNode), cairn.ErrCorrupt)
	}
	credential, err := i.certify(block.Bytes, rest)
	if err != nil {
		return err
	}
	i.credential.Store(credential)
	return nil
}

// staging is a directory that becomes the identity in its last step.
type staging struct {
	dataDir string
	dir     string
}

// stage opens the staging directory of a data directory that belongs to nobody. What an earlier attempt left there is
// kept: the key of an attempt to join must survive it.
func stage(dataDir string) (*staging, error) {
	switch i, err := Load(dataDir); {
	case err == nil:
		return nil, fmt.Errorf("data directory %s: belongs to node %s of cluster %s already: %w", dataDir, i.Name, i.Cluster.Name, cairn.ErrExists)
	case !errors.Is(err, cairn.ErrNotFound):
		return nil, err
	}
	for _, other := range []string{"raft", "identity"} {
		if _, err := os.Lstat(filepath.Join(dataDir, other)); err == nil {
			return nil, fmt.Errorf("data directory %s: holds %s of another node; use an empty directory: %w", dataDir, other, cairn.ErrExists)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("data directory %s: %w", dataDir, err)
		}
	}
	s := &staging{dataDir: dataDir, dir: identityDir(dataDir) + ".tmp"}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	// failpoint: staged
	return s, nil
}

func (s *staging) write(name string, data []byte) error { return replaceFile(s.dir, name, data) }

// commit writes what is missing and renames the staging directory. After that the node has an identity; before, it has
// none.
func (i *Identity) commit(s *staging) error {
	certPEM, keyPEM, err := i.Authority.EncodePEM()
	if err != nil {
		return err
	}
	credential := i.credential.Load()
	nodeKey, err := x509.MarshalPKCS8PrivateKey(credential.PrivateKey)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	data, err := json.MarshalIndent(record{
		Cluster: i.Cluster, Node: i.Node, Name: i.Name,
		GossipKey: i.GossipKey, ClusterKey: i.ClusterKey, Patience: i.Patience, Founder: i.Founder, Peers: i.Peers,
	}, "", "\t")
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	nodePEM := credentialPEM(credential.Certificate[0], pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: nodeKey}))
	for _, file := range []struct {
		name string
		data []byte
	}{{fileAuthority, certPEM}, {fileSigner, keyPEM}, {fileNode, nodePEM}, {fileIdentity, data}} {
		if err := s.write(file.name, file.data); err != nil {
			return err
		}
	}
	// failpoint: committing
	if err := os.Rename(s.dir, identityDir(s.dataDir)); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	// failpoint: committed
	i.dataDir = s.dataDir
	if err := syncDir(s.dataDir); err != nil {
		return err
	}
	// Not before: without its key a join that is cut off here could not be repeated, for its token is used up. What a crash leaves
	// of it says nothing that is not in the node's own file.
	if err := os.Remove(filepath.Join(identityDir(s.dataDir), fileJoin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// replaceFile writes a file so that a crash leaves the old one or the new one.
func replaceFile(dir, name string, data []byte) (err error) {
	path := filepath.Join(dir, name)
	temporary := path + ".tmp"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if _, err = file.Write(data); err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	// failpoint: file-written
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	// failpoint: file-renamed
	return syncDir(dir)
}

func syncDir(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	err = handle.Sync()
	if closeErr := handle.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("identity: sync %s: %w", dir, err)
	}
	return nil
}
