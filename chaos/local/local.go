// Package local runs a cluster of real server processes on this machine the way an operator would: a configuration file for
// each server, `cairn cluster init`, join tokens, `cairn node join` and `cairn server`. Servers can be stopped, killed,
// paused and started again. The demonstration, the tests of whole clusters and the failover benchmark stand on it.
//
// It knows the command line, the API, and which names a "dir" pool keeps for itself; nothing else of what is behind them.
package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/rpc/client"
)

// Config says what to run.
type Config struct {
	Dir        string // for everything that the cluster writes; must be there
	Executable string // the cairn binary
	PoolSize   string // of each server's pool, such as "10GiB"; "" is the whole file system
	// Base is the address before the first server's, whoever made a network for them; without it they have free ones of the
	// loopback network.
	Base netip.Addr
	// Clients is the address before the first server's in a network of clients of NFS. With it every server has a Ganesha there, and its
	// pool is on btrfs: of a directory nobody can make snapshots while clients write over NFS.
	Clients netip.Addr
	// Patience is that of the cluster, 1 if it is 0.
	Patience int
}

// Cluster is a number of servers. Its methods may be called concurrently, except Start, Join and Close.
type Cluster struct {
	config Config
	base   uint32 // the servers' addresses are base+1, base+2, …
	tools  tool.Runner

	mu      sync.Mutex
	servers []*Server
	clients map[string]*client.Client // by addresses
}

// New prepares a cluster without servers.
func New(cfg Config) (*Cluster, error) {
	base, err := uint32(0), error(nil)
	if cfg.Base.Is4() {
		base = binary.BigEndian.Uint32(cfg.Base.AsSlice())
	} else if base, err = freeBase(); err != nil {
		return nil, err
	}
	return &Cluster{config: cfg, base: base, tools: tool.NewMachine(), clients: map[string]*client.Client{}}, nil
}

// freeBase finds 254 addresses of the loopback network that nobody listens on. With an address of its own a server needs no
// search for ports, and while it is down nobody's outgoing connection takes them.
func freeBase() (uint32, error) {
	for range 100 {
		base := 127<<24 | (64+rand.Uint32N(64))<<16 | rand.Uint32N(256)<<8
		listener, err := net.Listen("tcp", net.JoinHostPort(hostAt(base+1), apiPort))
		if err != nil {
			continue
		}
		return base, listener.Close()
	}
	return 0, errors.New("loopback network: no free addresses in 127.64.0.0/10")
}

func hostAt(address uint32) string {
	return net.IP(binary.BigEndian.AppendUint32(nil, address)).String()
}

// Servers returns all servers in the order in which they were made, dead ones included.
func (c *Cluster) Servers() []*Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.servers)
}

// Server returns the server of that name, or nil.
func (c *Cluster) Server(name string) *Server {
	for _, s := range c.Servers() {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// voters is how many of n members vote: five at most, and of more than two an odd number. The others only hold the state.
func voters(n int) int {
	switch n = min(n, 5); n {
	case 4:
		return 3
	default:
		return n
	}
}

// Start makes a cluster of n servers, all up, with as many voters as there can be. Servers that have been prepared are the
// first of them.
func (c *Cluster) Start(ctx context.Context, n int) error {
	for len(c.Servers()) < n {
		if _, err := c.Prepare(); err != nil {
			return err
		}
	}
	for i, s := range c.Servers() {
		if err := c.admit(ctx, s, i == 0); err != nil {
			return err
		}
	}
	return c.AwaitVoters(ctx, voters(n))
}

// admit makes a prepared server a member, the first one by making the cluster, and starts it.
func (c *Cluster) admit(ctx context.Context, s *Server, first bool) error {
	if first {
		if err := c.Tool(ctx, nil, "cluster", "init", "--config", s.File, "--out", c.adminFile(), "--patience", strconv.Itoa(max(1, c.config.Patience))); err != nil {
			return err
		}
	} else {
		token, err := c.Token(ctx, s.Name)
		if err != nil {
			return err
		}
		if err := c.Enrol(ctx, s, token); err != nil {
			return err
		}
	}
	if err := s.Start(); err != nil {
		return err
	}
	return c.AwaitUp(ctx, s)
}

// Join makes one more server, which may be a voter or not.
func (c *Cluster) Join(ctx context.Context) (*Server, error) {
	s, err := c.Prepare()
	if err != nil {
		return nil, err
	}
	return s, c.admit(ctx, s, false)
}

// Revive starts a dead server again and waits until it is up, votes, and has the same state as the others.
func (c *Cluster) Revive(ctx context.Context, s *Server) error {
	if err := s.Start(); err != nil {
		return err
	}
	if err := c.AwaitUp(ctx, s); err != nil {
		return err
	}
	if err := c.AwaitVoters(ctx, voters(len(c.running()))); err != nil {
		return err
	}
	_, err := c.Agree(ctx)
	return err
}

// Prepare writes the configuration of one more server, which is not a member of anything yet.
func (c *Cluster) Prepare() (*Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	number := len(c.servers) + 1
	name := fmt.Sprintf("n%d", number)
	dir := filepath.Join(c.config.Dir, name)
	s := &Server{
		Name: name, Host: hostAt(c.base + uint32(number)), Dir: dir,
		File: filepath.Join(dir, "cairn.toml"), Log: filepath.Join(dir, "server.log"), executable: c.config.Executable,
	}
	if clients := c.config.Clients; clients.Is4() {
		s.NFSHost = hostAt(binary.BigEndian.Uint32(clients.AsSlice()) + uint32(number))
	}
	if err := s.writeConfig(c.config.PoolSize); err != nil {
		return nil, err
	}
	c.servers = append(c.servers, s)
	return s, nil
}

// Token makes a join token with the command line.
func (c *Cluster) Token(ctx context.Context, name string) (string, error) {
	out, err := c.Run(ctx, "node", "token", "create", "--name", name)
	if err != nil {
		return "", err
	}
	return string(firstLine(out)), nil
}

// Enrol has a prepared server join with a token; it is not started.
func (c *Cluster) Enrol(ctx context.Context, s *Server, token string) error {
	return c.Tool(ctx, []byte(token), "node", "join", "-", "--config", s.File)
}

// Tool runs the command line without a client configuration, as the commands need it that work on a server's own.
func (c *Cluster) Tool(ctx context.Context, stdin []byte, args ...string) error {
	_, err := c.tools.Run(ctx, tool.Cmd{Name: c.config.Executable, Args: args, Stdin: stdin})
	return err
}

// Run runs the command line as the administrator, against all servers that are running, and returns its stdout. A command
// that does not succeed is a *tool.ExitError.
func (c *Cluster) Run(ctx context.Context, args ...string) ([]byte, error) {
	return c.RunAt(ctx, nil, args...)
}

// RunAt is Run against the given servers only, dead ones included.
func (c *Cluster) RunAt(ctx context.Context, servers []*Server, args ...string) ([]byte, error) {
	file, err := c.clientFile(servers)
	if err != nil {
		return nil, err
	}
	result, err := c.tools.Run(ctx, tool.Cmd{Name: c.config.Executable, Args: append(args, "--config", file)})
	return result.Stdout, err
}

// Close ends every server at once and closes all connections. What they wrote stays.
func (c *Cluster) Close() error {
	var errs []error
	for _, s := range c.Servers() {
		errs = append(errs, s.Kill())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for address, api := range c.clients {
		errs = append(errs, api.Close())
		delete(c.clients, address)
	}
	return errors.Join(errs...)
}

// AwaitEmptyPools waits until no object is left in any pool.
func (c *Cluster) AwaitEmptyPools(ctx context.Context) error {
	return Await(ctx, "empty pools", func(context.Context) (bool, error) {
		for _, s := range c.Servers() {
			objects, err := s.Objects()
			if err != nil {
				return false, err
			}
			if len(objects) > 0 {
				return false, fmt.Errorf("the pool of %s still holds %v", s.Name, objects)
			}
		}
		return true, nil
	})
}

const (
	// A condition is looked at every pollInterval. One that takes long to look at is looked at less often, since the looks must not be
	// what keeps it from coming true; but pollLimit later at most: a look that waited for a server may find it at once.
	pollInterval, pollShare, pollLimit = 50 * time.Millisecond, 4, 500 * time.Millisecond
	// patience is how long nothing takes that works, not even on an emulated processor.
	patience = 3 * time.Minute
)

// Await looks until the condition holds. When ctx ends first, or after three minutes, the error says what was waited for and what
// the last look found. An error of the condition is a look that tells nothing, such as a server that does not answer yet.
func Await(ctx context.Context, what string, condition func(ctx context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		began := time.Now()
		holds, err := condition(ctx)
		if err == nil && holds {
			return nil
		}
		if ctx.Err() == nil {
			last = err // that the time is up is no news
		}
		var fatal *fatalError
		if errors.As(err, &fatal) {
			return fmt.Errorf("%s: %w", what, fatal.error)
		}
		if Pause(ctx, min(max(pollInterval, pollShare*time.Since(began)), pollLimit)); ctx.Err() != nil {
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), last))
		}
	}
}

// Fatal marks an error of a condition that waiting will not mend.
func Fatal(err error) error { return &fatalError{err} }

type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }
