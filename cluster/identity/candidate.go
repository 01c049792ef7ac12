package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cairn-storage/cairn"
)

// Candidate is a machine that is about to join. Its key is on disk before the token's secret leaves the machine, so that
// after a crash the next attempt asks with the same key, and the cluster gives it the same answer.
type Candidate struct {
	Token   Token
	Request []byte // DER

	keyPEM  []byte
	staging *staging
}

// joining is join.json.
type joining struct {
	Token  cairn.TokenID
	KeyPEM []byte
}

// NewCandidate prepares a data directory that belongs to nobody, or goes on with an earlier attempt of the same token.
func NewCandidate(dataDir string, token Token, hosts []string) (*Candidate, error) {
	staging, err := stage(dataDir)
	if err != nil {
		return nil, err
	}
	c := &Candidate{Token: token, staging: staging}
	if c.keyPEM, err = staging.key(token.ID); err != nil {
		return nil, err
	}
	// failpoint: key-kept
	if c.Request, err = RequestFor(c.keyPEM, hosts); err != nil {
		return nil, err
	}
	return c, nil
}

// key returns the key of an earlier attempt with the token, or a new one that is on disk by then.
func (s *staging) key(token cairn.TokenID) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, fileJoin))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err == nil {
		var earlier joining
		if err := json.Unmarshal(data, &earlier); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", filepath.Join(s.dir, fileJoin), err, cairn.ErrCorrupt)
		}
		if earlier.Token == token {
			return earlier.KeyPEM, nil
		}
	}
	_, keyPEM, err := NewRequest(nil)
	if err != nil {
		return nil, err
	}
	if data, err = json.Marshal(joining{Token: token, KeyPEM: keyPEM}); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return keyPEM, s.write(fileJoin, data)
}

// Grant is what the cluster hands to a candidate over the verified connection.
type Grant struct {
	Cluster       cairn.Cluster
	Certificate   []byte // DER
	AuthorityPEM  []byte
	SignerPEM     []byte
	GossipKey     []byte
	ClusterKey    []byte
	Patience      int
	PeerAddresses []string
}

// Accept checks the grant against the token and commits the identity to the data directory.
func (c *Candidate) Accept(g Grant) (*Identity, error) {
	authority, err := ParseAuthority(g.AuthorityPEM, g.SignerPEM)
	if err != nil {
		return nil, err
	}
	if authority.Fingerprint() != c.Token.Fingerprint || g.Cluster.ID != c.Token.Cluster {
		return nil, fmt.Errorf("join: the answer is of another cluster than the token: %w", cairn.ErrUnauthenticated)
	}
	if len(g.GossipKey) != KeyBytes || len(g.ClusterKey) != KeyBytes {
		return nil, fmt.Errorf("join: the answer's keys have the wrong length: %w", cairn.ErrCorrupt)
	}
	i := &Identity{
		Cluster: g.Cluster, Node: c.Token.Node, Name: c.Token.Name, Authority: authority,
		GossipKey: g.GossipKey, ClusterKey: g.ClusterKey, Patience: g.Patience, Peers: g.PeerAddresses,
	}
	credential, err := i.certify(g.Certificate, c.keyPEM)
	if err != nil {
		return nil, err
	}
	i.credential.Store(credential)
	// failpoint: accepted
	return i, i.commit(c.staging)
}
