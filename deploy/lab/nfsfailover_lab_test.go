//go:build lab

package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/deploy/lab/labdisk"
	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers/tool"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// TestLabNFSFailover has the kernel's NFS client, with a hard mount by a share's service address, go through two failovers between
// real servers, each on a node with a zpool and the kernel's NFS server. First the server of the active replica's node is killed, and
// what a machine that dies would take with it stays: the kernel goes on serving, so it is the packet filter and the lifetime of the
// address that must get it out of the way. Then the node is cut off from all others with everything on it alive, and comes back.
// All the time a client of the old node's own address, on its side of the partition, tries to write there.
//
// fio runs through both, with files that it has opened before, and must meet no error: no stale handle, no EIO. What it can
// demand of its data, when standbys are as of their last sync point:
//
//   - "settled" was in a sync point before the first failover and is only read: each block must have its checksum at every moment.
//   - "rewritten" was so, too, and is then written at random places all the time. A failover may take acknowledged writes back, so no
//     block has to be the newest. Each has to be whole, one that was written, and at its place: so fio writes without verifying, and
//     another one verifies in the end, which takes any block with its own checksum and offset.
//   - What is written after a failover is verified at once, and again in the end: "after-kill" was in a sync point before the
//     second failover, and nothing comes after "after-partition".
func TestLabNFSFailover(t *testing.T) {
	s := newNFSFailover(t)
	s.lay("settled", "rewritten")
	s.settle(time.Now())
	load := s.startLoad()

	active := s.active()
	stale := s.startStale(active)
	began := time.Now()
	check(t, active.Kill())
	s.takenOver(active, load, "kill -9", began)
	stale.taken = time.Now()
	s.lay("after-kill")
	laid := time.Now()
	s.tries(stale, active)
	if table := s.node(active).Must("exportfs", "-s"); !strings.Contains(table, strings.TrimPrefix(s.source, ":")) {
		t.Errorf("the kernel of %s does not go on serving, so nothing was kept from it:\n%s", active.Name, table)
	}
	check(t, active.Start())
	s.rejoins(active, stale)
	s.settle(laid) // and there is a standby again

	active = s.active()
	stale = s.startStale(active)
	began = time.Now()
	s.net.Isolate(s.node(active))
	s.takenOver(active, load, "partition", began)
	stale.taken = time.Now()
	s.lay("after-partition")
	s.tries(stale, active)
	s.net.Heal()
	s.rejoins(active, stale)

	load.end()
	for _, file := range []string{"settled", "rewritten", "after-kill", "after-partition"} {
		s.fio(job(s.dir, file, "--rw=read"))
	}
	s.phase("all files are verified")
}

const (
	administrator  = "10.77.0.254/24" // the guest itself, on the bridge of the nodes
	serviceAddress = "10.77.0.200"
	servers        = 3
)

// nfsFailover is a share over NFS that fails over by itself between three nodes, and a client that knows its service address.
type nfsFailover struct {
	*operator
	net    *netlab.Net // the servers and, last, the client
	began  time.Time
	source string // of mounts, after the address
	dir    string // where the client has it
}

func newNFSFailover(t *testing.T) *nfsFailover {
	s := &nfsFailover{operator: &operator{T: t}, began: time.Now()}
	for i := 1; i <= servers; i++ {
		s.zpool(fmt.Sprintf("labn%d", i))
	}
	s.ownDirectories("/etc/exports.d", "/srv/cairn")
	s.net = netlab.New(t, servers+1)
	run(t, "ip", "address", "add", administrator, "dev", "lab0")
	for _, node := range s.net.Nodes[:servers] {
		serveNFS(node)
	}
	s.phase("nodes")
	s.startCluster()
	s.phase("cluster")
	s.cairn("type", "create", "safe", "--spec", "replication_type=dr", "--spec", "failover=auto")
	var made struct{ ID string }
	text := s.cairn("share", "create", "docs", "--size", "64MiB", "--proto", "nfs", "--type", "safe", "--replicas", "2",
		"--service-address", serviceAddress+"/24", "-o", "json")
	check(t, json.Unmarshal([]byte(text), &made))
	s.source = ":/srv/cairn/" + made.ID
	s.cairn("access", "allow", "docs", "ip", "10.77.0.0/24", "rw")
	s.phase("share")
	s.dir = s.mount(s.client(), serviceAddress, "vers=4.2,hard,timeo=50")
	return s
}

func (s *nfsFailover) phase(what string) {
	s.Helper()
	s.Logf("%5.1f s: %s", time.Since(s.began).Seconds(), what)
}

func (s *nfsFailover) zpool(name string) {
	s.Helper()
	run(s.T, "zpool", "create", "-m", "/"+name, name, labdisk.New(s.T, 256<<20))
	s.Cleanup(func() { run(s.T, "zpool", "destroy", "-f", name) })
}

// ownDirectories makes mounts of directories so that what a node mounts there is its own, as on a machine.
func (s *nfsFailover) ownDirectories(dirs ...string) {
	s.Helper()
	for _, dir := range dirs {
		check(s.T, os.MkdirAll(dir, 0o755))
		run(s.T, "mount", "--bind", dir, dir)
		s.Cleanup(func() { run(s.T, "umount", dir) })
		run(s.T, "mount", "--make-private", dir)
	}
}

// serveNFS starts the kernel's NFS server on a node.
func serveNFS(node *netlab.Node) {
	node.Must("sh", "-ec", `mount -t tmpfs exports /etc/exports.d
		mount -t tmpfs cairn /srv/cairn
		echo 10 >/proc/fs/nfsd/nfsv4gracetime
		echo 10 >/proc/fs/nfsd/nfsv4leasetime
		rpcbind
		rpc.mountd
		rpc.nfsd 4`)
}

// startCluster starts the servers, each on its node, with the node's zpool.
func (s *nfsFailover) startCluster() {
	s.Helper()
	dir := s.TempDir()
	program := filepath.Join(dir, "cairn-on-node")
	script := "#!/bin/sh\n"
	for _, node := range s.net.Nodes[:servers] {
		script += fmt.Sprintf("[ \"$1 $3\" != 'server %s' ] || exec %s \"$@\"\n", filepath.Join(dir, node.Name, "cairn.toml"), strings.Join(node.Command("cairn"), " "))
	}
	check(s.T, os.WriteFile(program, []byte(script+"exec cairn \"$@\"\n"), 0o700))
	c, err := local.New(local.Config{Dir: dir, Executable: program, Base: netip.MustParseAddr("10.77.0.0"), Patience: patience})
	check(s.T, err)
	s.cluster = c
	s.Cleanup(func() {
		check(s.T, c.Close())
		for _, server := range c.Servers() {
			if s.Failed() {
				log, _ := os.ReadFile(server.Log)
				s.Logf("the log of %s:\n%s", server.Name, log)
			}
		}
	})
	for range servers {
		server, err := c.Prepare()
		check(s.T, err)
		text, err := os.ReadFile(server.File)
		check(s.T, err)
		general, _, _ := strings.Cut(string(text), "[[pool]]")
		pool := fmt.Sprintf("[[pool]]\nname = \"data\"\ndriver = \"zfs\"\n[pool.zfs]\ndataset = \"lab%s\"\n\n[nfs]\nserver = \"kernel\"\n", server.Name)
		check(s.T, os.WriteFile(server.File, []byte(general+pool), 0o600))
	}
	check(s.T, c.Start(s.Context(), servers))
}

// patience is that of the cluster: four nodes share one emulated processor.
const patience = 10

func (s *nfsFailover) client() *netlab.Node { return s.net.Nodes[servers] }

func (s *nfsFailover) node(server *local.Server) *netlab.Node {
	for _, node := range s.net.Nodes {
		if node.Name == server.Name {
			return node
		}
	}
	s.Fatalf("no node %s", server.Name)
	return nil
}

// show asks a server for the share.
func (s *nfsFailover) show(ctx context.Context, at *local.Server) (*cairnv1.Share, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	api, err := s.cluster.API(at)
	if err != nil {
		return nil, err
	}
	answer, err := api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: "docs"})
	return answer.GetShare(), err
}

// active is the server with the active replica.
func (s *nfsFailover) active() *local.Server {
	s.Helper()
	share, err := s.show(s.Context(), s.cluster.Servers()[0])
	check(s.T, err)
	return s.cluster.Server(share.GetReplicas()[0].GetNode())
}

// settle returns when the standby is in sync and has a sync point of that time or later, and with it all that was acknowledged before.
func (s *nfsFailover) settle(at time.Time) {
	s.Helper()
	check(s.T, local.Await(s.Context(), "a sync point", func(ctx context.Context) (bool, error) {
		api, err := s.cluster.API(s.cluster.Servers()[0])
		if err != nil {
			return false, err
		}
		asked := time.Now()
		answer, err := api.Replicas().ListReplicas(ctx, &cairnv1.ListReplicasRequest{Share: "docs"})
		for _, r := range answer.GetReplicas() {
			lag := time.Duration(r.GetLagMs()) * time.Millisecond
			if r.GetReplica().GetState() == "in_sync" && lag >= 0 && asked.Add(-lag).After(at) {
				return true, nil
			}
		}
		if err == nil {
			err = fmt.Errorf("%v", answer)
		}
		return false, err
	}))
	s.phase("the standby has what was written")
}

// takenOver waits until the client's load goes on at another node.
func (s *nfsFailover) takenOver(old *local.Server, load *nfsLoad, what string, began time.Time) {
	s.Helper()
	for _, other := range s.cluster.Servers() {
		if other == old {
			continue
		}
		check(s.T, local.Await(s.Context(), other.Name+" to know of the share away from "+old.Name, func(ctx context.Context) (bool, error) {
			share, err := s.show(ctx, other)
			return err == nil && share.GetReplicas()[0].GetNode() != old.Name, err
		}))
	}
	s.phase("another node is to serve")
	load.goesOn()
	s.phase("the load goes on")
	s.Logf("%s of the active replica's node to the next read and write by the service address: %s", what, time.Since(began).Round(time.Millisecond))
}

// tries waits for attempts at writing to the old node, which can be reached.
func (s *nfsFailover) tries(stale *staleWriter, old *local.Server) {
	s.Helper()
	run(s.T, "ping", "-n", "-q", "-c", "1", "-w", "30", old.Host)
	stale.flow(1)
}

// rejoins waits until the old node has withdrawn the share and needs no gate any more, and holds what it has acknowledged since the
// failover against the time when another one had acknowledged something.
func (s *nfsFailover) rejoins(old *local.Server, stale *staleWriter) {
	s.Helper()
	check(s.T, s.cluster.AwaitUp(s.Context(), old))
	check(s.T, local.Await(s.Context(), "the end of the gate of "+old.Name, func(ctx context.Context) (bool, error) {
		tables, err := s.node(old).Run(ctx, tool.Cmd{Name: "nft", Args: []string{"list", "tables"}})
		return err == nil && !strings.Contains(string(tables.Stdout), "cairn_nfs"), err
	}))
	stale.flow(1)
	if late := stale.end(); late.After(stale.taken) {
		s.Errorf("%s acknowledged a write that began %s after another server had acknowledged one", old.Name, late.Sub(stale.taken))
	}
	if s.active() == old {
		s.Errorf("the share is at %s again", old.Name)
	}
	s.phase(old.Name + " is back, and serves the share to nobody")
}
