package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var shareView = view[*pb.Share]{
	ref: shareRef,
	columns: []Column[*pb.Share]{
		{Header: "NAME", Cell: func(_ format, s *pb.Share) string { return s.GetName() }},
		{Header: "SIZE", Cell: func(f format, s *pb.Share) string { return f.size(s.GetSize()) }},
		{Header: "STATUS", Cell: func(_ format, s *pb.Share) string { return health(s.GetManilaStatus(), s.GetFault()) }},
		{Header: "TYPE", Cell: func(_ format, s *pb.Share) string { return s.GetType() }},
		{Header: "POOL", Cell: func(_ format, s *pb.Share) string { return poolsOf(s) }},
		{Header: "AGE", Cell: func(f format, s *pb.Share) string { return f.age(s.GetCreatedAt()) }},
		{Header: "PROTOCOL", Wide: true, Cell: func(_ format, s *pb.Share) string { return s.GetProtocol() }},
		{Header: "PROJECT", Wide: true, Cell: func(_ format, s *pb.Share) string { return s.GetProject() }},
		{Header: "ID", Wide: true, Cell: func(_ format, s *pb.Share) string { return s.GetId() }},
		{Header: "ADDRESS", Wide: true, Cell: func(_ format, s *pb.Share) string { return s.GetServiceAddress() }},
		{Header: "LOCATIONS", Wide: true, Cell: func(_ format, s *pb.Share) string { return locations(s.GetLocations()) }},
		{Header: "TASK", Wide: true, Cell: func(_ format, s *pb.Share) string { return taskWords(s.GetTask()) }},
		{Header: "FAULT", Wide: true, Cell: func(_ format, s *pb.Share) string { return fault(s.GetFault()) }},
		{Header: "SOURCE", Wide: true, Cell: func(_ format, s *pb.Share) string { return s.GetSourceSnapshot() }},
		{Header: "METADATA", Wide: true, Cell: func(_ format, s *pb.Share) string { return pairs(s.GetMetadata()) }},
		{Header: "DESCRIPTION", Wide: true, Cell: func(_ format, s *pb.Share) string { return oneLine(s.GetDescription()) }},
	},
}

var replicaView = view[*pb.Replica]{
	columns: []Column[*pb.Replica]{
		{Header: "REPLICA", Cell: func(_ format, r *pb.Replica) string { return r.GetNode() + "/" + r.GetPool() }},
		{Header: "STATE", Cell: func(_ format, r *pb.Replica) string { return r.GetState() }},
		{Header: "SETTLED", Cell: func(_ format, r *pb.Replica) string { return yesNo(r.GetSettled()) }},
		{Header: "EPOCH", Cell: func(_ format, r *pb.Replica) string { return number(r.GetEpoch()) }},
		{Header: "ID", Cell: func(_ format, r *pb.Replica) string { return r.GetId() }},
		{Header: "READ-ONLY AT", Cell: func(_ format, r *pb.Replica) string { return locations(r.GetLocations()) }},
		{Header: "FAULT", Cell: func(_ format, r *pb.Replica) string { return fault(r.GetFault()) }},
	},
}

func shareRef(s *pb.Share) string { return string(cairn.KindShare) + "/" + s.GetName() }

// poolsOf are the places of a share's replicas, the active one first.
func poolsOf(s *pb.Share) string {
	return strings.Join(collect(s.GetReplicas(), func(r *pb.Replica) string { return r.GetNode() + "/" + r.GetPool() }), "\n")
}

func (a *App) share() *cobra.Command {
	return a.group("share", "File shares",
		a.shareCreate(), a.shareList(), a.shareShow(), a.shareDelete(), a.shareExtend(), a.shareShrink(), a.shareRevert(),
		a.shareRename(), a.sharePromote(), a.shareSet(), a.shareSetAddress(), a.shareManage(), a.shareUnmanage())
}

// shareArg is the argument that names an existing share.
var shareArg = arg{"SHARE", completeShares}

func (a *App) shareCreate() *cobra.Command {
	in := &pb.CreateShareRequest{}
	var bytes size
	var metadata keyValues
	cmd := a.command(spec{
		use: "create", args: []arg{{name: "NAME"}}, short: "Create a share",
		long: `Create a share and wait until it can be used.

The same name with the same specification is the same share, so the command can be repeated; another specification is a
conflict. A new share is reached by nobody: see cairn access allow.

A share from a snapshot is a clone in the snapshot's pool, made at once. If that takes no more, or is not in --zone, the snapshot
is sent to another pool of the same driver, and cannot be deleted until it is there.`,
		example: `
cairn share create docs --size 10GiB
cairn share create copy --from-snapshot docs/before
cairn share create docs --size 10GiB --dry-run`,
		takes: prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			in.Mutation, in.Name, in.Size, in.Metadata = r.mutation(), args[0], int64(bytes), metadata
			return createShare(ctx, r, in)
		},
	})
	cmd.Flags().Var(&bytes, "size", "size, such as 10GiB (default with --from-snapshot: the snapshot's)")
	cmd.Flags().StringVar(&in.Type, "type", "", "share type (default: default)")
	cmd.Flags().StringVar(&in.Protocol, "proto", "", "how clients reach it: webdav (the default) or nfs")
	cmd.Flags().StringVar(&in.Zone, "zone", "", "only pools of nodes in this zone")
	cmd.Flags().Int32Var(&in.Replicas, "replicas", 1, "copies on different nodes; more than one needs a type with replication")
	cmd.Flags().StringVar(&in.SourceSnapshot, "from-snapshot", "", "start with the data of a snapshot: `SHARE/SNAPSHOT` or its ID")
	cmd.Flags().StringVar(&in.Description, "description", "", "free text")
	cmd.Flags().StringVar(&in.ServiceAddress, "service-address", "", "where clients of NFS reach it whichever node serves it, such as 10.0.0.9/24; for types with failover=auto")
	cmd.Flags().Var(&metadata, "metadata", "set a pair of metadata; may be repeated")
	mustComplete(cmd, "type", a.completeFlag(completeTypes))
	mustComplete(cmd, "zone", a.completeFlag(completeZones))
	mustComplete(cmd, "from-snapshot", a.completeFlag(completeSnapshotPaths))
	mustComplete(cmd, "proto", cobra.FixedCompletions([]string{string(cairn.ProtocolWebDAV), string(cairn.ProtocolNFS)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func createShare(ctx context.Context, r *request, in *pb.CreateShareRequest) error {
	if err := cairn.CheckName("share", in.GetName()); err != nil {
		return err
	}
	if in.GetSize() == 0 && in.GetSourceSnapshot() == "" {
		return usagef("share %s: --size is missing; give one, such as --size 10GiB", in.GetName())
	}
	if in.GetSourceSnapshot() != "" {
		source, err := r.snapshot(ctx, in.GetSourceSnapshot())
		if err != nil {
			return err
		}
		in.SourceSnapshot = source.GetId()
	}
	answer, err := r.CreateShare(ctx, in)
	if err != nil {
		return err
	}
	share := answer.GetShare()
	switch {
	case answer.GetExisted():
		r.notef("%s exists with this specification", shareRef(share))
	case r.would("create %s (%s) on %s", shareRef(share), cairn.FormatSize(share.GetSize()), poolsOf(share)):
		return r.print(shareView.row(share))
	}
	if share, err = r.awaitShare(ctx, share, answer.GetEvent()); err != nil {
		return err
	}
	return r.print(shareView.row(share))
}

// awaitShare waits until a share is available. It ends early on a fault that no repetition cures.
func (r *request) awaitShare(ctx context.Context, share *pb.Share, after uint64) (*pb.Share, error) {
	err := r.wait(ctx, shareRef(share), share.GetId(), after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.GetShare(ctx, &pb.GetShareRequest{Share: share.GetId()})
		if err != nil {
			return "", false, err
		}
		share = answer.GetShare()
		return shareState(share), share.GetStatus() == string(cairn.StatusAvailable), hopeless(share)
	})
	return share, err
}

// hopeless is why a share that is being created will not get on unless somebody does something about it. The node goes on
// trying, so it also says how to take the share back.
func hopeless(share *pb.Share) error {
	code := cairn.FaultCode(share.GetFault().GetCode())
	switch code {
	case cairn.FaultMissing, cairn.FaultDataLoss, cairn.FaultForeign, cairn.FaultUnsupport:
	default:
		return nil
	}
	undo := "cairn share delete " + share.GetName()
	if share.GetTask().GetKind() == string(cairn.TaskManage) {
		undo = "cairn task cancel " + share.GetName()
	}
	return &sentenceError{fmt.Sprintf("%s: %s; it is tried again until you take it back with: %s",
		shareRef(share), share.GetFault().GetMessage(), undo), faultErrors[code]}
}

// awaitTask waits until the task that share carries has ended, and says why if it ended badly.
func (r *request) awaitTask(ctx context.Context, share *pb.Share, after uint64) (*pb.Share, error) {
	task := share.GetTask().GetId()
	err := r.wait(ctx, shareRef(share), share.GetId(), after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.GetShare(ctx, &pb.GetShareRequest{Share: share.GetId()})
		if err != nil {
			return "", false, err
		}
		share = answer.GetShare()
		if share.GetTask().GetId() != task {
			return "", false, fmt.Errorf("%s: another task has followed before the end of this one was seen: %w", shareRef(share), cairn.ErrUnknownOutcome)
		}
		return shareState(share), share.GetTask().GetState() != string(cairn.TaskRunning), taskError(share)
	})
	return share, err
}

// taskError is why a task did not succeed; a task that runs may still succeed.
func taskError(share *pb.Share) error {
	task := share.GetTask()
	switch cairn.TaskState(task.GetState()) {
	case cairn.TaskRunning, cairn.TaskSucceeded:
		return nil
	case cairn.TaskCancelled:
		return fmt.Errorf("%s: %s was cancelled: %w", shareRef(share), task.GetKind(), cairn.ErrPrecondition)
	}
	why := cairn.ErrPrecondition
	if known, ok := faultErrors[cairn.FaultCode(task.GetFault().GetCode())]; ok {
		why = known
	}
	return &sentenceError{fmt.Sprintf("%s: %s: %s", shareRef(share), task.GetKind(), task.GetFault().GetMessage()), why}
}

// faultErrors says which error a fault is to whoever waited for the contrary.
var faultErrors = map[cairn.FaultCode]error{
	cairn.FaultMissing: cairn.ErrNotFound, cairn.FaultNoSpace: cairn.ErrNoSpace, cairn.FaultInUse: cairn.ErrInUse,
	cairn.FaultDataLoss: cairn.ErrDataLoss, cairn.FaultForeign: cairn.ErrExists, cairn.FaultTimeout: cairn.ErrTimeout,
	cairn.FaultPool: cairn.ErrUnavailable, cairn.FaultNodeDown: cairn.ErrUnavailable, cairn.FaultUnsupport: cairn.ErrNotSupported,
}

// awaitGone waits until there is no such share any more.
func (r *request) awaitGone(ctx context.Context, what, id string, after uint64) error {
	return r.wait(ctx, what, id, after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.GetShare(ctx, &pb.GetShareRequest{Share: id})
		if errors.Is(err, cairn.ErrNotFound) {
			return "gone", true, nil
		}
		return shareState(answer.GetShare()), false, err
	})
}

// shareState is what progress shows of a share.
func shareState(s *pb.Share) string {
	state := s.GetManilaStatus()
	for _, why := range []*pb.Fault{s.GetFault(), s.GetTask().GetFault()} {
		if why != nil {
			return state + ": " + why.GetMessage()
		}
	}
	return state
}

func (a *App) shareList() *cobra.Command {
	return a.command(spec{
		use: "list", short: "List shares", takes: prints | inProject | reads,
		long: "List the shares of a project in order of name; --project '*' lists those of all projects.",
		run: func(ctx context.Context, r *request, _ []string) error {
			shares, err := r.shares(ctx)
			if err != nil {
				return err
			}
			return r.print(shareView.list(shares, r.ofProject("no shares")))
		},
	})
}

// shares are all shares of the project.
func (r *request) shares(ctx context.Context) ([]*pb.Share, error) {
	var all []*pb.Share
	for token := ""; ; {
		page, err := r.ListShares(ctx, &pb.ListSharesRequest{PageToken: token, Read: r.read()})
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetShares()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

func (a *App) shareShow() *cobra.Command {
	return a.command(spec{
		use: "show", args: []arg{shareArg}, short: "Show a share with its locations, task and replicas", takes: prints | inProject | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			answer, err := r.GetShare(ctx, &pb.GetShareRequest{Share: bare(cairn.KindShare, args[0]), Read: r.read()})
			if err != nil {
				return err
			}
			res := shareView.detail(answer.GetShare())
			lines := res.text
			res.text = func(out *bytes.Buffer, p printer) {
				lines(out, p)
				out.WriteByte('\n')
				replicaView.table(out, p, answer.GetShare().GetReplicas())
			}
			return r.print(res)
		},
	})
}

func (a *App) shareDelete() *cobra.Command {
	return a.command(spec{
		use: "delete", args: []arg{shareArg}, short: "Delete a share and its data",
		long:  "Delete a share and its data. Refused while it has snapshots. On a terminal it asks first.",
		takes: prints | inProject | mutates | waits | destroys,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindShare, args[0])
			ref := string(cairn.KindShare) + "/" + name
			if err := r.confirm(ctx, false, "%s and its data will be deleted", ref); err != nil {
				return err
			}
			answer, err := r.DeleteShare(ctx, &pb.DeleteShareRequest{Mutation: r.mutation(), Share: name})
			if err != nil {
				return err
			}
			if !r.would("delete %s and its data", ref) {
				if err := r.awaitGone(ctx, ref, answer.GetId(), answer.GetEvent()); err != nil {
					return err
				}
			}
			return r.print(sentence(ref, ref+" "+r.done("deleted", "is being deleted"), answer))
		},
	})
}

// done is how a command that removes something reports: past tense only when it has been waited for.
func (r *request) done(waited, decided string) string {
	switch {
	case r.flags.change.dryRun:
		return "unchanged (dry run)"
	case r.flags.change.wait:
		return waited
	}
	return decided
}
