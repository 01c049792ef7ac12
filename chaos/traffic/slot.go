package traffic

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn/chaos/model"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// slot is a client of a few shares with one copy each, which it shares with other clients: a project of its own with two names.
type slot struct {
	actor
	project string
	zone    string               // where shares are made; "" is anywhere
	known   map[string]string    // name to ID, as last seen
	cuts    map[string]snapshots // by share ID, as last seen
	values  int
}

type snapshots []model.Item

const mebibyte = 1 << 20

// run does things until the context ends.
func (s *slot) run(ctx context.Context) {
	for s.rest(ctx) {
		s.turn(ctx)
	}
}

func (s *slot) turn(ctx context.Context) {
	name := []string{"a", "b"}[s.random.IntN(2)]
	id := s.known[name]
	switch dice := s.random.IntN(100); {
	case dice < 25:
		s.get(ctx, name)
	case dice < 35:
		s.list(ctx)
	case id == "" || dice < 40:
		s.create(ctx, name)
	case dice < 58:
		s.change(ctx, model.UpdateShare, model.Input{ID: id, Value: s.value()}, func(ctx context.Context, in model.Input) error {
			_, err := s.api.Shares().UpdateShare(ctx, &cairnv1.UpdateShareRequest{Share: in.ID, SetMetadata: map[string]string{"v": in.Value}})
			return err
		})
	case dice < 63:
		s.change(ctx, model.RenameShare, model.Input{ID: id, Name: []string{"a", "b"}[s.random.IntN(2)]}, func(ctx context.Context, in model.Input) error {
			_, err := s.api.Shares().UpdateShare(ctx, &cairnv1.UpdateShareRequest{Share: in.ID, Name: &in.Name})
			return err
		})
	case dice < 72:
		shrink := s.chance(40)
		s.change(ctx, model.ResizeShare, model.Input{ID: id, Size: int64(1+s.random.IntN(16)) * mebibyte}, func(ctx context.Context, in model.Input) error {
			_, err := s.api.Shares().ResizeShare(ctx, &cairnv1.ResizeShareRequest{Share: in.ID, Size: in.Size, Shrink: shrink})
			return err
		})
	case dice < 90:
		s.cut(ctx, id)
	default:
		s.change(ctx, model.DeleteShare, model.Input{ID: id}, func(ctx context.Context, in model.Input) error {
			_, err := s.api.Shares().DeleteShare(ctx, &cairnv1.DeleteShareRequest{Share: in.ID})
			return err
		})
	}
}

// value is one that nobody else writes.
func (s *slot) value() string {
	s.values++
	return fmt.Sprintf("%d-%d", s.number, s.values)
}

func (s *slot) op(kind model.Kind, in model.Input) model.Operation {
	return model.Operation{Client: s.number, Kind: kind, Resource: s.project, Input: in}
}

// change is an operation whose answer is only that it was done.
func (s *slot) change(ctx context.Context, kind model.Kind, in model.Input, call func(context.Context, model.Input) error) {
	op := s.do(ctx, s.op(kind, in), func(ctx context.Context) (model.Output, error) { return model.Output{}, call(ctx, in) })
	if op.Output.Refusal == model.NotFound {
		for name, id := range s.known {
			if id == in.ID {
				delete(s.known, name)
			}
		}
	}
}

func (s *slot) create(ctx context.Context, name string) {
	in := model.Input{Name: name, Value: s.value(), Size: int64(1+s.random.IntN(16)) * mebibyte}
	op := s.do(ctx, s.op(model.CreateShare, in), func(ctx context.Context) (model.Output, error) {
		answer, err := s.api.Shares().CreateShare(ctx, &cairnv1.CreateShareRequest{
			Project: s.project, Name: in.Name, Size: in.Size, Zone: s.zone, Metadata: map[string]string{"v": in.Value},
		})
		return model.Output{ID: answer.GetShare().GetId()}, err
	})
	if op.Output.ID != "" {
		s.known[name] = op.Output.ID
	}
}

func (s *slot) get(ctx context.Context, name string) {
	op := s.do(ctx, s.op(model.GetShare, model.Input{Name: name}), func(ctx context.Context) (model.Output, error) {
		answer, err := s.api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Project: s.project, Share: name})
		return model.Output{Items: []model.Item{item(answer.GetShare())}}, err
	})
	if op.Output.Refusal == model.NotFound {
		delete(s.known, name)
	}
	s.note(op.Output.Items)
}

func (s *slot) list(ctx context.Context) {
	op := s.do(ctx, s.op(model.ListShares, model.Input{}), func(ctx context.Context) (model.Output, error) {
		answer, err := s.api.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: s.project})
		var out model.Output
		for _, share := range answer.GetShares() {
			out.Items = append(out.Items, item(share))
		}
		return out, err
	})
	s.note(op.Output.Items)
}

func (s *slot) note(items []model.Item) {
	for _, item := range items {
		s.known[item.Name] = item.ID
	}
}

// item is a share as it was shown.
func item(share *cairnv1.Share) model.Item {
	shown := model.Item{
		Name: share.GetName(), ID: share.GetId(), Value: share.GetMetadata()["v"], Size: share.GetSize(), Leaving: share.GetStatus() == "deleting",
	}
	for _, replica := range share.GetReplicas() {
		shown.Epoch = max(shown.Epoch, replica.GetEpoch())
	}
	return shown
}

// cut makes, lists or deletes snapshots of the share.
func (s *slot) cut(ctx context.Context, share string) {
	held := s.cuts[share]
	switch dice := s.random.IntN(3); {
	case dice == 0 && len(held) < 2:
		in := model.Input{ID: share, Name: []string{"s", "t"}[s.random.IntN(2)]}
		s.do(ctx, s.op(model.CreateSnapshot, in), func(ctx context.Context) (model.Output, error) {
			answer, err := s.api.Snapshots().CreateSnapshot(ctx, &cairnv1.CreateSnapshotRequest{Share: in.ID, Name: in.Name})
			return model.Output{ID: answer.GetSnapshot().GetId()}, err
		})
	case dice == 1 && len(held) > 0:
		s.change(ctx, model.DeleteSnapshot, model.Input{ID: held[s.random.IntN(len(held))].ID}, func(ctx context.Context, in model.Input) error {
			_, err := s.api.Snapshots().DeleteSnapshot(ctx, &cairnv1.DeleteSnapshotRequest{Snapshot: in.ID})
			return err
		})
	}
	op := s.do(ctx, s.op(model.ListSnapshots, model.Input{ID: share}), func(ctx context.Context) (model.Output, error) {
		answer, err := s.api.Snapshots().ListSnapshots(ctx, &cairnv1.ListSnapshotsRequest{Share: share})
		var out model.Output
		for _, snap := range answer.GetSnapshots() {
			out.Items = append(out.Items, model.Item{Name: snap.GetName(), ID: snap.GetId(), Leaving: snap.GetStatus() == "deleting"})
		}
		slices.SortFunc(out.Items, func(a, b model.Item) int { return strings.Compare(a.Name, b.Name) })
		return out, err
	})
	s.cuts[share] = op.Output.Items
}
