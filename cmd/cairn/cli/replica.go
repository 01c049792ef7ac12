package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var syncView = view[*pb.ReplicaSync]{
	ref: func(s *pb.ReplicaSync) string { return string(cairn.KindReplica) + "/" + s.GetReplica().GetId() },
	columns: []Column[*pb.ReplicaSync]{
		{Header: "NODE", Cell: func(_ format, s *pb.ReplicaSync) string { return s.GetReplica().GetNode() }},
		{Header: "POOL", Cell: func(_ format, s *pb.ReplicaSync) string { return s.GetReplica().GetPool() }},
		{Header: "STATE", Cell: func(_ format, s *pb.ReplicaSync) string {
			return health(s.GetReplica().GetState(), s.GetReplica().GetFault())
		}},
		{Header: "LAG", Cell: func(f format, s *pb.ReplicaSync) string { return lag(f, s) }},
		{Header: "BEHIND", Cell: func(f format, s *pb.ReplicaSync) string { return f.size(s.GetLagBytes()) }},
		{Header: "TRANSFER", Cell: transfer},
		{Header: "READ-ONLY AT", Wide: true, Cell: func(_ format, s *pb.ReplicaSync) string { return locations(s.GetReplica().GetLocations()) }},
		{Header: "ID", Wide: true, Cell: func(_ format, s *pb.ReplicaSync) string { return s.GetReplica().GetId() }},
		{Header: "EPOCH", Wide: true, Cell: func(_ format, s *pb.ReplicaSync) string { return number(s.GetReplica().GetEpoch()) }},
		{Header: "FAULT", Wide: true, Cell: func(_ format, s *pb.ReplicaSync) string { return fault(s.GetReplica().GetFault()) }},
		{Header: "ERROR", Wide: true, Cell: func(_ format, s *pb.ReplicaSync) string { return oneLine(s.GetError()) }},
	},
}

// lag is how long ago a replica certainly was as the active one.
func lag(f format, s *pb.ReplicaSync) string {
	switch ms := s.GetLagMs(); {
	case f.exact:
		return number(ms)
	case ms < 0:
		return "-"
	default:
		return humane(time.Duration(ms) * time.Millisecond)
	}
}

// transfer is what is arriving now.
func transfer(f format, s *pb.ReplicaSync) string {
	if s.GetTotal() == 0 {
		return ""
	}
	return fmt.Sprintf("%s of %s", f.size(s.GetReceived()), f.size(s.GetTotal()))
}

func (a *App) replica() *cobra.Command {
	return a.group("replica", "Copies of a share on other nodes", a.replicaAdd(), a.replicaRemove(), a.replicaList(), a.replicaResync())
}

// replicaArg names a replica of the share before it.
var replicaArg = arg{"REPLICA", completeNodes}

func (a *App) replicaAdd() *cobra.Command {
	in := &pb.AddReplicaRequest{}
	cmd := a.command(spec{
		use: "add", args: []arg{shareArg}, short: "Give a share another copy",
		long: `Give a share another copy on another node. The active one feeds it; it is out_of_sync until it has everything, snapshots
included. The share's type needs replication.`,
		example: "cairn replica add docs --zone ber2",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			in.Mutation, in.Share = r.mutation(), bare(cairn.KindShare, args[0])
			answer, err := r.AddReplica(ctx, in)
			if err != nil {
				return err
			}
			replica := answer.GetReplica()
			if !r.would("add a replica of share/%s on %s/%s", in.GetShare(), replica.GetNode(), replica.GetPool()) {
				if replica, err = r.awaitReplica(ctx, in.GetShare(), replica, answer.GetEvent()); err != nil {
					return err
				}
			}
			return r.print(syncView.row(&pb.ReplicaSync{Replica: replica, LagMs: -1, LagBytes: -1}))
		},
	})
	cmd.Flags().StringVar(&in.Zone, "zone", "", "only pools of nodes in this zone")
	cmd.Flags().StringVar(&in.Pool, "pool", "", "only this pool, as `NODE/POOL`")
	mustComplete(cmd, "zone", a.completeFlag(completeZones))
	mustComplete(cmd, "pool", a.completeFlag(completePools))
	return cmd
}

// awaitReplica waits until a new replica is in sync.
func (r *request) awaitReplica(ctx context.Context, share string, replica *pb.Replica, after uint64) (*pb.Replica, error) {
	what := string(cairn.KindReplica) + "/" + replica.GetId()
	err := r.wait(ctx, what, replica.GetId(), after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.ListReplicas(ctx, &pb.ListReplicasRequest{Share: share})
		if err != nil {
			return "", false, err
		}
		for _, s := range answer.GetReplicas() {
			if s.GetReplica().GetId() == replica.GetId() {
				replica = s.GetReplica()
				return replicaState(s), replica.GetState() == string(cairn.ReplicaInSync), nil
			}
		}
		return "", false, fmt.Errorf("%s: %w", what, cairn.ErrNotFound)
	})
	return replica, err
}

// replicaState is what progress shows of a replica.
func replicaState(s *pb.ReplicaSync) string {
	state := s.GetReplica().GetState()
	switch {
	case s.GetReplica().GetFault() != nil:
		return state + ": " + s.GetReplica().GetFault().GetMessage()
	case s.GetTotal() > 0:
		return fmt.Sprintf("%s: %s of about %s", state, cairn.FormatSize(s.GetReceived()), cairn.FormatSize(s.GetTotal()))
	}
	return state
}

func (a *App) replicaRemove() *cobra.Command {
	var force bool
	cmd := a.command(spec{
		use: "remove", args: []arg{shareArg, replicaArg}, short: "Take away a copy that is not active",
		long: `Take away a copy of a share: it is named by its node or by its ID. The active one cannot be removed. A copy that holds what no
other one has (see cairn replica list) goes only with --force, and so does one whose node is down.`,
		example: "cairn replica remove docs n3",
		takes:   prints | inProject | mutates | waits | destroys,
		run: func(ctx context.Context, r *request, args []string) error {
			share := bare(cairn.KindShare, args[0])
			if err := r.confirm(ctx, false, "the replica of share/%s on %s will be deleted", share, args[1]); err != nil {
				return err
			}
			answer, err := r.RemoveReplica(ctx, &pb.RemoveReplicaRequest{Mutation: r.mutation(), Share: share, Replica: bare(cairn.KindReplica, args[1]), Force: force})
			if err != nil {
				return err
			}
			ref := string(cairn.KindReplica) + "/" + answer.GetId()
			if !r.would("remove %s of share/%s", ref, share) {
				if err := r.awaitReplicaGone(ctx, share, answer.GetId(), answer.GetEvent()); err != nil {
					return err
				}
			}
			return r.print(sentence(ref, ref+" "+r.done("removed", "is being removed"), answer))
		},
	})
	cmd.Flags().BoolVar(&force, "force", false, "also if it holds what no other copy has, or its node is down")
	return cmd
}

func (r *request) awaitReplicaGone(ctx context.Context, share, id string, after uint64) error {
	return r.wait(ctx, string(cairn.KindReplica)+"/"+id, id, after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.ListReplicas(ctx, &pb.ListReplicasRequest{Share: share})
		for _, s := range answer.GetReplicas() {
			if s.GetReplica().GetId() == id {
				return replicaState(s), false, nil
			}
		}
		return "gone", err == nil, err
	})
}

func (a *App) replicaList() *cobra.Command {
	var diverged bool
	cmd := a.command(spec{
		use: "list", args: []arg{shareArg}, short: "List the copies of a share, and how far behind they are",
		long: `List the copies of a share, the active one first. LAG is how long ago a copy certainly was as the active one, BEHIND estimates
what it lacks. If the share's type says readable, -o wide shows where a copy is read: there clients see the share as it was
LAG ago. --diverged lists what an earlier active copy wrote and no other one has: snapshots that can be mounted (cairn snapshot
allow), copied (cairn share create --from-snapshot) and discarded (cairn snapshot delete).`,
		takes: prints | inProject | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			share := bare(cairn.KindShare, args[0])
			answer, err := r.ListReplicas(ctx, &pb.ListReplicasRequest{Share: share, Read: r.read()})
			switch {
			case err != nil:
				return err
			case diverged:
				return r.print(snapshotView.list(answer.GetDiverged(), "no diverged snapshots of share "+share))
			}
			if answer.GetWaits() != "" {
				r.notef("share/%s waits: %s", share, answer.GetWaits())
			}
			if n := len(answer.GetDiverged()); n > 0 {
				r.notef("share/%s has %d diverged; see: cairn replica list %s --diverged", share, n, share)
			}
			return r.print(syncView.list(answer.GetReplicas(), "no replicas"))
		},
	})
	cmd.Flags().BoolVar(&diverged, "diverged", false, "list what an earlier active copy wrote and no other one has")
	return cmd
}

func (a *App) replicaResync() *cobra.Command {
	return a.command(spec{
		use: "resync", args: []arg{shareArg, replicaArg}, short: "Have a copy follow at once instead of at the end of its interval",
		takes: prints | inProject | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			share, replica := bare(cairn.KindShare, args[0]), bare(cairn.KindReplica, args[1])
			answer, err := r.ResyncReplica(ctx, &pb.ResyncReplicaRequest{Mutation: r.mutation(), Share: share, Replica: replica})
			if err != nil {
				return err
			}
			r.would("resync the replica of share/%s on %s", share, replica)
			ref := string(cairn.KindReplica) + "/" + replica
			return r.print(sentence(ref, "replica of share/"+share+" on "+replica+" "+r.done("follows now", "follows now"), answer))
		},
	})
}

func (a *App) sharePromote() *cobra.Command {
	var to string
	var force bool
	cmd := a.command(spec{
		use: "promote", args: []arg{shareArg}, short: "Make another copy of a share the active one",
		long: `Make another copy the active one: without loss, in about a second in which clients cannot write. The copy is named by its node
or its ID; without --to any that is in sync is taken.

With --force it takes over without the active one, for when that one's node will not come back soon. What was written there
since the last sync stays behind, and is kept: see cairn replica list --diverged.`,
		example: "cairn share promote docs --to n2",
		takes:   prints | inProject | mutates | waits | destroys,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindShare, args[0])
			if force {
				if err := r.confirm(ctx, true, "share/%s will be without what was written since the last sync", name); err != nil {
					return err
				}
			}
			answer, err := r.PromoteShare(ctx, &pb.PromoteShareRequest{Mutation: r.mutation(), Share: name, Replica: bare(cairn.KindReplica, to), Force: force})
			if err != nil {
				return err
			}
			share := answer.GetShare()
			switch {
			case force:
				r.notef("up to %s of writes stay behind", time.Duration(answer.GetLeftBehindMs())*time.Millisecond)
				share, err = r.awaitServed(ctx, share, answer.GetEvent())
			case !r.would("promote %s", shareRef(share)):
				share, err = r.awaitTask(ctx, share, answer.GetEvent())
			}
			if err != nil {
				return err
			}
			return r.print(shareView.row(share))
		},
	})
	cmd.Flags().StringVar(&to, "to", "", "the copy, by its `NODE` or ID")
	cmd.Flags().BoolVar(&force, "force", false, "take over without the active copy")
	mustComplete(cmd, "to", a.completeFlag(completeNodes))
	return cmd
}

// awaitServed waits until the active replica has done everything that is wanted.
func (r *request) awaitServed(ctx context.Context, share *pb.Share, after uint64) (*pb.Share, error) {
	err := r.wait(ctx, shareRef(share), share.GetId(), after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.GetShare(ctx, &pb.GetShareRequest{Share: share.GetId()})
		if err != nil {
			return "", false, err
		}
		share = answer.GetShare()
		return shareState(share), share.GetFault() == nil && len(share.GetReplicas()) > 0 && share.GetReplicas()[0].GetSettled(), nil
	})
	return share, err
}
