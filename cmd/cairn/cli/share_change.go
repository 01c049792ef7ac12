package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func (a *App) shareExtend() *cobra.Command {
	return a.command(spec{
		use: "extend", args: []arg{shareArg, {name: "SIZE"}}, short: "Make a share larger",
		example: "cairn share extend docs 20GiB",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			return resizeShare(ctx, r, args, false)
		},
	})
}

func (a *App) shareShrink() *cobra.Command {
	return a.command(spec{
		use: "shrink", args: []arg{shareArg, {name: "SIZE"}}, short: "Make a share smaller, if its data still fits",
		long:    "Make a share smaller. If its data does not fit any more, nothing is changed and the error says how much is used (exit code 5).",
		example: "cairn share shrink docs 5GiB",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			return resizeShare(ctx, r, args, true)
		},
	})
}

func resizeShare(ctx context.Context, r *request, args []string, shrink bool) error {
	bytes, err := cairn.ParseSize(args[1])
	if err != nil {
		return err
	}
	answer, err := r.ResizeShare(ctx, &pb.ResizeShareRequest{
		Mutation: r.mutation(), Share: bare(cairn.KindShare, args[0]), Size: bytes, Shrink: shrink,
	})
	if err != nil {
		return err
	}
	share := answer.GetShare()
	if !r.would("change %s from %s to %s", shareRef(share), cairn.FormatSize(share.GetSize()), cairn.FormatSize(bytes)) {
		if share, err = r.awaitTask(ctx, share, answer.GetEvent()); err != nil {
			return err
		}
	}
	return r.print(shareView.row(share))
}

func (a *App) shareRevert() *cobra.Command {
	return a.command(spec{
		use: "revert", args: []arg{shareArg, {"SNAPSHOT", completeSnapshots}}, short: "Take a share back to its newest snapshot",
		long: `Take the data of a share back to its newest snapshot. What was written since is lost, so the command asks first; where it
cannot ask it needs --yes. Clients cannot reach the share while it is reverted.`,
		example: "cairn share revert docs before --yes",
		takes:   prints | inProject | mutates | waits | destroys,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindShare, args[0])
			if err := r.confirm(ctx, true, "share/%s will lose what was written since snapshot %s", name, args[1]); err != nil {
				return err
			}
			answer, err := r.RevertShare(ctx, &pb.RevertShareRequest{Mutation: r.mutation(), Share: name, Snapshot: args[1]})
			if err != nil {
				return err
			}
			share := answer.GetShare()
			if !r.would("revert %s to snapshot %s", shareRef(share), args[1]) {
				if share, err = r.awaitTask(ctx, share, answer.GetEvent()); err != nil {
					return err
				}
			}
			return r.print(shareView.row(share))
		},
	})
}

func (a *App) shareRename() *cobra.Command {
	return a.command(spec{
		use: "rename", args: []arg{shareArg, {name: "NEW-NAME"}}, short: "Rename a share",
		long:  "Rename a share. Its ID and the addresses that clients use stay as they are.",
		takes: prints | inProject | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			if err := cairn.CheckName("share", args[1]); err != nil {
				return err
			}
			return updateShare(ctx, r, "rename it to "+args[1], &pb.UpdateShareRequest{Share: args[0], Name: &args[1]})
		},
	})
}

func (a *App) shareSetAddress() *cobra.Command {
	return a.command(spec{
		use: "set-address", args: []arg{shareArg, {name: "ADDRESS"}}, short: "Give a share over NFS an address that moves with it",
		long: `Give a share over NFS a service address: the node that serves the share has it, and after a failover the next one. Clients that
mount through it, with the option hard, go on by themselves. It is for shares whose type has failover=auto. An address is given with
the length of its network; each node needs an interface in that network. "none" takes the address away. Clients that use
the old address have to mount anew.`,
		example: "cairn share set-address docs 10.0.0.9/24",
		takes:   prints | inProject | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			address := args[1]
			if address == "none" {
				address = ""
			}
			answer, err := r.SetServiceAddress(ctx, &pb.SetServiceAddressRequest{
				Mutation: r.mutation(), Share: bare(cairn.KindShare, args[0]), ServiceAddress: address,
			})
			if err != nil {
				return err
			}
			share := answer.GetShare()
			r.would("serve %s at %s", shareRef(share), args[1])
			return r.print(shareView.row(share))
		},
	})
}

func (a *App) shareSet() *cobra.Command {
	var description string
	var remove []string
	var cmd *cobra.Command
	cmd = a.command(spec{
		use: "set", args: []arg{shareArg, {name: "KEY=VALUE..."}}, short: "Change metadata and description of a share",
		example: `
cairn share set docs owner=ann site=ber
cairn share set docs --remove site --description "the team's documents"`,
		takes: prints | inProject | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			in := &pb.UpdateShareRequest{Share: args[0], RemoveMetadata: remove}
			if cmd.Flags().Changed("description") {
				in.Description = &description
			}
			set := keyValues{}
			for _, pair := range args[1:] {
				if err := set.Set(pair); err != nil {
					return err
				}
			}
			in.SetMetadata = set
			if len(set) == 0 && len(remove) == 0 && in.Description == nil {
				return usagef("share %s: nothing to set; give KEY=VALUE, --remove KEY or --description TEXT", args[0])
			}
			return updateShare(ctx, r, "change it", in)
		},
	})
	cmd.Flags().StringVar(&description, "description", "", "free text; empty removes it")
	cmd.Flags().StringArrayVar(&remove, "remove", nil, "remove the metadata with this `KEY`; may be repeated")
	return cmd
}

func updateShare(ctx context.Context, r *request, would string, in *pb.UpdateShareRequest) error {
	in.Mutation, in.Share = r.mutation(), bare(cairn.KindShare, in.GetShare())
	answer, err := r.UpdateShare(ctx, in)
	if err != nil {
		return err
	}
	r.would("change share/%s: %s", in.GetShare(), would)
	return r.print(shareView.row(answer.GetShare()))
}

func (a *App) shareManage() *cobra.Command {
	in := &pb.ManageShareRequest{}
	var bytes size
	var pool string
	cmd := a.command(spec{
		use: "manage", args: []arg{{name: "NAME"}}, short: "Make a share of a directory that is on a pool already",
		long: `Make a share of a directory (dataset, volume) that is on a pool already, and keep its data. Where the object lies is up to
the pool's driver: for "dir" it is a directory in the root of the pool.`,
		example: "cairn share manage docs --pool n1/data --object old-docs --size 10GiB",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			in.Mutation, in.Name, in.Size = r.mutation(), args[0], int64(bytes)
			return manageShare(ctx, r, pool, in)
		},
	})
	cmd.Flags().StringVar(&pool, "pool", "", "where it is, as `NODE/POOL`")
	cmd.Flags().StringVar(&in.Object, "object", "", "`NAME` of the directory in the pool")
	cmd.Flags().Var(&bytes, "size", "size to grant; refused if it holds more")
	cmd.Flags().StringVar(&in.Type, "type", "", "share type (default: default)")
	cmd.Flags().StringVar(&in.Protocol, "proto", "", "how clients reach it: webdav (the default) or nfs")
	mustComplete(cmd, "pool", a.completeFlag(completePools))
	mustComplete(cmd, "type", a.completeFlag(completeTypes))
	return cmd
}

func manageShare(ctx context.Context, r *request, pool string, in *pb.ManageShareRequest) error {
	if err := cairn.CheckName("share", in.GetName()); err != nil {
		return err
	}
	for _, flag := range []struct {
		name    string
		missing bool
	}{{"--pool", pool == ""}, {"--object", in.GetObject() == ""}, {"--size", in.GetSize() == 0}} {
		if flag.missing {
			return usagef("share %s: %s is missing; see: cairn share manage --help", in.GetName(), flag.name)
		}
	}
	var err error
	if in.Node, in.Pool, err = splitPool(pool); err != nil {
		return err
	}
	answer, err := r.ManageShare(ctx, in)
	if err != nil {
		return err
	}
	share := answer.GetShare()
	if !r.would("make %s of %s in pool %s", shareRef(share), in.GetObject(), pool) {
		if share, err = r.awaitShare(ctx, share, answer.GetEvent()); err != nil {
			return err
		}
	}
	return r.print(shareView.row(share))
}

func (a *App) shareUnmanage() *cobra.Command {
	var object string
	cmd := a.command(spec{
		use: "unmanage", args: []arg{shareArg}, short: "Let go of a share and leave its data on the pool",
		long:  "Let go of a share and leave its data on the pool, from where cairn share manage takes it back. Refused while it has snapshots.",
		takes: prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindShare, args[0])
			ref := string(cairn.KindShare) + "/" + name
			answer, err := r.UnmanageShare(ctx, &pb.UnmanageShareRequest{Mutation: r.mutation(), Share: name, Object: object})
			if err != nil {
				return err
			}
			if !r.would("let go of %s and leave %s", ref, answer.GetObject()) {
				if err := r.awaitGone(ctx, ref, answer.GetId(), answer.GetEvent()); err != nil {
					return err
				}
			}
			stays := "; its data stays as " + answer.GetObject()
			return r.print(sentence(ref, ref+" "+r.done("let go of"+stays, "is being let go of"+stays), answer))
		},
	})
	cmd.Flags().StringVar(&object, "object", "", "`NAME` that the directory gets (default: the share's)")
	return cmd
}
