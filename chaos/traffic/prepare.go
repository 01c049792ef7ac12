package traffic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// project is where the shares are that records are written to.
func (t *Traffic) project() string { return t.config.Prefix + "-data" }

// quota is the project whose limits are changed; it never has anything.
func (t *Traffic) quota() string { return t.config.Prefix + "-quota" }

// Types of shares with copies: of the one standbys are not read, of the other they are.
func (t *Traffic) copied() string   { return t.config.Prefix + "-copied" }
func (t *Traffic) readable() string { return t.config.Prefix + "-readable" }

// Readable reports whether clients read the standbys of a share.
func (t *Traffic) Readable(share *cairnv1.Share) bool {
	return share.GetType() == t.readable() && t.config.Replicas > 1
}

func (t *Traffic) makeTypes(ctx context.Context, admin *client.Client) error {
	for name, replication := range map[string]string{t.copied(): "dr", t.readable(): "readable"} {
		specs := map[string]string{"snapshot_support": "true"}
		if t.config.Replicas > 1 {
			specs["replication_type"], specs["failover"], specs["cairn:replication_interval"] = replication, "auto", "500ms"
		}
		_, err := admin.Types().CreateType(ctx, &cairnv1.CreateTypeRequest{Type: &cairnv1.ShareType{Name: name, Format: "files", Specs: specs}})
		if err != nil {
			return fmt.Errorf("share type: %w", err)
		}
	}
	return nil
}

// makeShares makes shares over WebDAV, about half of them of a type whose standbys are read, and the share over NFS, whose standbys nobody
// can read.
func (t *Traffic) makeShares(ctx context.Context, admin *client.Client) error {
	if err := t.makeTypes(ctx, admin); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(t.config.Seed, 0xc0))
	kind := func() string { return []string{t.copied(), t.readable()}[random.IntN(2)] }
	for i := range t.config.Shares {
		share, err := t.makeShare(ctx, admin, &cairnv1.CreateShareRequest{Name: fmt.Sprintf("share-%d", i), Type: kind()})
		if err != nil {
			return err
		}
		access, err := admin.Access().AllowAccess(ctx, &cairnv1.AllowAccessRequest{
			Target: &cairnv1.AccessTarget{Share: share.ID}, Kind: "user", Who: "writer", Level: "rw",
		})
		if err != nil {
			return fmt.Errorf("access to share %s: %w", share.Name, err)
		}
		share.User, share.Password = "writer", access.GetPassword().GetPassword()
		t.shares = append(t.shares, share)
	}
	rules, err := t.makeShare(ctx, admin, &cairnv1.CreateShareRequest{Name: "rules", Type: kind()})
	if err != nil {
		return err
	}
	t.rules = rules.ID
	return t.makeNFS(ctx, admin)
}

// makeNFS makes the share over NFS, if there is to be one, and waits until clients reach it.
func (t *Traffic) makeNFS(ctx context.Context, admin *client.Client) error {
	at := t.config.NFS
	if at == nil {
		return nil
	}
	share, err := t.makeShare(ctx, admin, &cairnv1.CreateShareRequest{Name: "share-nfs", Type: t.copied(), Protocol: string(cairn.ProtocolNFS), ServiceAddress: at.Service})
	if err != nil {
		return err
	}
	_, err = admin.Access().AllowAccess(ctx, &cairnv1.AllowAccessRequest{Target: &cairnv1.AccessTarget{Share: share.ID}, Kind: "ip", Who: at.Client, Level: "rw"})
	if err != nil {
		return fmt.Errorf("access to share %s: %w", share.Name, err)
	}
	t.shares = append(t.shares, share)
	doors, err := t.Doors(ctx, share)
	if err != nil {
		return err
	}
	return local.Await(ctx, "share "+share.Name+" at its service address", func(ctx context.Context) (bool, error) {
		_, err := doors[0].List(ctx)
		return err == nil, err
	})
}

// makeShare makes a share with copies, and waits until all of them are in sync.
func (t *Traffic) makeShare(ctx context.Context, admin *client.Client, request *cairnv1.CreateShareRequest) (*Share, error) {
	request.Project, request.Size, request.Replicas = t.project(), 64*mebibyte, int32(t.config.Replicas)
	request.Protocol = cmp.Or(request.Protocol, string(cairn.ProtocolWebDAV))
	answer, err := admin.Shares().CreateShare(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("share: %w", err)
	}
	share := &Share{Name: answer.GetShare().GetName(), ID: answer.GetShare().GetId(), Protocol: cairn.Protocol(request.Protocol)}
	return share, awaitWhole(ctx, admin, share.ID, t.config.Replicas)
}

// awaitWhole waits until a share is available and all its copies are in sync.
func awaitWhole(ctx context.Context, api *client.Client, share string, replicas int) error {
	return local.Await(ctx, "share "+share+" with all its copies in sync", func(ctx context.Context) (bool, error) {
		answer, err := api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: share})
		if err != nil {
			return false, err
		}
		whole := 0
		for _, replica := range answer.GetShare().GetReplicas() {
			if replica.GetState() != "out_of_sync" && replica.GetFault() == nil {
				whole++
			}
		}
		if status := answer.GetShare().GetManilaStatus(); status != "available" || whole < replicas {
			return false, fmt.Errorf("is %s with %d of %d copies in sync", status, whole, replicas)
		}
		return true, nil
	})
}

// Remove deletes everything that the clients have made, and waits until it is gone.
func (t *Traffic) Remove(ctx context.Context) error {
	api := t.API()
	return local.Await(ctx, "the end of everything called "+t.config.Prefix+"…", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		left, err := t.removeShares(ctx, api)
		if err != nil || left > 0 {
			return false, err
		}
		return true, t.removeRest(ctx, api)
	})
}

func (t *Traffic) removeShares(ctx context.Context, api *client.Client) (left int, err error) {
	shares, err := api.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: "*"})
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, share := range shares.GetShares() {
		if !strings.HasPrefix(share.GetProject(), t.config.Prefix+"-") {
			continue
		}
		left++
		snapshots, err := api.Snapshots().ListSnapshots(ctx, &cairnv1.ListSnapshotsRequest{Share: share.GetId()})
		errs = append(errs, err)
		for _, snap := range snapshots.GetSnapshots() {
			_, err := api.Snapshots().DeleteSnapshot(ctx, &cairnv1.DeleteSnapshotRequest{Snapshot: snap.GetId()})
			errs = append(errs, err)
		}
		if len(snapshots.GetSnapshots()) == 0 {
			_, err := api.Shares().DeleteShare(ctx, &cairnv1.DeleteShareRequest{Share: share.GetId()})
			errs = append(errs, err)
		}
	}
	return left, errors.Join(errs...)
}

func (t *Traffic) removeRest(ctx context.Context, api *client.Client) error {
	var errs []error
	types, err := api.Types().ListTypes(ctx, &cairnv1.ListTypesRequest{})
	errs = append(errs, err)
	for _, kind := range types.GetTypes() {
		if strings.HasPrefix(kind.GetName(), t.config.Prefix+"-") {
			_, err := api.Types().DeleteType(ctx, &cairnv1.DeleteTypeRequest{Name: kind.GetName()})
			errs = append(errs, ignoreAbsent(err))
		}
	}
	unlimited := int64(cairn.Unlimited)
	_, err = api.Quotas().SetQuota(ctx, &cairnv1.SetQuotaRequest{Project: t.quota(), Shares: &unlimited, Bytes: &unlimited})
	errs = append(errs, err)
	tokens, err := api.Nodes().ListNodeTokens(ctx, &cairnv1.ListNodeTokensRequest{})
	errs = append(errs, err)
	for _, token := range tokens.GetTokens() {
		if strings.HasPrefix(token.GetName(), t.config.Prefix+"-") {
			_, err := api.Nodes().DeleteNodeToken(ctx, &cairnv1.DeleteNodeTokenRequest{Id: token.GetId()})
			errs = append(errs, ignoreAbsent(err))
		}
	}
	return errors.Join(errs...)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	return err
}
