package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/errs"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// find returns a copy of the item whose ID or name it is.
func find[T interface {
	proto.Message
	comparable
	GetName() string
}](all []T, kind, key string, id func(T) string) (T, error) {
	var none T
	at := slices.IndexFunc(all, func(item T) bool { return id(item) == key || item.GetName() == key })
	if at < 0 {
		return none, errs.ToStatus(fmt.Errorf("%s %q: project default has none of that name: %w", kind, key, cairn.ErrNotFound))
	}
	return proto.Clone(all[at]).(T), nil
}

func (l *lab) findShare(key string) (*pb.Share, error) {
	return find(l.shares, "share", key, (*pb.Share).GetId)
}

// locked holds the lock while it runs.
func locked[T any](l *lab, run func() (T, error)) (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return run()
}

// newest is the sequence number of the newest event.
func (l *lab) newest() uint64 { return uint64(len(l.journal)) }

func (l *lab) GetShare(_ context.Context, in *pb.GetShareRequest) (*pb.GetShareResponse, error) {
	return locked(l, func() (*pb.GetShareResponse, error) {
		share, err := l.findShare(in.GetShare())
		if err != nil {
			return nil, err
		}
		l.step(share.GetId())
		return &pb.GetShareResponse{Share: share}, nil
	})
}

// ListShares has pages of one share.
func (l *lab) ListShares(_ context.Context, in *pb.ListSharesRequest) (*pb.ListSharesResponse, error) {
	return locked(l, func() (*pb.ListSharesResponse, error) {
		switch {
		case in.GetProject() == "empty":
			return &pb.ListSharesResponse{}, nil
		case in.GetPageToken() == "":
			return &pb.ListSharesResponse{Shares: l.shares[:1], NextPageToken: "more"}, nil
		}
		return &pb.ListSharesResponse{Shares: l.shares[1:]}, nil
	})
}

// CreateShare answers with a share that takes two looks to become available.
func (l *lab) CreateShare(_ context.Context, in *pb.CreateShareRequest) (*pb.CreateShareResponse, error) {
	return locked(l, func() (*pb.CreateShareResponse, error) {
		if old, err := l.findShare(in.GetName()); err == nil {
			return &pb.CreateShareResponse{Share: old, Existed: true, Event: l.newest()}, nil
		}
		share := docsShare()
		share.Id, share.Name, share.Size, share.Description = mediaID+"9", in.GetName(), in.GetSize(), in.GetDescription()
		share.Status, share.ManilaStatus, share.Metadata, share.CreatedAt = "creating", "creating", in.GetMetadata(), ago(0)
		if in.GetMutation().GetDryRun() {
			return &pb.CreateShareResponse{Share: share}, nil
		}
		l.shares = append(l.shares, share)
		l.coming = append(l.coming, func() {
			share.ManilaStatus = "error"
			share.Fault = &pb.Fault{Code: "timeout", Message: "pool n1/data is slow"}
		},
			func() { share.Status, share.ManilaStatus, share.Fault = "available", "available", nil })
		return &pb.CreateShareResponse{Share: proto.Clone(share).(*pb.Share), Event: l.newest()}, nil
	})
}

func (l *lab) DeleteShare(_ context.Context, in *pb.DeleteShareRequest) (*pb.DeleteShareResponse, error) {
	return locked(l, func() (*pb.DeleteShareResponse, error) {
		share, err := l.findShare(in.GetShare())
		if err == nil && !in.GetMutation().GetDryRun() {
			l.coming = append(l.coming, func() { l.drop(share.GetId()) })
		}
		return &pb.DeleteShareResponse{Id: share.GetId(), Event: l.newest()}, err
	})
}

func (l *lab) drop(id string) {
	l.shares = slices.DeleteFunc(l.shares, func(s *pb.Share) bool { return s.GetId() == id })
	l.snapshots = slices.DeleteFunc(l.snapshots, func(s *pb.Snapshot) bool { return s.GetId() == id })
	l.rules = slices.DeleteFunc(l.rules, func(r *pb.AccessRule) bool { return r.GetId() == id })
}

// begin starts a task on a share; end is what comes of it.
func (l *lab) begin(name string, dry bool, task *pb.Task, end func(*pb.Share)) (*pb.Share, error) {
	share, err := l.findShare(name)
	if err != nil || dry {
		return share, err
	}
	at := slices.IndexFunc(l.shares, func(s *pb.Share) bool { return s.GetId() == share.GetId() })
	row := l.shares[at]
	task.Id, task.Share, task.State, task.StartedAt = "task-1", row.GetId(), "running", ago(0)
	row.Task, row.ManilaStatus = task, task.GetKind()+"ing"
	l.coming = append(l.coming, func() { row.ManilaStatus, task.EndedAt = "available", ago(-2*time.Second); end(row) })
	return proto.Clone(row).(*pb.Share), nil
}

func (l *lab) ResizeShare(_ context.Context, in *pb.ResizeShareRequest) (*pb.ResizeShareResponse, error) {
	return locked(l, func() (*pb.ResizeShareResponse, error) {
		kind := map[bool]string{true: "shrink", false: "extend"}[in.GetShrink()]
		share, err := l.begin(in.GetShare(), in.GetMutation().GetDryRun(), &pb.Task{Kind: kind, Size: in.GetSize()}, func(row *pb.Share) {
			if in.GetSize() < 1<<20 {
				row.Task.State, row.Task.Fault = "failed", &pb.Fault{Code: "data_loss", Message: "5MiB are used"}
				return
			}
			row.Task.State, row.Size = "succeeded", in.GetSize()
		})
		return &pb.ResizeShareResponse{Share: share, Event: l.newest()}, err
	})
}

func (l *lab) RevertShare(_ context.Context, in *pb.RevertShareRequest) (*pb.RevertShareResponse, error) {
	return locked(l, func() (*pb.RevertShareResponse, error) {
		share, err := l.begin(in.GetShare(), in.GetMutation().GetDryRun(), &pb.Task{Kind: "revert", Snapshot: beforeID},
			func(row *pb.Share) { row.Task.State = "succeeded" })
		return &pb.RevertShareResponse{Share: share, Event: l.newest()}, err
	})
}

func (l *lab) UpdateShare(_ context.Context, in *pb.UpdateShareRequest) (*pb.UpdateShareResponse, error) {
	return locked(l, func() (*pb.UpdateShareResponse, error) {
		share, err := l.findShare(in.GetShare())
		if err == nil && in.Name != nil {
			share.Name = in.GetName()
		}
		return &pb.UpdateShareResponse{Share: share}, err
	})
}

func (l *lab) SetServiceAddress(_ context.Context, in *pb.SetServiceAddressRequest) (*pb.SetServiceAddressResponse, error) {
	return locked(l, func() (*pb.SetServiceAddressResponse, error) {
		share, err := l.findShare(in.GetShare())
		if err == nil {
			share.ServiceAddress = in.GetServiceAddress()
		}
		return &pb.SetServiceAddressResponse{Share: share}, err
	})
}

// ManageShare finds no object of the name "gone".
func (l *lab) ManageShare(ctx context.Context, in *pb.ManageShareRequest) (*pb.ManageShareResponse, error) {
	answer, err := l.CreateShare(ctx, &pb.CreateShareRequest{Mutation: in.GetMutation(), Name: in.GetName(), Size: in.GetSize()})
	if err == nil && in.GetObject() == "gone" {
		l.mu.Lock()
		defer l.mu.Unlock()
		row := l.shares[len(l.shares)-1]
		row.Task = &pb.Task{Id: "task-1", Kind: "manage", State: "running"}
		l.coming = []func(){func() { row.Fault = &pb.Fault{Code: "missing", Message: "pool n1/data has no directory gone"} }}
	}
	return &pb.ManageShareResponse{Share: answer.GetShare(), Event: answer.GetEvent()}, err
}

func (l *lab) UnmanageShare(ctx context.Context, in *pb.UnmanageShareRequest) (*pb.UnmanageShareResponse, error) {
	answer, err := l.DeleteShare(ctx, &pb.DeleteShareRequest{Mutation: in.GetMutation(), Share: in.GetShare()})
	return &pb.UnmanageShareResponse{Id: answer.GetId(), Object: "n1/data/" + in.GetShare(), Event: answer.GetEvent()}, err
}

func (l *lab) GetSnapshot(_ context.Context, in *pb.GetSnapshotRequest) (*pb.GetSnapshotResponse, error) {
	return locked(l, func() (*pb.GetSnapshotResponse, error) {
		snap, err := find(l.snapshots, "snapshot", in.GetSnapshot(), (*pb.Snapshot).GetId)
		if err != nil {
			return nil, err
		}
		l.step(snap.GetId())
		return &pb.GetSnapshotResponse{Snapshot: snap}, nil
	})
}

func (l *lab) ListSnapshots(_ context.Context, in *pb.ListSnapshotsRequest) (*pb.ListSnapshotsResponse, error) {
	return locked(l, func() (*pb.ListSnapshotsResponse, error) {
		if in.GetShare() == "media" {
			return &pb.ListSnapshotsResponse{}, nil
		}
		return &pb.ListSnapshotsResponse{Snapshots: l.snapshots}, nil
	})
}

func (l *lab) CreateSnapshot(_ context.Context, in *pb.CreateSnapshotRequest) (*pb.CreateSnapshotResponse, error) {
	return locked(l, func() (*pb.CreateSnapshotResponse, error) {
		snap := &pb.Snapshot{
			Id: beforeID + "9", Share: docsID, ShareName: "docs", Project: "default", Name: in.GetName(), Size: 1 << 30, Status: "creating", CreatedAt: ago(0),
		}
		if !in.GetMutation().GetDryRun() {
			l.snapshots = append(l.snapshots, snap)
			l.coming = append(l.coming, func() { snap.Status = "available" })
		}
		return &pb.CreateSnapshotResponse{Snapshot: proto.Clone(snap).(*pb.Snapshot), Event: l.newest()}, nil
	})
}

func (l *lab) DeleteSnapshot(_ context.Context, in *pb.DeleteSnapshotRequest) (*pb.DeleteSnapshotResponse, error) {
	return locked(l, func() (*pb.DeleteSnapshotResponse, error) {
		snap, err := find(l.snapshots, "snapshot", in.GetSnapshot(), (*pb.Snapshot).GetId)
		if err == nil && !in.GetMutation().GetDryRun() {
			l.coming = append(l.coming, func() { l.drop(snap.GetId()) })
		}
		return &pb.DeleteSnapshotResponse{Id: snap.GetId(), Event: l.newest()}, err
	})
}

func (l *lab) ManageSnapshot(ctx context.Context, in *pb.ManageSnapshotRequest) (*pb.ManageSnapshotResponse, error) {
	answer, err := l.CreateSnapshot(ctx, &pb.CreateSnapshotRequest{
		Mutation: in.GetMutation(), Share: in.GetShare(), Name: cmp.Or(in.GetName(), in.GetObject()), Description: in.GetDescription(),
	})
	return &pb.ManageSnapshotResponse{Snapshot: answer.GetSnapshot(), Event: answer.GetEvent()}, err
}

func (l *lab) UnmanageSnapshot(ctx context.Context, in *pb.UnmanageSnapshotRequest) (*pb.UnmanageSnapshotResponse, error) {
	answer, err := l.DeleteSnapshot(ctx, &pb.DeleteSnapshotRequest{Mutation: in.GetMutation(), Share: in.GetShare(), Snapshot: in.GetSnapshot()})
	return &pb.UnmanageSnapshotResponse{Id: answer.GetId(), Object: "autosnap_00:00", Event: answer.GetEvent()}, err
}

func (l *lab) ListAccess(_ context.Context, in *pb.ListAccessRequest) (*pb.ListAccessResponse, error) {
	return locked(l, func() (*pb.ListAccessResponse, error) {
		if in.GetTarget().GetShare() == "media" {
			return &pb.ListAccessResponse{}, nil
		}
		answer := &pb.ListAccessResponse{}
		for _, rule := range l.rules {
			answer.Rules = append(answer.Rules, proto.Clone(rule).(*pb.AccessRule))
		}
		id := docsID
		if in.GetTarget().GetSnapshot() != "" {
			id = beforeID
		}
		l.step(id)
		return answer, nil
	})
}

// AllowAccess cannot enforce a rule for the user "nobody".
func (l *lab) AllowAccess(_ context.Context, in *pb.AllowAccessRequest) (*pb.AllowAccessResponse, error) {
	return locked(l, func() (*pb.AllowAccessResponse, error) {
		rule := &pb.AccessRule{Id: aliceID + "9", Kind: in.GetKind(), Who: in.GetWho(), Level: in.GetLevel(), State: "applying", CreatedAt: ago(0)}
		answer := &pb.AllowAccessResponse{Rule: proto.Clone(rule).(*pb.AccessRule), Event: l.newest()}
		if in.GetKind() == "user" {
			answer.Password = &pb.NewPassword{Who: in.GetWho(), Password: "MFRGGZDFMZTWQ2LK"}
		}
		if !in.GetMutation().GetDryRun() {
			l.rules = append(l.rules, rule)
			end := map[bool]string{true: "error", false: "active"}[in.GetWho() == "nobody"]
			l.coming = append(l.coming, func() { rule.State = end })
		}
		return answer, nil
	})
}

func (l *lab) DenyAccess(_ context.Context, in *pb.DenyAccessRequest) (*pb.DenyAccessResponse, error) {
	return locked(l, func() (*pb.DenyAccessResponse, error) {
		if !in.GetMutation().GetDryRun() {
			l.coming = append(l.coming, func() { l.drop(aliceID) })
		}
		return &pb.DenyAccessResponse{Id: aliceID, Event: l.newest()}, nil
	})
}

func (l *lab) SetAccess(_ context.Context, in *pb.SetAccessRequest) (*pb.SetAccessResponse, error) {
	return locked(l, func() (*pb.SetAccessResponse, error) {
		answer := &pb.SetAccessResponse{Event: l.newest()}
		for i, want := range in.GetRules() {
			rule := &pb.AccessRule{Id: fmt.Sprintf("rule-%d", i), Kind: want.GetKind(), Who: want.GetWho(), Level: want.GetLevel(), State: "active", CreatedAt: ago(0)}
			answer.Rules = append(answer.Rules, rule)
			if rule.GetKind() == "user" {
				answer.Passwords = append(answer.Passwords, &pb.NewPassword{Who: rule.GetWho(), Password: "MFRGGZDFMZTWQ2LK"})
			}
		}
		l.coming = append(l.coming, func() { l.rules = answer.GetRules() })
		for _, rule := range l.rules {
			rule.State = "denying"
		}
		return proto.Clone(answer).(*pb.SetAccessResponse), nil
	})
}

func (l *lab) ListEvents(_ context.Context, in *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	return locked(l, func() (*pb.ListEventsResponse, error) {
		answer := &pb.ListEventsResponse{Newest: l.newest()}
		for _, event := range l.journal {
			if event.GetSeq() > in.GetAfter() && event.GetAt() >= in.GetSince() && len(answer.Events) < 2 { // pages of two
				answer.Events = append(answer.Events, event)
			}
		}
		return answer, nil
	})
}

func (l *lab) FollowEvents(in *pb.FollowEventsRequest, stream grpc.ServerStreamingServer[pb.FollowEventsResponse]) error {
	stop := context.AfterFunc(stream.Context(), l.changed.Broadcast)
	defer stop()
	after := in.GetAfter()
	if l.repeats && after > 0 {
		after--
	}
	for at := after; ; at++ {
		event, breaks := l.await(stream.Context(), at, at >= in.GetAfter())
		if event == nil {
			return stream.Context().Err()
		}
		message := &pb.FollowEventsResponse{Seq: event.GetSeq()}
		if in.GetId() == "" || in.GetId() == event.GetId() {
			message.Event = event
		}
		if err := stream.Send(message); err != nil {
			return err
		}
		if breaks {
			return errs.ToStatus(fmt.Errorf("events: this node stops: %w", cairn.ErrUnavailable))
		}
	}
}

// await waits for the event after at; breaks says that the stream ends with it, which it does only if that is fresh.
func (l *lab) await(ctx context.Context, at uint64, fresh bool) (event *pb.Event, breaks bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for uint64(len(l.journal)) <= at {
		if ctx.Err() != nil {
			return nil, false
		}
		l.changed.Wait()
	}
	if l.breaks > 0 && fresh {
		l.breaks--
		breaks = true
	}
	return l.journal[at], breaks
}
