// Package fault is what a chaos run does to a cluster of real servers: each fault is a row of a table, with what it needs, how
// it is done, and how it is healed. What a fault chooses it chooses from the random source that it is given. The package knows
// processes, the network and disks; it knows nothing of clients and checks.
package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/network"
	"github.com/cairn-storage/cairn/rpc/client"
)

// World is what faults are done to.
type World struct {
	Cluster *local.Cluster // nil: somebody else's cluster, of which only the API is known
	Network *network.Network
	Disks   *Disks
	Tools   []string // that servers of its own run and that can be made to fail
	Clocks  bool     // servers of its own can have monotonic clocks of their own
	API     *client.Client
	Guest   string // the name of the node whose disk may be taken away; "" is none
	Log     func(format string, args ...any)

	mu    sync.Mutex
	joins []model.Join
	wiped bool
}

// Needs is what a fault cannot be done without.
type Needs uint16

// What there may be.
const (
	NeedsAPI     Needs = 0
	NeedsServers Needs = 1 << iota
	NeedsNetwork
	NeedsDisks
	NeedsFailing
	NeedsGuest
	NeedsDelay
	NeedsNFS
	NeedsTools
	NeedsClocks
	NeedsDirectories
)

// Fault is a kind of fault.
type Fault struct {
	Name  string
	About string
	Needs Needs
	// Least and Most are how long it lasts.
	Least, Most time.Duration
	// Inject does it to a server, if it is one that has a target, and returns what ends it. An error means that it was not done.
	Inject func(ctx context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error)
}

// Heal ends a fault. It may fail, and is then tried again.
type Heal func(ctx context.Context) error

// Table is all kinds of faults.
func Table() []Fault {
	return []Fault{
		{"kill", "kill -9 of a server, started again", NeedsServers, 100 * time.Millisecond, 8 * time.Second, kill},
		{"pause", "SIGSTOP of a server for less than its lease", NeedsServers, 100 * time.Millisecond, 1500 * time.Millisecond, pause},
		{"stall", "SIGSTOP of a server for longer than its lease", NeedsServers, 3 * time.Second, 8 * time.Second, pause},
		{"restart", "every server stopped and started, one after the other", NeedsServers, 0, 0, restart},
		{"transfer", "the leadership moved five times in a row", NeedsAPI, 0, 0, transfer},
		{"drain", "a node gives its active replicas away, and takes new ones again", NeedsAPI, time.Second, 4 * time.Second, drain},
		{"partition", "a server and all others do not reach each other", NeedsNetwork, time.Second, 8 * time.Second, partition(true, true)},
		{"mute", "others do not hear a server", NeedsNetwork, time.Second, 8 * time.Second, partition(true, false)},
		{"deaf", "a server does not hear others", NeedsNetwork, time.Second, 8 * time.Second, partition(false, true)},
		{"loss", "10 to 40 of 100 packets between a server and all others are lost", NeedsNetwork, 2 * time.Second, 8 * time.Second, loss},
		{"latency", "what a server and all others send to each other comes 20 to 500 ms later", NeedsDelay, 2 * time.Second, 8 * time.Second, latency},
		{"full-pool", "the disk of a pool is full", NeedsDisks, time.Second, 6 * time.Second, full((*local.Server).PoolFiles)},
		{"full-log", "the disk of a raft log is full; a server that ended by it is started again", NeedsDisks, time.Second, 6 * time.Second, full(logSpace)},
		{"hang", "the disk of a raft log hangs", NeedsFailing, time.Second, 6 * time.Second, failing(ofLog, hangs)},
		{"io-error", "the disk of a raft log refuses writes; a server that ended by it is started again", NeedsFailing, time.Second, 6 * time.Second, failing(ofLog, refuses)},
		{"slow-disk", "the disk of a raft log takes 5 to 200 ms longer for every change", NeedsFailing, 2 * time.Second, 8 * time.Second, failing(ofLog, slow)},
		{"power", "kill -9 of a server, whose raft log loses what was not synced, or half of the last write", NeedsFailing, 100 * time.Millisecond, 4 * time.Second, power},
		{"pool-slow", "the disk of a pool takes 5 to 200 ms longer for every change", NeedsFailing, 2 * time.Second, 8 * time.Second, failing(ofPool, slow)},
		{"pool-hang", "the disk of a pool hangs", NeedsFailing, time.Second, 8 * time.Second, failing(ofPool, hangs)},
		{"pool-error", "the disk of a pool refuses changes", NeedsFailing | NeedsDirectories, time.Second, 8 * time.Second, failing(ofPool, refuses)},
		{"nfs-kill", "kill -9 of a server's Ganesha, which the server starts again", NeedsNFS, 100 * time.Millisecond, 2 * time.Second, killNFS},
		{"nfs-pause", "SIGSTOP of a server's Ganesha", NeedsNFS, 100 * time.Millisecond, 6 * time.Second, pauseNFS},
		{"tool-hang", "a storage tool of a server hangs: its btrfs, nft or ip", NeedsTools, time.Second, 8 * time.Second, ails(toolHangs)},
		{"tool-fail", "a storage tool of a server does nothing, and fails with a message that nobody knows", NeedsTools, time.Second, 6 * time.Second, ails(toolFails)},
		{"tool-die", "a storage tool of a server is killed after 1 to 30 ms, or when it has done everything", NeedsTools, time.Second, 6 * time.Second, ails(toolDies)},
		{"clock", "kill -9 of a server, started again with monotonic clocks that are up to five days ahead of the others', or go back", NeedsClocks, time.Second, 6 * time.Second, clock},
		{"rejoin", "a node is removed and joins again with empty disks; two machines race with one token", NeedsGuest, 0, 0, rejoin},
	}
}

// Choose returns the kinds with the names, all if there are none, that can be done here, and why others cannot.
func (w *World) Choose(names []string) (chosen []Fault, cannot []string, err error) {
	has := w.has()
	for _, f := range Table() {
		if len(names) > 0 && !slices.Contains(names, f.Name) {
			continue
		}
		if missing := f.Needs &^ has; missing != 0 {
			cannot = append(cannot, f.Name+": needs "+missing.String())
			continue
		}
		chosen = append(chosen, f)
	}
	for _, name := range names {
		if !slices.ContainsFunc(Table(), func(f Fault) bool { return f.Name == name }) {
			return nil, nil, fmt.Errorf("fault %q: is none of %s", name, strings.Join(Names(), ", "))
		}
	}
	return chosen, cannot, nil
}

// Names are those of all kinds.
func Names() []string {
	var names []string
	for _, f := range Table() {
		names = append(names, f.Name)
	}
	return names
}

func (w *World) has() Needs {
	has := NeedsAPI
	if w.Cluster != nil {
		has |= NeedsServers
	}
	if w.Network != nil {
		has |= NeedsNetwork
		if w.Network.NoLatency == nil {
			has |= NeedsDelay
		}
	}
	if w.Disks != nil {
		has |= NeedsDisks
		if len(w.Disks.logs) > 0 && len(w.Disks.pools) > 0 {
			has |= NeedsFailing
		}
	}
	if w.Cluster != nil && slices.ContainsFunc(w.Cluster.Servers(), func(s *local.Server) bool { return s.NFSHost != "" }) {
		has |= NeedsNFS
	} else {
		has |= NeedsDirectories
	}
	if len(w.Tools) > 0 {
		has |= NeedsTools
	}
	if w.Clocks {
		has |= NeedsClocks
	}
	if w.Guest != "" {
		has |= NeedsGuest
	}
	return has
}

func (n Needs) String() string {
	var all []string
	for _, need := range []struct {
		bit  Needs
		what string
	}{
		{NeedsServers, "server processes of its own"}, {NeedsNetwork, "network namespaces (root, iproute2, nft)"},
		{NeedsDisks, "small disks of its own (root)"}, {NeedsFailing, "a file system in user space (root, /dev/fuse)"},
		{NeedsNFS, "servers of its own that serve NFS"}, {NeedsTools, "servers of its own that serve NFS, timeout and setpriv"},
		{NeedsClocks, "time namespaces (root)"}, {NeedsDirectories, "pools on directories (no NFS)"},
		{NeedsGuest, "a node to spare (4 nodes or more)"}, {NeedsDelay, "network namespaces and /dev/net/tun (root)"},
	} {
		if n&need.bit != 0 {
			all = append(all, need.what)
		}
	}
	return strings.Join(all, " and ")
}

// Joins is which machines have tried to join, and whether they are in; Wiped, whether a disk was taken away.
func (w *World) Joins() []model.Join {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.joins)
}

// Wiped reports whether a disk was taken away.
func (w *World) Wiped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wiped
}

func (w *World) joined(j model.Join) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.joins = append(w.joins, j)
}

// none ends a fault that is over when it has been done.
func none(context.Context) error { return nil }
