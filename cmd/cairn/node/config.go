// Package node puts one Cairn server together: configuration, pools, exporters, the member of the cluster, the actors and
// the two listeners. It is the only place besides the command line that knows concrete drivers; it holds no logic of its own.
package node

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/cairn-storage/cairn"
)

// Config is the server's configuration file (TOML). Unknown keys are errors.
type Config struct {
	// DataDir holds identity, Raft log and snapshots: one directory for one node of one cluster.
	DataDir string `toml:"data_dir"`
	// Name is the node's name, given once: by `cluster init`, or by the token that it joins with.
	Name string `toml:"name"`
	// Listen is the one TCP port for gRPC, Raft and data, such as 0.0.0.0:7450.
	Listen string `toml:"listen"`
	// Gossip is the address for membership hints (TCP and UDP), such as 0.0.0.0:7451.
	Gossip string `toml:"gossip"`
	// HTTP is the address for WebDAV and metrics (HTTPS), such as 0.0.0.0:7452.
	HTTP string `toml:"http"`
	// Advertise is the host that others reach this node by, where it is not the host of Listen.
	Advertise string `toml:"advertise"`
	// Zone is the failure domain of the node.
	Zone string `toml:"zone"`
	// Labels are shown and can be filtered by.
	Labels map[string]string `toml:"labels"`
	// Log says what is logged and how.
	Log LogConfig `toml:"log"`
	// NFS says how file shares are served over NFS; nil: not at all.
	NFS *NFSConfig `toml:"nfs"`
	// Gateway says how shares of other nodes are reached through this one.
	Gateway GatewayConfig `toml:"gateway"`
	// Replication says how what this node sends to standbys is sent.
	Replication ReplicationConfig `toml:"replication"`
	// Pools are the places for shares on this node.
	Pools []PoolConfig `toml:"pool"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string `toml:"level"`  // debug, info, warn or error; info if empty
	Format string `toml:"format"` // text or json; text if empty
}

// PoolConfig describes one pool.
type PoolConfig struct {
	Name   string `toml:"name"`
	Driver string `toml:"driver"` // "dir", "btrfs" or "zfs"
	// Path is the directory of a dir pool, or where the file system of a btrfs pool is mounted.
	Path string `toml:"path"`
	// ZFS is for a zfs pool.
	ZFS *ZFSConfig `toml:"zfs"`
	// ReservedPercent is never promised to shares.
	ReservedPercent int64 `toml:"reserved_percent"`
	// OverSubscriptionPercent is how much of the rest may be promised; 100 (the default) means no over-subscription.
	OverSubscriptionPercent int64 `toml:"over_subscription_percent"`
	// MaxSize caps what the pool offers, such as "500GiB"; empty means the whole file system.
	MaxSize string `toml:"max_size"`
}

// ZFSConfig is what a pool on ZFS has besides.
type ZFSConfig struct {
	// Dataset is the parent of all replicas, such as "tank" or "tank/cairn". What else is below it is left alone.
	Dataset string `toml:"dataset"`
	// Prefix begins the names of the replicas' datasets; empty is none.
	Prefix string `toml:"prefix"`
	// Create are properties of new datasets, such as compression = "lz4", unless the share type says otherwise.
	Create map[string]string `toml:"create"`
	// Thick reserves the whole size of a share, unless its type says otherwise.
	Thick bool `toml:"thick"`
}

// Default ports: what a configuration that names no address listens on.
const (
	DefaultListen = "127.0.0.1:7450"
	DefaultGossip = "127.0.0.1:7451"
	DefaultHTTP   = "127.0.0.1:7452"
)

// LoadConfig reads and checks a configuration file. Every error is one line that names the file and, where there is one, the
// line number.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

// ParseConfig reads and checks a configuration.
func ParseConfig(data []byte) (Config, error) {
	cfg := Config{Listen: DefaultListen, Gossip: DefaultGossip, HTTP: DefaultHTTP}
	decoder := toml.NewDecoder(strings.NewReader(string(data))).DisallowUnknownFields()
	if err := decoder.Decode(&cfg); err != nil {
		return Config{}, tomlError(err)
	}
	return cfg, cfg.check()
}

// tomlError makes one line with a line number of what the decoder says.
func tomlError(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		first := unknown.Errors[0]
		row, _ := first.Position()
		return fmt.Errorf("line %d: unknown key %q; remove it or correct its spelling: %w", row, strings.Join(first.Key(), "."), cairn.ErrInvalid)
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Errorf("line %d, column %d: %s: %w", row, column, strings.TrimPrefix(decode.Error(), "toml: "), cairn.ErrInvalid)
	}
	return fmt.Errorf("%s: %w", strings.ReplaceAll(err.Error(), "\n", " "), cairn.ErrInvalid)
}

func (c *Config) check() error {
	if c.DataDir == "" {
		return fmt.Errorf("data_dir: is missing; set it to a directory for this node alone: %w", cairn.ErrInvalid)
	}
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("data_dir %q: must be an absolute path: %w", c.DataDir, cairn.ErrInvalid)
	}
	if c.Name != "" {
		if err := cairn.CheckName("node", c.Name); err != nil {
			return err
		}
	}
	for key, address := range map[string]string{"listen": c.Listen, "gossip": c.Gossip, "http": c.HTTP} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s %q: want host:port, such as 10.0.0.1:7450: %w", key, address, cairn.ErrInvalid)
		}
	}
	if host, _, _ := net.SplitHostPort(c.Listen); c.Advertise == "" && isWildcard(host) {
		return fmt.Errorf("advertise: is missing; listen %q names no host that other nodes could reach: %w", c.Listen, cairn.ErrInvalid)
	}
	seen := map[string]bool{}
	for i := range c.Pools {
		if err := c.Pools[i].check(); err != nil {
			return err
		}
		if name := c.Pools[i].Name; seen[name] {
			return fmt.Errorf("pool %q: is described twice: %w", name, cairn.ErrInvalid)
		}
		seen[c.Pools[i].Name] = true
	}
	if c.NFS != nil {
		if err := c.NFS.check(); err != nil {
			return err
		}
	}
	if _, err := c.Gateway.wait(); err != nil {
		return err
	}
	if err := c.Replication.check(); err != nil {
		return err
	}
	return c.Log.check()
}

func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func (p *PoolConfig) check() error {
	if err := cairn.CheckName("pool", p.Name); err != nil {
		return err
	}
	if p.OverSubscriptionPercent == 0 {
		p.OverSubscriptionPercent = 100
	}
	if err := p.checkDriver(); err != nil {
		return err
	}
	switch {
	case p.ReservedPercent < 0 || p.ReservedPercent > 99:
		return fmt.Errorf("pool %q: reserved_percent %d: must be 0 to 99: %w", p.Name, p.ReservedPercent, cairn.ErrInvalid)
	case p.OverSubscriptionPercent < 100 || p.OverSubscriptionPercent > 10000:
		return fmt.Errorf("pool %q: over_subscription_percent %d: must be 100 to 10000: %w", p.Name, p.OverSubscriptionPercent, cairn.ErrInvalid)
	}
	if _, err := p.maxBytes(); err != nil {
		return fmt.Errorf("pool %q: max_size: %w", p.Name, err)
	}
	return nil
}

func (p *PoolConfig) checkDriver() error {
	switch known := slices.Sorted(maps.Keys(Drivers())); {
	case !slices.Contains(known, p.Driver):
		return fmt.Errorf("pool %q: driver %q is not known; this version has: %s: %w", p.Name, p.Driver, strings.Join(known, ", "), cairn.ErrInvalid)
	case p.Driver != driverZFS && !filepath.IsAbs(p.Path):
		return fmt.Errorf("pool %q: path %q: must be an absolute path: %w", p.Name, p.Path, cairn.ErrInvalid)
	case p.Driver != driverZFS && p.ZFS != nil:
		return fmt.Errorf("pool %q: has a section pool.zfs, but driver %q: %w", p.Name, p.Driver, cairn.ErrInvalid)
	case p.Driver == driverZFS && (p.ZFS == nil || p.ZFS.Dataset == ""):
		return fmt.Errorf("pool %q: pool.zfs.dataset is missing, such as \"tank/cairn\": %w", p.Name, cairn.ErrInvalid)
	case p.Driver == driverZFS && (p.Path != "" || p.MaxSize != ""):
		return fmt.Errorf("pool %q: path and max_size are not for driver zfs; set a quota on the dataset instead: %w", p.Name, cairn.ErrInvalid)
	}
	return nil
}

// maxBytes is the cap in bytes, 0 if there is none.
func (p *PoolConfig) maxBytes() (int64, error) {
	if p.MaxSize == "" {
		return 0, nil
	}
	return cairn.ParseSize(p.MaxSize)
}

func (l LogConfig) check() error {
	if _, err := l.level(); err != nil {
		return err
	}
	if l.Format != "" && l.Format != "text" && l.Format != "json" {
		return fmt.Errorf("log.format %q: want text or json: %w", l.Format, cairn.ErrInvalid)
	}
	return nil
}

// advertised is address with the host that other machines reach.
func (c *Config) advertised(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if c.Advertise != "" {
		host = c.Advertise
	}
	return net.JoinHostPort(host, port)
}

// Hosts are the names and addresses that the node's certificate is made for.
func (c *Config) Hosts() []string {
	var hosts []string
	seen := map[string]bool{}
	for _, address := range []string{c.Listen, c.HTTP} {
		host, _, _ := net.SplitHostPort(c.advertised(address))
		if host != "" && !isWildcard(host) && !seen[host] {
			seen[host] = true
			hosts = append(hosts, host)
		}
	}
	for _, local := range []string{"127.0.0.1", "::1", "localhost"} {
		if !seen[local] {
			hosts = append(hosts, local)
		}
	}
	return hosts
}
