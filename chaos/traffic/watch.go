package traffic

import (
	"context"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// watcher follows all events, and resumes where it was whenever its stream ends.
type watcher struct {
	actor
	stream model.Stream
	seen   uint64
}

// run follows until the context ends.
func (w *watcher) run(ctx context.Context) {
	for w.rest(ctx) {
		w.follow(ctx, func() bool { return ctx.Err() == nil })
	}
}

// finish follows until everything has been seen that there is.
func (w *watcher) finish(ctx context.Context) error {
	for {
		answer, err := w.api.Events().ListEvents(ctx, &cairnv1.ListEventsRequest{Project: "*", After: w.seen, PageSize: 1})
		if err == nil {
			w.stream.Newest = answer.GetNewest()
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			w.follow(ctx, func() bool { return w.seen < w.stream.Newest })
			cancel()
			if w.seen >= w.stream.Newest {
				return nil
			}
		}
		if !w.rest(ctx) {
			return err
		}
	}
}

func (w *watcher) follow(ctx context.Context, goOn func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.api.Events().FollowEvents(ctx, &cairnv1.FollowEventsRequest{After: w.seen, Project: "*"})
	for err == nil && goOn() {
		var next *cairnv1.FollowEventsResponse
		if next, err = stream.Recv(); err == nil {
			w.note(next)
		}
	}
}

func (w *watcher) note(next *cairnv1.FollowEventsResponse) {
	if e := next.GetEvent(); e != nil {
		at, err := time.Parse(time.RFC3339Nano, e.GetAt())
		if err != nil {
			at = time.Time{} // shows in the report as a time that is absurd
		}
		w.stream.Events = append(w.stream.Events, model.Event{
			Seq: e.GetSeq(), Index: e.GetIndex(), At: w.On(at), Kind: e.GetKind(), Project: e.GetProject(), Resource: e.GetResource(), Message: e.GetMessage(),
		})
	}
	w.seen = max(w.seen, next.GetSeq())
}
