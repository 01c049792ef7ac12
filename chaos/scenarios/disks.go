package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/traffic"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// lookAtDisks compares the disks with the rows. What no row wants has the limit of all transitions, from when everything was healed,
// to go: an upload ends when its server notices that the client is gone, and what a deletion has left is swept.
func (r *run) lookAtDisks(ctx context.Context, healed time.Duration, f *model.Final) error {
	for {
		shares, err := r.world.API.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: "*"})
		if err != nil {
			return err
		}
		snapshots, err := r.world.API.Snapshots().ListSnapshots(ctx, &cairnv1.ListSnapshotsRequest{Project: "*"})
		if err != nil {
			return err
		}
		if f.Pools, err = r.pools(shares.GetShares(), snapshots.GetSnapshots()); err != nil {
			return err
		}
		if strays(f.Pools) && r.traffic.Now()-healed < r.Limits.Settle && ctx.Err() == nil {
			local.Pause(ctx, 250*time.Millisecond)
			continue
		}
		if err := r.copies(f, shares.GetShares(), snapshots.GetSnapshots()); err != nil {
			return err
		}
		return r.kept(f, shares.GetShares(), snapshots.GetSnapshots())
	}
}

// pools is what lies on each server's disk, and what should.
func (r *run) pools(shares []*cairnv1.Share, snapshots []*cairnv1.Snapshot) (pools []model.Pool, err error) {
	have := map[string][]string{}
	for _, s := range r.world.Cluster.Servers() {
		if have[s.Name], err = objects(s); err != nil {
			return nil, err
		}
	}
	want := r.wanted(shares, snapshots, have)
	for _, s := range r.world.Cluster.Servers() {
		pools = append(pools, model.Pool{Node: s.Name, Have: have[s.Name], Want: want[s.Name]})
	}
	return pools, nil
}

// strays reports whether anything lies in a pool that no row wants there.
func strays(pools []model.Pool) bool {
	return slices.ContainsFunc(pools, func(p model.Pool) bool {
		return slices.ContainsFunc(p.Have, func(name string) bool { return !slices.Contains(p.Want, name) })
	})
}

// syncPoint begins the names of the snapshots that Cairn cuts for itself; they have no rows.
const syncPoint = "sync-"

// objects is everything in a pool but the snapshots that Cairn cuts for itself.
func objects(s *local.Server) ([]string, error) {
	all, err := s.Everything()
	return slices.DeleteFunc(all, func(name string) bool {
		return strings.Contains(name, "/") && strings.HasPrefix(filepath.Base(name), syncPoint)
	}), err
}

// wanted is what has a row. A diverged snapshot is wanted where it is, since its rows say no more than that it is somewhere.
func (r *run) wanted(shares []*cairnv1.Share, snapshots []*cairnv1.Snapshot, have map[string][]string) map[string][]string {
	want := map[string][]string{}
	for _, share := range shares {
		for _, replica := range share.GetReplicas() {
			want[replica.GetNode()] = append(want[replica.GetNode()], replica.GetId())
			for _, snap := range snapshots {
				path := filepath.Join(replica.GetId(), "snapshots", snap.GetId())
				if snap.GetShare() != share.GetId() {
					continue
				}
				if there := slices.Contains(have[replica.GetNode()], path); there || !snap.GetDiverged() && replica.GetState() != "out_of_sync" {
					want[replica.GetNode()] = append(want[replica.GetNode()], path)
				}
			}
		}
	}
	return want
}

// copies sums up every copy of the snapshots that were said to be available.
func (r *run) copies(f *model.Final, shares []*cairnv1.Share, snapshots []*cairnv1.Snapshot) error {
	for _, share := range r.traffic.Shares() {
		row := find(shares, share.ID)
		for _, name := range r.traffic.Cuts(share) {
			i := slices.IndexFunc(snapshots, func(s *cairnv1.Snapshot) bool { return s.GetShare() == share.ID && s.GetName() == name })
			if i < 0 {
				f.Copies = append(f.Copies, model.Copy{Share: share.Name, Snapshot: name, Node: "any", Counts: true})
				continue
			}
			for _, replica := range row.GetReplicas() {
				sum, err := sumTree(r.snapshotDir(replica, snapshots[i]))
				if err != nil {
					return err
				}
				f.Copies = append(f.Copies, model.Copy{Share: share.Name, Snapshot: name, Node: replica.GetNode(), Counts: replica.GetState() != "out_of_sync", Sum: sum})
			}
		}
	}
	return nil
}

func find(shares []*cairnv1.Share, id string) *cairnv1.Share {
	for _, share := range shares {
		if share.GetId() == id {
			return share
		}
	}
	return nil
}

func (r *run) snapshotDir(replica *cairnv1.Replica, snap *cairnv1.Snapshot) string {
	return r.world.Cluster.Server(replica.GetNode()).SnapshotDir(replica.GetId(), snap.GetId())
}

// kept adds what diverged snapshots hold.
func (r *run) kept(f *model.Final, shares []*cairnv1.Share, snapshots []*cairnv1.Snapshot) error {
	for i, share := range r.traffic.Shares() {
		for _, snap := range snapshots {
			if snap.GetShare() != share.ID || !snap.GetDiverged() {
				continue
			}
			for _, replica := range find(shares, share.ID).GetReplicas() {
				files, err := sums(r.snapshotDir(replica, snap))
				if err != nil {
					return err
				}
				for name, sum := range files {
					f.Shares[i].Kept[name] = sum
				}
			}
		}
	}
	return nil
}

// sums are those of all files below dir, by path; nil if it does not exist.
func sums(dir string) (map[string]string, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer root.Close()
	files := map[string]string{}
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := fs.ReadFile(root.FS(), path)
		files[path] = traffic.Sum(content)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", dir, err)
	}
	return files, nil
}

// sumTree is one sum of a whole tree; "" if it does not exist.
func sumTree(dir string) (string, error) {
	files, err := sums(dir)
	if files == nil || err != nil {
		return "", err
	}
	var lines []string
	for name, sum := range files {
		lines = append(lines, name+" "+sum+"\n")
	}
	slices.Sort(lines)
	return traffic.Sum([]byte(strings.Join(lines, ""))), nil
}
