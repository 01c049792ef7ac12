package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/model"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// rejoin has the guest give away what it is active for, removes it from the cluster, takes what was on its disks away, and lets it
// join again; another machine tries the same token at the same time.
func rejoin(ctx context.Context, w *World, _ *local.Server, _ *rand.Rand) (Heal, error) {
	guest := w.Cluster.Server(w.Guest)
	heal := func(ctx context.Context) error {
		if guest.Running() {
			return nil
		}
		return w.bringBack(ctx, guest)
	}
	if err := w.empty(ctx, guest); err != nil {
		return func(context.Context) error { return revive(guest) }, err
	}
	if err := guest.Kill(); err != nil {
		return heal, err
	}
	return heal, heal(ctx)
}

// empty waits until no share is served by the guest.
func (w *World) empty(ctx context.Context, guest *local.Server) error {
	if _, err := w.API.Nodes().DrainNode(ctx, &cairnv1.DrainNodeRequest{Node: guest.Name}); err != nil {
		return err
	}
	return local.Await(ctx, "no active replica on "+guest.Name, func(ctx context.Context) (bool, error) {
		shares, err := w.API.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: "*"})
		for _, share := range shares.GetShares() {
			if replicas := share.GetReplicas(); len(replicas) > 0 && replicas[0].GetNode() == guest.Name {
				return false, fmt.Errorf("share %s is at %s", share.GetName(), guest.Name)
			}
		}
		return err == nil, err
	})
}

// bringBack is each step of the way from a member that is dead to one with empty disks; it may be begun again at any of them.
func (w *World) bringBack(ctx context.Context, guest *local.Server) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := w.API.Nodes().RemoveNode(ctx, &cairnv1.RemoveNodeRequest{Node: guest.Name, Force: true})
	if err != nil && !errors.Is(err, cairn.ErrNotFound) {
		return fmt.Errorf("remove %s: %w", guest.Name, err)
	}
	if err := w.wipe(ctx, guest); err != nil {
		return err
	}
	if err := w.dropTokens(ctx, guest.Name); err != nil {
		return err
	}
	answer, err := w.API.Nodes().CreateNodeToken(ctx, &cairnv1.CreateNodeTokenRequest{Name: guest.Name})
	if err != nil {
		return fmt.Errorf("token for %s: %w", guest.Name, err)
	}
	if err := w.race(ctx, guest, answer); err != nil {
		_, gone := w.API.Nodes().DeleteNodeToken(ctx, &cairnv1.DeleteNodeTokenRequest{Id: answer.GetId()})
		return errors.Join(err, gone)
	}
	return guest.Start()
}

func (w *World) wipe(ctx context.Context, guest *local.Server) error {
	w.mu.Lock()
	w.wiped = true
	w.mu.Unlock()
	dirs := []string{guest.DataDir(), guest.PoolDir()}
	if w.Disks != nil { // of a pool on btrfs nobody but its tool takes snapshots away
		if err := w.Disks.mountPool(ctx, guest); err != nil {
			return fmt.Errorf("wipe: %w", err)
		}
		dirs = dirs[:1]
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("wipe: %w", err)
		}
		for _, entry := range entries {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return fmt.Errorf("wipe: %w", err)
			}
		}
	}
	return nil
}

// dropTokens takes back what an earlier attempt has left.
func (w *World) dropTokens(ctx context.Context, name string) error {
	tokens, err := w.API.Nodes().ListNodeTokens(ctx, &cairnv1.ListNodeTokensRequest{})
	if err != nil {
		return err
	}
	for _, token := range tokens.GetTokens() {
		if token.GetName() != name {
			continue
		}
		if _, err := w.API.Nodes().DeleteNodeToken(ctx, &cairnv1.DeleteNodeTokenRequest{Id: token.GetId()}); err != nil && !errors.Is(err, cairn.ErrNotFound) {
			return err
		}
	}
	return nil
}

// race has the guest and an impostor of the same name join with the same token. If the impostor is first the guest cannot come back
// this time; the impostor never starts, so the cluster has not heard of it, and the next attempt begins with a new token.
func (w *World) race(ctx context.Context, guest *local.Server, token *cairnv1.CreateNodeTokenResponse) error {
	impostor, remove, err := guest.Impostor()
	if err != nil {
		return err
	}
	defer func() {
		if err := remove(); err != nil {
			w.Log("impostor: %v", err)
		}
	}()
	var group sync.WaitGroup
	var errs [2]error
	for i, machine := range []*local.Server{guest, impostor} {
		group.Go(func() {
			errs[i] = w.Cluster.Enrol(ctx, machine, token.GetToken())
			w.joined(model.Join{Token: token.GetId(), Machine: machine.Dir, Joined: errs[i] == nil})
		})
	}
	group.Wait()
	if errs[0] != nil {
		return fmt.Errorf("%s joins again: %w", guest.Name, errs[0])
	}
	return nil
}
