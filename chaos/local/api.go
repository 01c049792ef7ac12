package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// adminFile is the client configuration that `cairn cluster init` made.
func (c *Cluster) adminFile() string { return filepath.Join(c.config.Dir, "admin.toml") }

// ClientConfig is the administrator's, for the given servers, or for those that run if none is given.
func (c *Cluster) ClientConfig(servers ...*Server) (client.Config, error) {
	cfg, err := client.LoadConfig(c.adminFile())
	if err != nil {
		return cfg, err
	}
	if len(servers) == 0 {
		servers = c.running()
	}
	cfg.Addresses = nil
	for _, s := range servers {
		cfg.Addresses = append(cfg.Addresses, s.Address())
	}
	return cfg, nil
}

func (c *Cluster) running() []*Server {
	var running []*Server
	for _, s := range c.Servers() {
		if s.Running() {
			running = append(running, s)
		}
	}
	return running
}

// clientFile writes a client configuration for the servers. Its name is made from the content, so that commands that run at
// the same time do not disturb each other.
func (c *Cluster) clientFile(servers []*Server) (string, error) {
	cfg, err := c.ClientConfig(servers...)
	if err != nil {
		return "", err
	}
	text := cfg.TOML()
	sum := sha256.Sum256(text)
	path := filepath.Join(c.config.Dir, "client-"+hex.EncodeToString(sum[:6])+".toml")
	temporary, err := os.CreateTemp(c.config.Dir, "client-*.tmp")
	if err != nil {
		return "", fmt.Errorf("client configuration: %w", err)
	}
	_, err = temporary.Write(text)
	if err := errors.Join(err, temporary.Close(), os.Rename(temporary.Name(), path)); err != nil {
		return "", fmt.Errorf("client configuration: %w", err)
	}
	return path, nil
}

// CA is the certificate, PEM, that the cluster's servers are verified against.
func (c *Cluster) CA() ([]byte, error) {
	cfg, err := client.LoadConfig(c.adminFile())
	return cfg.CA, err
}

// API returns the administrator's connection to the given servers, or to those that run if none is given. It is kept, and works
// again when the servers do.
func (c *Cluster) API(servers ...*Server) (*client.Client, error) {
	cfg, err := c.ClientConfig(servers...)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := strings.Join(cfg.Addresses, " ")
	if api := c.clients[key]; api != nil {
		return api, nil
	}
	api, err := client.Dial(cfg)
	if err == nil {
		c.clients[key] = api
	}
	return api, err
}

// lookTimeout bounds one question to one server.
func (c *Cluster) lookTimeout() time.Duration {
	return 2 * time.Second * time.Duration(max(1, c.config.Patience))
}

// Status asks one server how it sees the cluster; that needs no quorum.
func (c *Cluster) Status(ctx context.Context, s *Server) (*cairnv1.GetClusterStatusResponse, error) {
	if !s.Running() {
		return nil, s.ended()
	}
	api, err := c.API(s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.lookTimeout())
	defer cancel()
	return api.Cluster().GetClusterStatus(ctx, &cairnv1.GetClusterStatusRequest{})
}

// Leader waits until all running servers see the same leader, which runs, and returns it.
func (c *Cluster) Leader(ctx context.Context) (*Server, error) {
	var leader *Server
	err := Await(ctx, "one leader", func(ctx context.Context) (bool, error) {
		seen := ""
		for _, s := range c.running() {
			status, err := c.Status(ctx, s)
			if err != nil {
				return false, err
			}
			if status.GetLeader() == "" || seen != "" && status.GetLeader() != seen {
				return false, fmt.Errorf("%s sees leader %q, others see %q", s.Name, status.GetLeader(), seen)
			}
			seen = status.GetLeader()
		}
		leader = c.Server(seen)
		return leader != nil && leader.Running(), nil
	})
	return leader, err
}

// AwaitUp waits until the cluster says that the server is a member and up. A process that ends first is an error with the
// reason from its log.
func (c *Cluster) AwaitUp(ctx context.Context, s *Server) error {
	return Await(ctx, "server "+s.Name+" to be up", func(ctx context.Context) (bool, error) {
		if !s.Running() {
			return false, Fatal(s.ended())
		}
		node, err := c.Node(ctx, s, s.Name)
		return node.GetState() == "up" && node.GetRaftRole() != "", err
	})
}

// AwaitVoters waits until all running servers see exactly so many voters, the leader included.
func (c *Cluster) AwaitVoters(ctx context.Context, n int) error {
	return Await(ctx, fmt.Sprintf("%d voters", n), func(ctx context.Context) (bool, error) {
		for _, s := range c.running() {
			status, err := c.Status(ctx, s)
			if err != nil {
				return false, err
			}
			if voters := Voters(status); len(voters) != n || status.GetLeader() == "" {
				return false, fmt.Errorf("%s sees leader %q and voters %v", s.Name, status.GetLeader(), voters)
			}
		}
		return true, nil
	})
}

// Voters are the names of the members that vote.
func Voters(status *cairnv1.GetClusterStatusResponse) []string {
	var voters []string
	for _, m := range status.GetMembers() {
		if m.GetRole() == "voter" || m.GetRole() == "leader" {
			voters = append(voters, m.GetNode())
		}
	}
	return voters
}

// Node asks a server about a node.
func (c *Cluster) Node(ctx context.Context, s *Server, name string) (*cairnv1.Node, error) {
	api, err := c.API(s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.lookTimeout())
	defer cancel()
	answer, err := api.Nodes().GetNode(ctx, &cairnv1.GetNodeRequest{Node: name})
	return answer.GetNode(), err
}

// AwaitServed waits until a share is available and healthy, and its node has done everything that is wanted of it.
func (c *Cluster) AwaitServed(ctx context.Context, share string) error {
	return Await(ctx, "share "+share+" to be served", func(ctx context.Context) (bool, error) {
		running := c.running()
		if len(running) == 0 {
			return false, Fatal(errors.New("no server runs"))
		}
		api, err := c.API(running[0])
		if err != nil {
			return false, err
		}
		ctx, cancel := context.WithTimeout(ctx, c.lookTimeout())
		defer cancel()
		answer, err := api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: share})
		if err != nil {
			return false, err
		}
		for _, replica := range answer.GetShare().GetReplicas() {
			if !replica.GetSettled() || replica.GetFault() != nil {
				return false, fmt.Errorf("the replica on %s has something to do yet (fault: %v)", replica.GetNode(), replica.GetFault())
			}
		}
		return answer.GetShare().GetManilaStatus() == "available" && answer.GetShare().GetFault() == nil, nil
	})
}

// State is the replicated state that servers agreed on.
type State struct {
	Index  uint64
	Digest string
	Term   uint64
	Leader string
}

// Agree waits until all running servers have applied the same entry, and returns their state there. Two digests at the same
// entry are an error at once: waiting does not mend that.
func (c *Cluster) Agree(ctx context.Context) (State, error) {
	var state State
	err := Await(ctx, "all servers at the same entry", func(ctx context.Context) (bool, error) {
		seen := map[uint64]State{}
		for _, s := range c.running() {
			status, err := c.Status(ctx, s)
			if err != nil {
				return false, err
			}
			state = State{status.GetAppliedIndex(), status.GetDigest(), status.GetTerm(), status.GetLeader()}
			if other, ok := seen[state.Index]; ok && other.Digest != state.Digest || status.GetDiverged() {
				return false, Fatal(fmt.Errorf("%s has digest %s at entry %d, another server %s", s.Name, state.Digest, state.Index, other.Digest))
			}
			seen[state.Index] = state
		}
		return len(seen) == 1, nil
	})
	return state, err
}
