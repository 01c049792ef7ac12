package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/fsm"
	"github.com/cairn-storage/cairn/rpc/client"
	"github.com/cairn-storage/cairn/rpc/server"
)

// maxPatience makes a failover take minutes.
const maxPatience = 60

// InitCluster makes a new cluster with this machine as its first node, and returns the administrator's client
// configuration. It works on the data directory alone; the server is started afterwards. On a directory that belongs to a
// node it is cairn.ErrExists, unless that is what an earlier, interrupted run of the same init left there.
func InitCluster(config Config, clusterName string, patience int) ([]byte, error) {
	if patience < 1 || patience > maxPatience {
		return nil, fmt.Errorf("patience %d: want 1 to %d: %w", patience, maxPatience, cairn.ErrInvalid)
	}
	if config.Name == "" {
		return nil, fmt.Errorf("name: is missing in the configuration; the first node needs one: %w", cairn.ErrInvalid)
	}
	_, err := cluster.Init(cluster.InitConfig{
		DataDir: config.DataDir, NodeName: config.Name, ClusterName: clusterName, Hosts: config.Hosts(), Patience: patience,
	})
	if err != nil && !foundedBefore(config, clusterName, patience) {
		return nil, err
	}
	return AdminConfig(config)
}

// foundedBefore reports whether the directory is one that the same init has made and no server has used.
func foundedBefore(config Config, clusterName string, patience int) bool {
	id, err := cluster.LoadIdentity(config.DataDir)
	if err != nil || id.Founder == nil || id.Name != config.Name || id.Cluster.Name != clusterName || id.Patience != patience {
		return false
	}
	_, err = os.Lstat(filepath.Join(config.DataDir, "raft"))
	return errors.Is(err, fs.ErrNotExist)
}

// Join makes this machine a member with a token that the cluster has given out. A join that was interrupted is repeated with
// the same token.
func Join(ctx context.Context, config Config, token string) error {
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		return err
	}
	if config.Name != "" && config.Name != parsed.Name {
		return fmt.Errorf("token: is for node %s, but the configuration is for %s: %w", parsed.Name, config.Name, cairn.ErrPrecondition)
	}
	_, err = cluster.Join(ctx, cluster.JoinConfig{DataDir: config.DataDir, Token: token, Hosts: config.Hosts()})
	if errors.Is(err, cairn.ErrExists) && joinedBefore(config, parsed) {
		return nil
	}
	return err
}

// joinedBefore reports whether the directory belongs to the token's node already: an earlier run was killed before it could say
// so.
func joinedBefore(config Config, token identity.Token) bool {
	id, err := cluster.LoadIdentity(config.DataDir)
	return err == nil && id.Node == token.Node && id.Cluster.ID == token.Cluster
}

// Joined reports whether the data directory has an identity.
func Joined(config Config) (bool, error) {
	_, err := cluster.LoadIdentity(config.DataDir)
	if errors.Is(err, cairn.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// AdminConfig is the client configuration of the first administrator. Only the node that made the cluster has it.
func AdminConfig(config Config) ([]byte, error) {
	admin, err := identity.LoadAdmin(config.DataDir)
	if err != nil {
		return nil, err
	}
	return client.Config{
		Addresses: []string{config.advertised(config.Listen)},
		CA:        admin.AuthorityPEM, Certificate: admin.CertificatePEM, Key: admin.KeyPEM,
	}.TOML(), nil
}

// membership is the member as the API server sees it.
type membership struct{ *cluster.Node }

// Status implements server.Membership.
func (m membership) Status() server.Status {
	status := m.Node.Status()
	out := server.Status{Leader: status.Leader, Term: status.Term}
	for _, one := range status.Members {
		if one.InRaft {
			out.Members = append(out.Members, server.Member{
				Node: one.Node.ID, Address: one.Node.Address, Voter: one.Votes, ClockOffset: one.Skew, LastIndex: one.LastLog,
			})
		}
	}
	return out
}

// RemoveMember implements server.Membership.
func (m membership) RemoveMember(ctx context.Context, meta fsm.Meta, node cairn.NodeID, force bool) error {
	result, err := m.Node.RemoveMember(ctx, meta, node, force)
	return cmp.Or(err, result.Err)
}
