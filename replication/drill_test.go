package replication

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
)

type drillerFunc func(context.Context, cairn.ReplicaID) (replica.Drill, error)

func (f drillerFunc) Drill(ctx context.Context, id cairn.ReplicaID) (replica.Drill, error) {
	return f(ctx, id)
}

// TestDrillGoesThereAndBack: what a drill and a reading have shown is the same at the other end, and so are their errors.
func TestDrillGoesThereAndBack(t *testing.T) {
	l := newLab(t)
	want := replica.Drill{
		Standby: "s1-n2", Snapshot: "snap", Cloned: time.Millisecond, Exported: 2 * time.Millisecond, Answered: 3 * time.Millisecond,
		Lag: 4 * time.Second, Behind: 5, Content: replica.Content{SHA256: [32]byte{1, 2}, Files: 6, Bytes: 7}, Source: replica.Content{SHA256: [32]byte{8}},
	}
	fail := error(nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h := l.serveOn(listener, "n2", source{read: func(_ context.Context, id cairn.ReplicaID, snap cairn.SnapshotID) (replica.Content, error) {
		if id != "s1-n1" || snap != "snap" {
			t.Errorf("asked for %s of %s", snap, id)
		}
		return want.Content, fail
	}}, ServerConfig{Driller: drillerFunc(func(_ context.Context, id cairn.ReplicaID) (replica.Drill, error) {
		if id != want.Standby {
			t.Errorf("asked for %s", id)
		}
		return want, fail
	})})
	client := l.client("n1", "n2", h)
	got, err := client.Drill(t.Context(), "n2", "s1-n2")
	if must(t, err); got != want {
		t.Errorf("%+v", got)
	}
	content, err := client.Content(t.Context(), "n2", "s1-n1", "snap")
	if must(t, err); content != want.Content {
		t.Errorf("%+v", content)
	}
	want.Lag = -1 // not known
	if got, err = client.Drill(t.Context(), "n2", "s1-n2"); err != nil || got.Lag >= 0 {
		t.Errorf("%+v, %v", got, err)
	}
	fail = cairn.ErrBusy
	if _, err := client.Drill(t.Context(), "n2", "s1-n2"); !errors.Is(err, cairn.ErrBusy) {
		t.Errorf("%v", err)
	}
	if _, err := client.Content(t.Context(), "n2", "s1-n1", "snap"); !errors.Is(err, cairn.ErrBusy) {
		t.Errorf("%v", err)
	}
	stranger := l.client("n4", "n2", h)
	if _, err := stranger.Drill(t.Context(), "n2", "s1-n2"); !errors.Is(err, cairn.ErrDenied) {
		t.Errorf("a node without a row: %v", err)
	}
}
