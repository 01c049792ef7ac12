package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var typeView = view[*pb.ShareType]{
	ref: typeRef,
	columns: []Column[*pb.ShareType]{
		{Header: "NAME", Cell: func(_ format, t *pb.ShareType) string { return t.GetName() }},
		{Header: "FORMAT", Cell: func(_ format, t *pb.ShareType) string { return t.GetFormat() }},
		{Header: "AGE", Cell: func(f format, t *pb.ShareType) string { return f.age(t.GetCreatedAt()) }},
		{Header: "DESCRIPTION", Cell: func(_ format, t *pb.ShareType) string { return oneLine(t.GetDescription()) }},
		{Header: "SPECS", Wide: true, Cell: func(_ format, t *pb.ShareType) string { return pairs(t.GetSpecs()) }},
	},
}

func typeRef(t *pb.ShareType) string { return string(cairn.KindType) + "/" + t.GetName() }

var typeArg = arg{"TYPE", completeTypes}

func (a *App) shareType() *cobra.Command {
	return a.group("type", "Share types: what shares can do, and where they may lie",
		a.typeCreate(), a.typeList(), a.typeShow(), a.typeDelete())
}

func (a *App) typeCreate() *cobra.Command {
	in := &pb.ShareType{}
	var specs keyValues
	cmd := a.command(spec{
		use: "create", args: []arg{{name: "NAME"}}, short: "Create a share type",
		long: `Create a share type. Its extra specs are Manila's: driver, snapshot_support, create_share_from_snapshot_support,
revert_to_snapshot_support, mount_snapshot_support, replication_type (dr, or readable: over WebDAV,
copies that are not active are read). What is not given is not offered.`,
		example: "cairn type create plain --spec snapshot_support=true --spec revert_to_snapshot_support=true",
		takes:   prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			if err := cairn.CheckName("type", args[0]); err != nil {
				return err
			}
			in.Name, in.Specs = args[0], specs
			answer, err := r.CreateType(ctx, &pb.CreateTypeRequest{Mutation: r.mutation(), Type: in})
			if err != nil {
				return err
			}
			r.would("create %s", typeRef(answer.GetType()))
			return r.print(typeView.row(answer.GetType()))
		},
	})
	cmd.Flags().Var(&specs, "spec", "extra spec; may be repeated")
	cmd.Flags().StringVar(&in.Description, "description", "", "free text")
	cmd.Flags().StringVar(&in.Format, "format", string(cairn.FormatFiles), "what its shares hold: files")
	mustComplete(cmd, "format", cobra.FixedCompletions([]string{string(cairn.FormatFiles)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *App) typeList() *cobra.Command {
	return a.command(spec{
		use: "list", short: "List the share types", takes: prints | reads,
		run: func(ctx context.Context, r *request, _ []string) error {
			answer, err := r.ListTypes(ctx, &pb.ListTypesRequest{Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(typeView.list(answer.GetTypes(), "no share types"))
		},
	})
}

func (a *App) typeShow() *cobra.Command {
	return a.command(spec{
		use: "show", args: []arg{typeArg}, short: "Show a share type with its extra specs", takes: prints | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			answer, err := r.GetType(ctx, &pb.GetTypeRequest{Name: bare(cairn.KindType, args[0]), Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(typeView.detail(answer.GetType()))
		},
	})
}

func (a *App) typeDelete() *cobra.Command {
	return a.command(spec{
		use: "delete", args: []arg{typeArg}, short: "Delete a share type that no share has", takes: prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindType, args[0])
			answer, err := r.DeleteType(ctx, &pb.DeleteTypeRequest{Mutation: r.mutation(), Name: name})
			if err != nil {
				return err
			}
			ref := string(cairn.KindType) + "/" + name
			r.would("delete %s", ref)
			return r.print(sentence(ref, ref+" "+r.decided("deleted"), answer))
		},
	})
}
