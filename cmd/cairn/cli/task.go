package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// taskView shows tasks of shares whose names are known; other shares are shown by ID.
func taskView(names map[string]string) view[*pb.Task] {
	return view[*pb.Task]{
		ref: taskRef,
		columns: []Column[*pb.Task]{
			{Header: "SHARE", Cell: func(_ format, t *pb.Task) string {
				if name := names[t.GetShare()]; name != "" {
					return name
				}
				return t.GetShare()
			}},
			{Header: "KIND", Cell: func(_ format, t *pb.Task) string { return t.GetKind() }},
			{Header: "STATE", Cell: func(_ format, t *pb.Task) string { return health(t.GetState(), t.GetFault()) }},
			{Header: "SIZE", Cell: func(f format, t *pb.Task) string {
				if t.GetSize() == 0 {
					return ""
				}
				return f.size(t.GetSize())
			}},
			{Header: "STARTED", Cell: func(f format, t *pb.Task) string { return f.age(t.GetStartedAt()) }},
			{Header: "TOOK", Cell: func(f format, t *pb.Task) string { return f.took(t.GetStartedAt(), t.GetEndedAt()) }},
			{Header: "SNAPSHOT", Wide: true, Cell: func(_ format, t *pb.Task) string { return t.GetSnapshot() }},
			{Header: "FAULT", Wide: true, Cell: func(_ format, t *pb.Task) string { return fault(t.GetFault()) }},
			{Header: "ID", Wide: true, Cell: func(_ format, t *pb.Task) string { return t.GetId() }},
		},
	}
}

func taskRef(t *pb.Task) string { return string(cairn.KindTask) + "/" + t.GetId() }

// taskWords is a task in a cell of another table.
func taskWords(t *pb.Task) string {
	if t == nil {
		return ""
	}
	return health(t.GetKind()+" "+t.GetState(), t.GetFault())
}

// took is how long something took, "" while it goes on.
func (f format) took(from, to string) string {
	start, err := time.Parse(time.RFC3339, from)
	if err != nil {
		return ""
	}
	end, err := time.Parse(time.RFC3339, to)
	if err != nil {
		return ""
	}
	if f.exact {
		return end.Sub(start).String()
	}
	return end.Sub(start).Round(100 * time.Millisecond).String()
}

func (a *App) task() *cobra.Command {
	return a.group("task", "Operations on shares", a.taskList(), a.taskShow(), a.taskCancel())
}

func (a *App) taskList() *cobra.Command {
	var running bool
	cmd := a.command(spec{
		use: "list", short: "List the newest task of each share, running ones first", takes: prints | inProject | reads,
		run: func(ctx context.Context, r *request, _ []string) error {
			tasks, err := r.tasks(ctx, &pb.ListTasksRequest{Running: running, Read: r.read()})
			if err != nil {
				return err
			}
			shares, err := r.shares(ctx)
			if err != nil {
				return err
			}
			names := map[string]string{}
			for _, share := range shares {
				names[share.GetId()] = share.GetName()
			}
			return r.print(taskView(names).list(tasks, r.ofProject("no tasks")))
		},
	})
	cmd.Flags().BoolVar(&running, "running", false, "only those that are running")
	return cmd
}

// tasks are the tasks of all pages.
func (r *request) tasks(ctx context.Context, in *pb.ListTasksRequest) ([]*pb.Task, error) {
	var all []*pb.Task
	for {
		page, err := r.ListTasks(ctx, in)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetTasks()...)
		if in.PageToken = page.GetNextPageToken(); in.PageToken == "" {
			return all, nil
		}
	}
}

func (a *App) taskShow() *cobra.Command {
	return a.command(spec{
		use: "show", args: []arg{shareArg}, short: "Show the newest task of a share", takes: prints | inProject | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindShare, args[0])
			answer, err := r.GetTask(ctx, &pb.GetTaskRequest{Share: name, Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(taskView(map[string]string{answer.GetTask().GetShare(): name}).detail(answer.GetTask()))
		},
	})
}

func (a *App) taskCancel() *cobra.Command {
	return a.command(spec{
		use: "cancel", args: []arg{shareArg}, short: "Give up the running task of a share",
		long:  "Give up the running task of a share: extend, shrink and manage can be given up without loss. A revert cannot.",
		takes: prints | inProject | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindShare, args[0])
			answer, err := r.CancelTask(ctx, &pb.CancelTaskRequest{Mutation: r.mutation(), Share: name})
			if err != nil {
				return err
			}
			r.would("cancel the %s of share/%s", answer.GetTask().GetKind(), name)
			return r.print(taskView(map[string]string{answer.GetTask().GetShare(): name}).row(answer.GetTask()))
		},
	})
}
