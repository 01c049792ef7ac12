package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// completer returns what can stand where the cursor is; args are those before it. It asks the cluster for names.
type completer func(ctx context.Context, r *request, args []string) ([]string, error)

// completionTimeout bounds a press of the tab key.
const completionTimeout = 2 * time.Second

// completeArgs completes the arguments of a command.
func (a *App) completeArgs(want []arg) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(want) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		at := min(len(args), len(want)-1)
		if len(args) > at && !want[at].repeats() {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.names(cmd, want[at].complete, args, typed), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes the value of a flag.
func (a *App) completeFlag(complete completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.names(cmd, complete, args, typed), cobra.ShellCompDirectiveNoFileComp
	}
}

// names asks the cluster, with reads that need no quorum. A cluster that does not answer has nothing to offer: an error
// would end up in the middle of what is being typed.
func (a *App) names(cmd *cobra.Command, complete completer, args []string, typed string) []cobra.Completion {
	if complete == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	r, err := a.connect(&flags{config: typedFlag(cmd, "config"), project: typedFlag(cmd, "project"), stale: true})
	if err != nil {
		return nil
	}
	all, err := complete(ctx, r, args)
	if errorOf(err, r.close()) != nil {
		return nil
	}
	var fitting []cobra.Completion
	for _, name := range all {
		if strings.HasPrefix(name, typed) {
			fitting = append(fitting, name)
		}
	}
	return fitting
}

// typedFlag is what has been typed for a flag, "" if the command does not take it.
func typedFlag(cmd *cobra.Command, name string) string {
	if flag := cmd.Flags().Lookup(name); flag != nil {
		return flag.Value.String()
	}
	return ""
}

// oneOf completes from a fixed set.
func oneOf(names ...string) completer {
	return func(context.Context, *request, []string) ([]string, error) { return names, nil }
}

// collect maps items to names.
func collect[T any](items []T, name func(T) string) []string {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = name(item)
	}
	return names
}

func completeShares(ctx context.Context, r *request, _ []string) ([]string, error) {
	shares, err := r.shares(ctx)
	return collect(shares, (*pb.Share).GetName), err
}

// completeSnapshots completes the snapshots of the share that stands before.
func completeSnapshots(ctx context.Context, r *request, args []string) ([]string, error) {
	request := &pb.ListSnapshotsRequest{Read: r.read()}
	if len(args) > 0 {
		request.Share = bare(cairn.KindShare, args[0])
	}
	snapshots, err := r.snapshots(ctx, request)
	return collect(snapshots, (*pb.Snapshot).GetName), err
}

// completeSnapshotPaths completes SHARE/SNAPSHOT.
func completeSnapshotPaths(ctx context.Context, r *request, _ []string) ([]string, error) {
	snapshots, err := r.snapshots(ctx, &pb.ListSnapshotsRequest{Read: r.read()})
	return collect(snapshots, snapshotPath), err
}

func completeNodes(ctx context.Context, r *request, _ []string) ([]string, error) {
	answer, err := r.ListNodes(ctx, &pb.ListNodesRequest{Read: r.read()})
	return collect(answer.GetNodes(), (*pb.Node).GetName), err
}

func completeZones(ctx context.Context, r *request, _ []string) ([]string, error) {
	answer, err := r.ListNodes(ctx, &pb.ListNodesRequest{Read: r.read()})
	return collect(answer.GetNodes(), (*pb.Node).GetZone), err
}

func completePools(ctx context.Context, r *request, _ []string) ([]string, error) {
	answer, err := r.ListPools(ctx, &pb.ListPoolsRequest{Read: r.read()})
	return collect(answer.GetPools(), (*pb.Pool).GetName), err
}

func completeTypes(ctx context.Context, r *request, _ []string) ([]string, error) {
	answer, err := r.ListTypes(ctx, &pb.ListTypesRequest{Read: r.read()})
	return collect(answer.GetTypes(), (*pb.ShareType).GetName), err
}

func completeUsers(ctx context.Context, r *request, _ []string) ([]string, error) {
	answer, err := r.ListUsers(ctx, &pb.ListUsersRequest{Read: r.read()})
	return collect(answer.GetUsers(), (*pb.User).GetName), err
}

func completeTokens(ctx context.Context, r *request, _ []string) ([]string, error) {
	answer, err := r.ListNodeTokens(ctx, &pb.ListNodeTokensRequest{Read: r.read()})
	return collect(answer.GetTokens(), (*pb.NodeToken).GetId), err
}

func completeProjects(ctx context.Context, r *request, _ []string) ([]string, error) {
	answer, err := r.ListQuotas(ctx, &pb.ListQuotasRequest{Read: r.read()})
	return collect(answer.GetQuotas(), (*pb.Quota).GetProject), err
}

// completeResources completes kind/name, for cairn why.
func completeResources(ctx context.Context, r *request, args []string) ([]string, error) {
	var all []string
	for _, kind := range []struct {
		kind     cairn.Kind
		complete completer
	}{
		{cairn.KindShare, completeShares}, {cairn.KindSnapshot, completeSnapshotPaths},
		{cairn.KindNode, completeNodes}, {cairn.KindPool, completePools},
	} {
		names, err := kind.complete(ctx, r, args)
		if err != nil {
			continue // such as nodes, which a member of a project may not see
		}
		for _, name := range names {
			all = append(all, string(kind.kind)+"/"+name)
		}
	}
	return all, nil
}
