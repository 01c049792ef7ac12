package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/fault"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/network"
	"github.com/cairn-storage/cairn/chaos/nfs"
	"github.com/cairn-storage/cairn/chaos/traffic"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// serviceAddress is that of the share over NFS, in the network of clients.
const serviceAddress = "10.78.0.200"

// chooseNFS says, before there are servers, whether they are to serve NFS. If that is wanted and cannot be, it says why.
func (r *run) chooseNFS(ctx context.Context) bool {
	if !slices.Contains(r.Protocols, string(cairn.ProtocolNFS)) {
		return false
	}
	if why := r.noNFS(ctx); why != nil {
		r.result.Cannot = append(r.result.Cannot, fmt.Sprintf("records over NFS: %v", why))
		return false
	}
	return true
}

// noNFS is what keeps servers here from serving NFS; nil if nothing does.
func (r *run) noNFS(ctx context.Context) error {
	if !r.Isolated {
		return errors.New("needs servers of its own, and root")
	}
	for _, program := range []string{"nft", "btrfs", "mkfs.btrfs", "ganesha.nfsd"} {
		if _, err := tool.Find(program); err != nil {
			return err
		}
	}
	dir := filepath.Join(r.Dir, "btrfs")
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = errors.Join(fault.CheckBtrfs(ctx, dir), os.RemoveAll(dir))
	}
	return err
}

// layNFS makes the network of clients, and has the servers that are prepared next serve NFS in it.
func (r *run) layNFS(ctx context.Context, config *local.Config) error {
	config.Clients = netip.MustParseAddr(network.ClientBase)
	return r.world.Network.Clients(ctx, r.Nodes)
}

// listSubvolumes has the servers' Ganeshas find what is in their pools.
func (r *run) listSubvolumes(ctx context.Context) error {
	dir := filepath.Join(r.Dir, "etc")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("list of subvolumes: %w", err)
	}
	var pools []string
	for _, s := range r.world.Cluster.Servers() {
		pools = append(pools, s.PoolDir())
	}
	var err error
	r.subvolumes, err = nfs.ListSubvolumes(ctx, dir, pools)
	return err
}

// nfsTraffic is where clients find the share over NFS; nil if there is none.
func (r *run) nfsTraffic() *traffic.NFS {
	if r.subvolumes == nil {
		return nil
	}
	at := &traffic.NFS{Client: network.ClientGate, Service: serviceAddress + network.ClientBits}
	for _, s := range r.world.Cluster.Servers() {
		at.Nodes = append(at.Nodes, s.NFSHost)
	}
	return at
}
