package cli

import (
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func (a *App) snapshotManage() *cobra.Command {
	in := &pb.ManageSnapshotRequest{}
	cmd := a.command(spec{
		use: "manage", args: []arg{shareArg, {name: "OBJECT"}}, short: "Make a snapshot of one that is on the pool already",
		long: `Make a snapshot of a share of one that somebody else has cut of its data with the pool's own tools. OBJECT is its name there,
without that of the share's dataset. Pools on ZFS can do this, for shares with one replica.`,
		example: "cairn snapshot manage docs autosnap_2026-01-01_00:00:01_daily --name new-year",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			in.Mutation, in.Share, in.Object = r.mutation(), bare(cairn.KindShare, args[0]), args[1]
			if err := cairn.CheckObjectName("object", in.GetObject()); err != nil {
				return err
			}
			if err := cairn.CheckName("snapshot", cmp.Or(in.GetName(), in.GetObject())); err != nil {
				if in.GetName() == "" {
					return usagef("snapshot: cannot be named %q as the object is; choose a name with --name", in.GetObject())
				}
				return err
			}
			answer, err := r.ManageSnapshot(ctx, in)
			if err != nil {
				return err
			}
			snap := answer.GetSnapshot()
			if !r.would("make %s of %s", snapshotRef(snap), in.GetObject()) {
				if snap, err = r.awaitSnapshot(ctx, snap, answer.GetEvent()); err != nil {
					return err
				}
			}
			return r.print(snapshotView.row(snap))
		},
	})
	cmd.Flags().StringVar(&in.Name, "name", "", "`NAME` of the snapshot (default: that of the object)")
	cmd.Flags().StringVar(&in.Description, "description", "", "free text")
	return cmd
}

func (a *App) snapshotUnmanage() *cobra.Command {
	return a.command(spec{
		use: "unmanage", args: snapshotArgs, short: "Let go of a snapshot and leave its data on the pool",
		long: "Let go of a snapshot and leave its data on the pool, under the name that it was managed from, or else under its own.\n\n" +
			snapshotArgsHelp,
		takes: prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			share, name := snapshotName(args...)
			ref := string(cairn.KindSnapshot) + "/" + strings.TrimPrefix(share+"/"+name, "/")
			answer, err := r.UnmanageSnapshot(ctx, &pb.UnmanageSnapshotRequest{Mutation: r.mutation(), Snapshot: name, Share: share})
			if err != nil {
				return err
			}
			if !r.would("let go of %s and leave it as %s", ref, answer.GetObject()) {
				if err := r.awaitSnapshotGone(ctx, ref, answer.GetId(), answer.GetEvent()); err != nil {
					return err
				}
			}
			stays := "; its data stays as " + answer.GetObject()
			return r.print(sentence(ref, ref+" "+r.done("let go of"+stays, "is being let go of"+stays), answer))
		},
	})
}
