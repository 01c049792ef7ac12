// Package fence keeps a share that another node may take over from being reached here after that node may have done so,
// although its server is one that Cairn cannot stop in time: that of the kernel, or any other while every process of Cairn is
// stopped or dead.
//
// Two things in the kernel end by themselves. A Gate is a table of the packet filter that lets traffic of the NFS server pass
// only as long as an element of a set lives. A service address is an address of an interface with a lifetime. A Keeper renews
// both, under a lease, and stands before the exporter so that nothing that needs the gate is served without it.
//
// It knows the driver contract and two tools, nft and ip. It does not know where a lease comes from, nor who is active.
package fence

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Lease tells for how long this node may still write; not positive means not at all. It is asked often and must not block.
type Lease func() time.Duration

// Config is what a Keeper works with.
type Config struct {
	// Exporter serves what the gate lets through.
	Exporter drivers.Exporter
	Guard    drivers.Guard
	Gate     *Gate
	// Addresses holds service addresses on the interfaces of the machine.
	Addresses *Addresses
	Lease     Lease
	// Settle returns when this node knows everything that the cluster had decided before the call.
	Settle func(ctx context.Context) error
	// Foreign is why what listens behind the gate is not the exporter's server, nil if it is; nil does not ask, for a server
	// that is the machine's.
	Foreign func() error
	Logger  *slog.Logger
	// Every is how often the lease is looked at: 100 ms unless set.
	Every time.Duration
}

// callTimeout bounds each call of a tool. One that takes longer is of a machine on which the gate has closed by itself.
const callTimeout = 10 * time.Second

// fenced reports whether an export must not be reached without a lease. Snapshots do not change, whoever is active.
func fenced(spec drivers.ExportSpec) bool { return spec.Fenced && spec.ID.Snapshot == "" }

// errNoGate is what is said of a machine without one.
func errNoGate(why error) error {
	return fmt.Errorf("a share that fails over by itself needs a gate in the packet filter, and this node cannot make one: %w: %w", why, cairn.ErrNotSupported)
}
