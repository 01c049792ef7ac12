package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var snapshotView = view[*pb.Snapshot]{
	ref: snapshotRef,
	columns: []Column[*pb.Snapshot]{
		{Header: "SHARE", Cell: func(_ format, s *pb.Snapshot) string { return s.GetShareName() }},
		{Header: "NAME", Cell: func(_ format, s *pb.Snapshot) string { return s.GetName() }},
		{Header: "SIZE", Cell: func(f format, s *pb.Snapshot) string { return f.size(s.GetSize()) }},
		{Header: "STATUS", Cell: func(_ format, s *pb.Snapshot) string { return health(s.GetStatus(), s.GetFault()) }},
		{Header: "AGE", Cell: func(f format, s *pb.Snapshot) string { return f.age(s.GetCreatedAt()) }},
		{Header: "PROJECT", Wide: true, Cell: func(_ format, s *pb.Snapshot) string { return s.GetProject() }},
		{Header: "ID", Wide: true, Cell: func(_ format, s *pb.Snapshot) string { return s.GetId() }},
		{Header: "LOCATIONS", Wide: true, Cell: func(_ format, s *pb.Snapshot) string { return locations(s.GetLocations()) }},
		{Header: "FAULT", Wide: true, Cell: func(_ format, s *pb.Snapshot) string { return fault(s.GetFault()) }},
		{Header: "METADATA", Wide: true, Cell: func(_ format, s *pb.Snapshot) string { return pairs(s.GetMetadata()) }},
		{Header: "DESCRIPTION", Wide: true, Cell: func(_ format, s *pb.Snapshot) string { return oneLine(s.GetDescription()) }},
	},
}

func snapshotPath(s *pb.Snapshot) string { return s.GetShareName() + "/" + s.GetName() }

func snapshotRef(s *pb.Snapshot) string { return string(cairn.KindSnapshot) + "/" + snapshotPath(s) }

// snapshotArgs name an existing snapshot: by share and name, or by one argument alone.
var snapshotArgs = []arg{{"SHARE", completeShares}, {"[SNAPSHOT]", completeSnapshots}}

const snapshotArgsHelp = "A snapshot is named by its share and its name, or by one argument alone: SHARE/SNAPSHOT or the snapshot's ID."

func (a *App) snapshotCommands() *cobra.Command {
	return a.group("snapshot", "Snapshots of shares",
		a.snapshotCreate(), a.snapshotList(), a.snapshotShow(), a.snapshotDelete(),
		a.snapshotAllow(), a.snapshotDeny(), a.snapshotAccess(), a.snapshotManage(), a.snapshotUnmanage())
}

// snapshotName splits what names a snapshot: the share, "" for an ID, and the name or ID.
func snapshotName(args ...string) (share, name string) {
	if len(args) > 1 {
		return bare(cairn.KindShare, args[0]), args[1]
	}
	path := bare(cairn.KindSnapshot, args[0])
	if share, name, ok := strings.Cut(path, "/"); ok {
		return share, name
	}
	return "", path
}

// snapshot finds a snapshot.
func (r *request) snapshot(ctx context.Context, args ...string) (*pb.Snapshot, error) {
	share, name := snapshotName(args...)
	answer, err := r.GetSnapshot(ctx, &pb.GetSnapshotRequest{Snapshot: name, Share: share, Read: r.read()})
	return answer.GetSnapshot(), err
}

func (a *App) snapshotCreate() *cobra.Command {
	in := &pb.CreateSnapshotRequest{}
	var metadata keyValues
	cmd := a.command(spec{
		use: "create", args: []arg{shareArg, {name: "NAME"}}, short: "Cut a snapshot of a share",
		long:    "Cut a snapshot of a share: one point in time, also while clients write.",
		example: "cairn snapshot create docs before",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			if err := cairn.CheckName("snapshot", args[1]); err != nil {
				return err
			}
			in.Mutation, in.Share, in.Name, in.Metadata = r.mutation(), bare(cairn.KindShare, args[0]), args[1], metadata
			answer, err := r.CreateSnapshot(ctx, in)
			if err != nil {
				return err
			}
			snap := answer.GetSnapshot()
			if !r.would("cut %s", snapshotRef(snap)) {
				if snap, err = r.awaitSnapshot(ctx, snap, answer.GetEvent()); err != nil {
					return err
				}
			}
			return r.print(snapshotView.row(snap))
		},
	})
	cmd.Flags().StringVar(&in.Description, "description", "", "free text")
	cmd.Flags().Var(&metadata, "metadata", "set a pair of metadata; may be repeated")
	return cmd
}

// awaitSnapshot waits until a snapshot is available.
func (r *request) awaitSnapshot(ctx context.Context, snap *pb.Snapshot, after uint64) (*pb.Snapshot, error) {
	err := r.wait(ctx, snapshotRef(snap), snap.GetId(), after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.GetSnapshot(ctx, &pb.GetSnapshotRequest{Snapshot: snap.GetId()})
		if err != nil {
			return "", false, err
		}
		snap = answer.GetSnapshot()
		return snapshotState(snap), snap.GetStatus() == string(cairn.StatusAvailable), nil
	})
	return snap, err
}

// snapshotState is what progress shows of a snapshot.
func snapshotState(s *pb.Snapshot) string {
	if s.GetFault() != nil {
		return s.GetStatus() + ": " + s.GetFault().GetMessage()
	}
	return s.GetStatus()
}

func (a *App) snapshotList() *cobra.Command {
	return a.command(spec{
		use: "list", args: []arg{{"[SHARE]", completeShares}}, short: "List the snapshots of a share, or of all shares", takes: prints | inProject | reads,
		long: "List the snapshots of a share, or of all shares of the project, those of one share from the oldest to the newest.",
		run: func(ctx context.Context, r *request, args []string) error {
			in := &pb.ListSnapshotsRequest{Read: r.read()}
			none := r.ofProject("no snapshots")
			if len(args) > 0 {
				in.Share = bare(cairn.KindShare, args[0])
				none = "no snapshots of share " + in.Share
			}
			snapshots, err := r.snapshots(ctx, in)
			if err != nil {
				return err
			}
			return r.print(snapshotView.list(snapshots, none))
		},
	})
}

// snapshots are the snapshots of all pages.
func (r *request) snapshots(ctx context.Context, in *pb.ListSnapshotsRequest) ([]*pb.Snapshot, error) {
	var all []*pb.Snapshot
	for {
		page, err := r.ListSnapshots(ctx, in)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetSnapshots()...)
		if in.PageToken = page.GetNextPageToken(); in.PageToken == "" {
			return all, nil
		}
	}
}

func (a *App) snapshotShow() *cobra.Command {
	return a.command(spec{
		use: "show", args: snapshotArgs, short: "Show a snapshot", takes: prints | inProject | reads,
		long: "Show a snapshot.\n\n" + snapshotArgsHelp,
		run: func(ctx context.Context, r *request, args []string) error {
			snap, err := r.snapshot(ctx, args...)
			if err != nil {
				return err
			}
			return r.print(snapshotView.detail(snap))
		},
	})
}

func (a *App) snapshotDelete() *cobra.Command {
	return a.command(spec{
		use: "delete", args: snapshotArgs, short: "Delete a snapshot", takes: prints | inProject | mutates | waits,
		long: "Delete a snapshot. The data of its share stays as it is.\n\n" + snapshotArgsHelp,
		run: func(ctx context.Context, r *request, args []string) error {
			share, name := snapshotName(args...)
			ref := string(cairn.KindSnapshot) + "/" + strings.TrimPrefix(share+"/"+name, "/")
			answer, err := r.DeleteSnapshot(ctx, &pb.DeleteSnapshotRequest{Mutation: r.mutation(), Snapshot: name, Share: share})
			if err != nil {
				return err
			}
			if !r.would("delete %s", ref) {
				if err := r.awaitSnapshotGone(ctx, ref, answer.GetId(), answer.GetEvent()); err != nil {
					return err
				}
			}
			return r.print(sentence(ref, ref+" "+r.done("deleted", "is being deleted"), answer))
		},
	})
}

func (r *request) awaitSnapshotGone(ctx context.Context, what, id string, after uint64) error {
	return r.wait(ctx, what, id, after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.GetSnapshot(ctx, &pb.GetSnapshotRequest{Snapshot: id})
		if errors.Is(err, cairn.ErrNotFound) {
			return "gone", true, nil
		}
		return snapshotState(answer.GetSnapshot()), false, err
	})
}

func (a *App) snapshotAllow() *cobra.Command {
	return a.command(spec{
		use: "allow", args: []arg{shareArg, {"SNAPSHOT", completeSnapshots}, kindArg, whoArg}, short: "Let a client read a snapshot",
		long: `Let a client read a snapshot at an address of its own; cairn snapshot show tells it. Snapshots are never writable. The share's
own rules do not count here.` + passwordHelp,
		example: "cairn snapshot allow docs before ip 10.0.0.0/8",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			return allowAccess(ctx, r, r.target(args[0], args[1]), args[2], args[3], "ro")
		},
	})
}

func (a *App) snapshotDeny() *cobra.Command {
	return a.command(spec{
		use: "deny", args: []arg{shareArg, {"SNAPSHOT", completeSnapshots}, {"KIND|RULE", kindArg.complete}, {name: "[WHO]"}},
		short: "Stop a client from reading a snapshot",
		long:  "Stop a client from reading a snapshot. The rule is named by kind and client, or by its ID.",
		takes: prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			return denyAccess(ctx, r, r.target(args[0], args[1]), args[2:])
		},
	})
}

func (a *App) snapshotAccess() *cobra.Command {
	return a.command(spec{
		use: "access", args: []arg{shareArg, {"SNAPSHOT", completeSnapshots}}, short: "List who may read a snapshot", takes: prints | inProject | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			return listAccess(ctx, r, r.target(args[0], args[1]))
		},
	})
}
