package traffic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/model"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Share is a share with copies on several nodes, which clients write records to.
type Share struct {
	Name     string
	ID       string
	Protocol cairn.Protocol
	User     string // over WebDAV
	Password string
	records  atomic.Uint64
}

// Sum is the checksum of a file's content as histories have it.
func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// writer writes records through the doors that it knows, some after the other through the same one, also when that one does not lead to the
// share any more.
type writer struct {
	actor
	share *Share
	doors []Door
	door  int
}

func (w *writer) turn(ctx context.Context) {
	if w.chance(10) {
		w.door = w.random.IntN(len(w.doors))
	}
	n := w.share.records.Add(1)
	ack := model.Ack{Share: w.share.Name, Protocol: string(w.share.Protocol), Path: fmt.Sprintf("record-%d", n), Record: n}
	content := []byte(fmt.Sprintf("record %d of %s by client %d %s\n", n, w.share.Name, w.number, strings.Repeat("x", w.random.IntN(4000))))
	ack.Sum, ack.Call = Sum(content), w.Now()
	by, err := w.doors[w.door].Put(ctx, ack.Path, content)
	if err != nil {
		w.door = w.random.IntN(len(w.doors))
		return // nothing was acknowledged, so nothing is promised
	}
	ack.Return, ack.Node, ack.Epoch = w.Now(), by.Node, by.Epoch
	w.ack(ack)
}

// keeper makes and deletes snapshots of a share, promotes its replicas, and takes some away and adds others.
type keeper struct {
	actor
	share    *Share
	replicas int
	cuts     []string // names of snapshots that were said to be available, oldest first
	made     int
}

// keep is how many snapshots a keeper leaves.
const keep = 3

func (k *keeper) turn(ctx context.Context) {
	switch dice := k.random.IntN(10); {
	case dice < 5:
		k.cut(ctx)
	case dice < 7:
		k.other(ctx, "promote", func(ctx context.Context) error {
			_, err := k.api.Replicas().PromoteShare(ctx, &cairnv1.PromoteShareRequest{Share: k.share.ID})
			return err
		})
	case dice < 9:
		k.replace(ctx)
	default:
		k.other(ctx, "resync", func(ctx context.Context) error {
			answer, err := k.api.Replicas().ListReplicas(ctx, &cairnv1.ListReplicasRequest{Share: k.share.ID})
			if err != nil || len(answer.GetReplicas()) < 2 {
				return err
			}
			_, err = k.api.Replicas().ResyncReplica(ctx, &cairnv1.ResyncReplicaRequest{Share: k.share.ID, Replica: answer.GetReplicas()[1].GetReplica().GetId()})
			return err
		})
	}
}

// other is an operation that no model describes.
func (a *actor) other(ctx context.Context, what string, call func(ctx context.Context) error) model.Operation {
	op := model.Operation{Client: a.number, Kind: model.Other + model.Kind(what), Resource: what}
	return a.do(ctx, op, func(ctx context.Context) (model.Output, error) { return model.Output{}, call(ctx) })
}

// cut makes a snapshot and waits until it is said to be available; of those it keeps the newest few.
func (k *keeper) cut(ctx context.Context) {
	k.made++
	name := fmt.Sprintf("cut-%d", k.made)
	op := k.other(ctx, "snapshot", func(ctx context.Context) error {
		_, err := k.api.Snapshots().CreateSnapshot(ctx, &cairnv1.CreateSnapshotRequest{Share: k.share.ID, Name: name})
		return err
	})
	if op.Outcome != model.Known || op.Output.Refusal != "" {
		return
	}
	for range 10 {
		if !k.rest(ctx) {
			return
		}
		answer, err := k.api.Snapshots().GetSnapshot(ctx, &cairnv1.GetSnapshotRequest{Share: k.share.ID, Snapshot: name})
		if err == nil && answer.GetSnapshot().GetStatus() == "available" {
			k.cuts = append(k.cuts, name)
			break
		}
	}
	for len(k.cuts) > keep {
		oldest := k.cuts[0]
		k.cuts = k.cuts[1:]
		k.other(ctx, "unsnapshot", func(ctx context.Context) error {
			_, err := k.api.Snapshots().DeleteSnapshot(ctx, &cairnv1.DeleteSnapshotRequest{Share: k.share.ID, Snapshot: oldest})
			return err
		})
	}
}

// replace takes a copy away if there are enough, or adds one.
func (k *keeper) replace(ctx context.Context) {
	k.other(ctx, "replica", func(ctx context.Context) error {
		answer, err := k.api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: k.share.ID})
		if err != nil {
			return err
		}
		replicas := answer.GetShare().GetReplicas()
		if len(replicas) < k.replicas {
			_, err = k.api.Replicas().AddReplica(ctx, &cairnv1.AddReplicaRequest{Share: k.share.ID})
			return err
		}
		last := replicas[len(replicas)-1]
		if last.GetState() == "active" || len(replicas) < 3 {
			return nil
		}
		_, err = k.api.Replicas().RemoveReplica(ctx, &cairnv1.RemoveReplicaRequest{Share: k.share.ID, Replica: last.GetId()})
		return err
	})
}
