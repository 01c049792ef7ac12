package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// eventView has least widths, since the lines of a stream are written before it is known what follows.
var eventView = view[*pb.Event]{
	ref: func(e *pb.Event) string { return "event/" + number(e.GetSeq()) },
	columns: []Column[*pb.Event]{
		{Header: "SEQ", Min: 6, Cell: func(_ format, e *pb.Event) string { return number(e.GetSeq()) }},
		{Header: "TIME", Min: 20, Cell: func(f format, e *pb.Event) string { return f.clock(e.GetAt()) }},
		{Header: "KIND", Min: 18, Cell: func(_ format, e *pb.Event) string { return e.GetKind() }},
		{Header: "RESOURCE", Min: 24, Cell: func(_ format, e *pb.Event) string { return e.GetResource() }},
		{Header: "INDEX", Wide: true, Min: 8, Cell: func(_ format, e *pb.Event) string { return number(e.GetIndex()) }},
		{Header: "PROJECT", Wide: true, Min: 10, Cell: func(_ format, e *pb.Event) string { return e.GetProject() }},
		{Header: "ID", Wide: true, Min: 36, Cell: func(_ format, e *pb.Event) string { return e.GetId() }},
		{Header: "MESSAGE", Cell: func(_ format, e *pb.Event) string { return oneLine(e.GetMessage()) }},
	},
}

func (a *App) events() *cobra.Command {
	var follow bool
	var since string
	var after uint64
	cmd := a.command(spec{
		use: "events", short: "Show what happened",
		long: `Show what happened, oldest first. Events are numbered without gaps (SEQ), the same on every node.

With --follow new ones are printed as they happen, each once, until the command is interrupted; a broken connection is resumed
where it broke. With -o json every event is one line. --project '*' also shows what happened to nodes and pools.`,
		example: `
cairn events --since 10m
cairn events --follow --since 0s -o json
cairn events --after 1234`,
		takes: prints | inProject | reads | endless,
		run: func(ctx context.Context, r *request, _ []string) error {
			from, err := parseSince(since, r.Now())
			if err != nil {
				return err
			}
			log := &eventLog{request: r, next: after}
			err = log.list(ctx, from)
			switch {
			case follow && ctx.Err() != nil:
				return nil // as long as it was wanted
			case err != nil:
				return err
			case follow:
				return log.follow(ctx)
			}
			return log.end()
		},
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with events as they happen")
	cmd.Flags().StringVar(&since, "since", "", "only events since this `TIME`: 10m for ten minutes ago, or RFC 3339")
	cmd.Flags().Uint64Var(&after, "after", 0, "only events after this `SEQ`")
	return cmd
}

// parseSince turns "10m" or an RFC 3339 time into an RFC 3339 time.
func parseSince(text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d).UTC().Format(time.RFC3339Nano), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "", usagef("--since %q: want a duration such as 10m, or a time such as 2006-01-02T15:04:05Z", text)
	}
	return t.UTC().Format(time.RFC3339Nano), nil
}

// eventLog prints events in order, each once.
type eventLog struct {
	*request
	next  uint64 // events up to here have been considered
	begun bool   // something has been printed
}

// list prints what there is, page by page.
func (l *eventLog) list(ctx context.Context, since string) error {
	for {
		page, err := l.ListEvents(ctx, &pb.ListEventsRequest{After: l.next, Read: l.read(), Since: since})
		if err != nil {
			return err
		}
		events := page.GetEvents()
		if err := l.show(events...); err != nil {
			return err
		}
		if len(events) == 0 || l.next >= page.GetNewest() {
			l.next = max(l.next, page.GetNewest())
			return nil
		}
	}
}

// end says on stderr that there was nothing.
func (l *eventLog) end() error {
	if l.begun || l.flags.output.style == "json" {
		return nil
	}
	return l.print(eventView.list(nil, l.ofProject("no events")))
}

// show prints the events that have not been printed yet.
func (l *eventLog) show(events ...*pb.Event) error {
	var fresh []*pb.Event
	for _, event := range events {
		if event.GetSeq() > l.next {
			l.next = event.GetSeq()
			fresh = append(fresh, event)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	l.begun = true
	if l.flags.output.style == "json" {
		return l.showLines(fresh)
	}
	err := l.print(eventView.list(fresh, ""))
	l.flags.output.noHeaders = true // the header stands at the top only
	return err
}

// showLines prints one JSON object per line.
func (l *eventLog) showLines(events []*pb.Event) error {
	for _, event := range events {
		line, err := compact(event)
		if err != nil {
			return err
		}
		if _, err := l.Stdout.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}
