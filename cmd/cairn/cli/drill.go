package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// longestDrill bounds a drill for which no other time is given: it reads the whole share.
const longestDrill = 24 * time.Hour

var drillView = view[*pb.DrillShareResponse]{
	ref: func(d *pb.DrillShareResponse) string { return string(cairn.KindReplica) + "/" + d.GetReplica().GetId() },
	columns: []Column[*pb.DrillShareResponse]{
		{Header: "NODE", Cell: func(_ format, d *pb.DrillShareResponse) string { return d.GetReplica().GetNode() }},
		{Header: "RTO", Cell: func(f format, d *pb.DrillShareResponse) string { return f.short(d.GetRtoMs()) }},
		{Header: "RPO", Cell: func(f format, d *pb.DrillShareResponse) string { return f.short(d.GetRpoMs()) }},
		{Header: "BEHIND", Cell: func(f format, d *pb.DrillShareResponse) string { return f.size(d.GetRpoBytes()) }},
		{Header: "CONTENT", Cell: func(_ format, d *pb.DrillShareResponse) string {
			if d.GetIdentical() {
				return "identical"
			}
			return "DIFFERS"
		}},
		{Header: "FILES", Cell: func(_ format, d *pb.DrillShareResponse) string { return number(d.GetFiles()) }},
		{Header: "SIZE", Cell: func(f format, d *pb.DrillShareResponse) string { return f.size(d.GetBytes()) }},
		{Header: "CLONED", Wide: true, Cell: func(f format, d *pb.DrillShareResponse) string { return f.short(d.GetCloneMs()) }},
		{Header: "EXPORTED", Wide: true, Cell: func(f format, d *pb.DrillShareResponse) string { return f.short(d.GetExportMs()) }},
		{Header: "SNAPSHOT", Wide: true, Cell: func(_ format, d *pb.DrillShareResponse) string { return d.GetSnapshot() }},
		{Header: "SHA256", Wide: true, Cell: func(_ format, d *pb.DrillShareResponse) string { return d.GetSha256() }},
		{Header: "OF ACTIVE", Wide: true, Cell: func(_ format, d *pb.DrillShareResponse) string { return d.GetSourceSha256() }},
	},
}

// short is a time in which milliseconds matter; exact ones are milliseconds. A negative one is not known.
func (f format) short(ms int64) string {
	switch {
	case f.exact:
		return number(ms)
	case ms < 0:
		return "-"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func (a *App) drill() *cobra.Command {
	var on string
	cmd := a.command(spec{
		use: "drill", args: []arg{shareArg}, short: "Try out what a failover of a share would give",
		long: `Try out what a failover of a share would give, without one: the newest sync point of a standby is cloned on its node, the clone
is exported there read-only and asked by a client, and everything in it is compared with the same snapshot at the active copy.
Then the clone is removed. Neither the share nor its copies change.

RTO is the time from the start until the clone has answered; a real failover first takes 2.5s to find out that a node is down.
RPO and BEHIND are what would have been lost at that moment. If the contents differ the command fails.`,
		example: "cairn drill docs -o json",
		takes:   prints | inProject | endless,
		run: func(ctx context.Context, r *request, args []string) error {
			if _, bounded := ctx.Deadline(); !bounded {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, longestDrill)
				defer cancel()
			}
			share := bare(cairn.KindShare, args[0])
			answer, err := r.DrillShare(ctx, &pb.DrillShareRequest{Share: share, Replica: bare(cairn.KindReplica, on)})
			if err != nil {
				return err
			}
			if err := r.print(drillView.row(answer)); err != nil {
				return err
			}
			if !answer.GetIdentical() {
				return fmt.Errorf("share/%s: snapshot %s on %s does not hold what it holds at the active copy: %w",
					share, answer.GetSnapshot(), answer.GetReplica().GetNode(), cairn.ErrCorrupt)
			}
			return nil
		},
	})
	cmd.Flags().StringVar(&on, "on", "", "the copy, by its `NODE` or ID; any that is in sync by default")
	mustComplete(cmd, "on", a.completeFlag(completeNodes))
	return cmd
}
