package cluster

import "github.com/cairn-storage/cairn/cluster/identity"

// Identity is who a node is; see package identity.
type Identity = identity.Identity

// Token is a join token; see package identity.
type Token = identity.Token

// InitConfig says what Init makes.
type InitConfig struct {
	DataDir     string
	NodeName    string
	ClusterName string
	Hosts       []string // names and addresses of this machine, for its certificate
	Patience    int      // how many times as long as usual the nodes wait for each other, for as long as the cluster is there; 0 is 1
}

// Init prepares the data directory of the first node of a new cluster. A crash leaves either nothing or all of it. The
// error is cairn.ErrExists if the directory belongs to a node already.
func Init(c InitConfig) (*Identity, error) {
	return identity.Found(c.DataDir, c.NodeName, c.ClusterName, c.Hosts, c.Patience, wallClock())
}

// LoadIdentity reads the identity of a data directory; cairn.ErrNotFound if it has none.
func LoadIdentity(dataDir string) (*Identity, error) { return identity.Load(dataDir) }

// ParseToken reads what CreateToken returned.
func ParseToken(text string) (Token, error) { return identity.ParseToken(text) }
