package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var quotaView = view[*pb.Quota]{
	ref: quotaRef,
	columns: []Column[*pb.Quota]{
		{Header: "PROJECT", Cell: func(_ format, q *pb.Quota) string { return q.GetProject() }},
		{Header: "SHARES", Cell: func(f format, q *pb.Quota) string {
			return f.of(q.GetUsage().GetShares(), q.GetLimits().GetShares(), number)
		}},
		{Header: "SIZE", Cell: func(f format, q *pb.Quota) string {
			return f.of(q.GetUsage().GetBytes(), q.GetLimits().GetBytes(), f.size)
		}},
		{Header: "SNAPSHOTS", Cell: func(f format, q *pb.Quota) string {
			return f.of(q.GetUsage().GetSnapshots(), q.GetLimits().GetSnapshots(), number)
		}},
		{Header: "SNAPSHOT-SIZE", Cell: func(f format, q *pb.Quota) string {
			return f.of(q.GetUsage().GetSnapshotBytes(), q.GetLimits().GetSnapshotBytes(), f.size)
		}},
	},
}

func quotaRef(q *pb.Quota) string { return string(cairn.KindQuota) + "/" + q.GetProject() }

// of renders what is used of a limit: "3/10", "3/unlimited".
func (f format) of(used, limit int64, render func(int64) string) string {
	switch {
	case f.exact:
		return number(used) + "/" + number(limit)
	case limit == cairn.Unlimited:
		return render(used) + "/unlimited"
	}
	return render(used) + "/" + render(limit)
}

func (a *App) quota() *cobra.Command {
	return a.group("quota", "What projects may have", a.quotaShow(), a.quotaSet(), a.quotaList())
}

func (a *App) quotaShow() *cobra.Command {
	return a.command(spec{
		use: "show", args: []arg{{"[PROJECT]", completeProjects}}, short: "Show usage and limits of a project", takes: prints | reads,
		long: "Show usage and limits of a project: of your own if none is given.",
		run: func(ctx context.Context, r *request, args []string) error {
			in := &pb.GetQuotaRequest{Read: r.read()}
			if len(args) > 0 {
				in.Project = bare(cairn.KindQuota, args[0])
			}
			answer, err := r.GetQuota(ctx, in)
			if err != nil {
				return err
			}
			return r.print(quotaView.detail(answer.GetQuota()))
		},
	})
}

func (a *App) quotaList() *cobra.Command {
	return a.command(spec{
		use: "list", short: "List the projects with their usage and limits", takes: prints | reads,
		run: func(ctx context.Context, r *request, _ []string) error {
			answer, err := r.ListQuotas(ctx, &pb.ListQuotasRequest{Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(quotaView.list(answer.GetQuotas(), "no project has limits or shares"))
		},
	})
}

func (a *App) quotaSet() *cobra.Command {
	in := &pb.SetQuotaRequest{}
	cmd := a.command(spec{
		use: "set", args: []arg{{"PROJECT", completeProjects}}, short: "Change limits of a project",
		long:    "Change limits of a project; those that are not given stay. What a project has already is not touched.",
		example: "cairn quota set team-a --shares 20 --size 1TiB --snapshots unlimited",
		takes:   prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			in.Mutation, in.Project = r.mutation(), bare(cairn.KindQuota, args[0])
			if in.Shares == nil && in.Bytes == nil && in.Snapshots == nil && in.SnapshotBytes == nil {
				return usagef("quota %s: nothing to set; give --shares, --size, --snapshots or --snapshot-size", in.Project)
			}
			answer, err := r.SetQuota(ctx, in)
			if err != nil {
				return err
			}
			r.would("change %s", quotaRef(answer.GetQuota()))
			return r.print(quotaView.row(answer.GetQuota()))
		},
	})
	cmd.Flags().Var(&limit{&in.Shares, parseCount}, "shares", "number of shares, or unlimited")
	cmd.Flags().Var(&limit{&in.Bytes, cairn.ParseSize}, "size", "sum of their sizes, or unlimited")
	cmd.Flags().Var(&limit{&in.Snapshots, parseCount}, "snapshots", "number of snapshots, or unlimited")
	cmd.Flags().Var(&limit{&in.SnapshotBytes, cairn.ParseSize}, "snapshot-size", "sum of their shares' sizes, or unlimited")
	return cmd
}

// limit is a flag that leaves its field alone unless it is given.
type limit struct {
	field **int64
	parse func(string) (int64, error)
}

func (l *limit) String() string {
	if l.field == nil || *l.field == nil {
		return ""
	}
	return number(**l.field)
}

func (l *limit) Type() string { return "LIMIT" }

func (l *limit) Set(text string) error {
	n := cairn.Unlimited
	if text != "unlimited" && strings.Trim(text, "0") != "" {
		var err error
		if n, err = l.parse(text); err != nil {
			return trimmed(err)
		}
	} else if text != "unlimited" {
		n = 0 // no share is of size 0, but a limit may be
	}
	*l.field = &n
	return nil
}

func parseCount(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, usagef("%q: want a number, or unlimited", text)
	}
	return n, nil
}
