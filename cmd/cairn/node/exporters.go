package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/fence"
	"github.com/cairn-storage/cairn/drivers/ganesha"
	"github.com/cairn-storage/cairn/drivers/nfs"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// NFSConfig says how the node serves file shares over NFS. Without it, it does not.
type NFSConfig struct {
	// Server is "kernel" (the machine's NFS server, which must be running) or "ganesha" (NFS-Ganesha, which Cairn runs).
	Server string `toml:"server"`
	// Addresses are where clients reach this node, the preferred one first; the host of listen if empty.
	Addresses []string `toml:"addresses"`
	// Root is the directory below which clients find exports, the same on all nodes; /srv/cairn if empty.
	Root string `toml:"root"`
	// Squash is no_root_squash (the default), root_squash or all_squash.
	Squash string `toml:"squash"`
	// Interface takes the service addresses of shares; the one that has an address in the same network if empty.
	Interface string `toml:"interface"`
	// ExportsFile is the kernel server's file for Cairn alone; /etc/exports.d/cairn.exports if empty.
	ExportsFile string `toml:"exports_file"`
	// Port and Grace are of Ganesha: 2049, and how long after a start clients may reclaim what they had open, 15s.
	Port  uint16 `toml:"port"`
	Grace string `toml:"grace"`
	// IgnoreSize lets Ganesha serve pools that hold nobody to the size of a share: it may grow until the pool is full.
	IgnoreSize bool `toml:"ignore_size"`
	// Subvolumes says that Ganesha finds the subvolumes of btrfs, although it was not built with libbtrfsutil: they are mounted.
	Subvolumes bool `toml:"subvolumes"`
}

// NFS servers.
const (
	nfsKernel  = "kernel"
	nfsGanesha = "ganesha"
)

func (c *NFSConfig) check() error {
	if c.Server != nfsKernel && c.Server != nfsGanesha {
		return fmt.Errorf("nfs.server %q: want %s or %s: %w", c.Server, nfsKernel, nfsGanesha, cairn.ErrInvalid)
	}
	if c.Server == nfsKernel && (c.Port != 0 || c.Grace != "" || c.IgnoreSize || c.Subvolumes) {
		return fmt.Errorf("nfs: port, grace, ignore_size and subvolumes are for server = %q: %w", nfsGanesha, cairn.ErrInvalid)
	}
	if _, err := c.grace(); err != nil {
		return fmt.Errorf("nfs.grace %q: want a time such as 15s: %w", c.Grace, cairn.ErrInvalid)
	}
	for _, address := range c.Addresses {
		if _, err := netip.ParseAddr(address); err != nil {
			return fmt.Errorf("nfs.addresses: %q: want an IP address: %w", address, cairn.ErrInvalid)
		}
	}
	return nil
}

func (c *NFSConfig) grace() (time.Duration, error) {
	if c.Grace == "" {
		return 0, nil
	}
	return time.ParseDuration(c.Grace)
}

// serviceAddresses are the configured ones, or the address that others reach the node by.
func (c *NFSConfig) serviceAddresses(advertised string) ([]netip.Addr, error) {
	texts := c.Addresses
	if len(texts) == 0 {
		host, _, _ := net.SplitHostPort(advertised)
		texts = []string{host}
	}
	var addresses []netip.Addr
	for _, text := range texts {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("nfs.addresses: is missing, and %q is no IP address that clients could be told: %w", text, cairn.ErrInvalid)
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// openNFS makes the exporter that the configuration names, nil if it names none.
func openNFS(config Config, guard drivers.Guard, logger *slog.Logger) (drivers.Exporter, error) {
	c := config.NFS
	if c == nil {
		return nil, nil
	}
	addresses, err := c.serviceAddresses(config.advertised(config.Listen))
	if err != nil {
		return nil, err
	}
	if c.Server == nfsKernel {
		own := nfs.DefaultConfig()
		own.ServiceAddresses, own.Guard, own.Logger, own.Runner = addresses, guard, logger, tool.NewMachine()
		own.Root, own.ExportsFile, own.Squash = cmp.Or(c.Root, own.Root), cmp.Or(c.ExportsFile, own.ExportsFile), nfs.Squash(cmp.Or(c.Squash, string(own.Squash)))
		exporter, err := nfs.New(own)
		return exporter, errIn("nfs", err)
	}
	own := ganesha.DefaultConfig()
	own.ServiceAddresses, own.Guard, own.Logger = addresses, guard, logger
	own.StateDir, own.IgnoreSize = filepath.Join(config.DataDir, "ganesha"), c.IgnoreSize
	own.Root, own.Squash, own.Port = cmp.Or(c.Root, own.Root), ganesha.Squash(cmp.Or(c.Squash, string(own.Squash))), cmp.Or(c.Port, own.Port)
	grace, err := c.grace()
	if err != nil {
		return nil, err
	}
	own.Grace = cmp.Or(grace, own.Grace)
	exporter, err := ganesha.New(own)
	return exporter, errIn("nfs", err)
}

// gateTable is the table of the packet filter that is Cairn's.
const gateTable = "cairn_nfs"

// keepNFS puts the gate before an exporter whose server goes on when this process does not.
func keepNFS(ctx context.Context, config Config, exporter drivers.Exporter, guard drivers.Guard, member *cluster.Node, logger *slog.Logger) (*fence.Keeper, error) {
	tools := tool.NewMachine()
	gate := &fence.Gate{Runner: tools, Table: gateTable, Port: cmp.Or(config.NFS.Port, ganesha.DefaultConfig().Port)}
	if config.NFS.Server == nfsKernel {
		gate.Ports = fence.KernelPorts
	}
	var foreign func() error
	if own, ok := exporter.(*ganesha.Exporter); ok {
		foreign = func() error { return fence.Foreign(gate.Port, own.PID) }
	}
	keeper, err := fence.NewKeeper(ctx, fence.Config{
		Exporter: exporter, Foreign: foreign, Guard: guard, Gate: gate,
		Addresses: &fence.Addresses{Runner: tools, Interface: config.NFS.Interface, Announce: fence.Announce, Logger: logger},
		Lease:     member.LeaseLeft,
		Settle:    func(ctx context.Context) error { _, err := member.ReadView(ctx); return err },
		Logger:    logger,
	})
	return keeper, errIn("nfs", err)
}

func errIn(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// closeExporters stops what exporters have started themselves. The kernel's server goes on: clients of a share with one
// replica do not notice that Cairn is restarted.
func closeExporters(exporters map[cairn.Protocol]drivers.Exporter) error {
	var failed []error
	for _, exporter := range exporters {
		if closer, ok := exporter.(io.Closer); ok {
			failed = append(failed, closer.Close())
		}
	}
	return errors.Join(failed...)
}
