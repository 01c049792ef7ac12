package scenarios

import (
	"reflect"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/traffic"
)

// TestTakeovers: what a failover leaves behind is of the epoch that acknowledged it, also when that epoch began with a promotion that the
// failover cut short, of which there is no event.
func TestTakeovers(t *testing.T) {
	event := func(at time.Duration, kind, resource, message string) model.Event {
		return model.Event{At: at * time.Second, Kind: kind, Resource: resource, Project: "chaos-1-data", Message: message}
	}
	ack := func(epoch uint64, at time.Duration) model.Ack {
		return model.Ack{Share: "share-0", Epoch: epoch, Call: at * time.Second, Return: at * time.Second}
	}
	events := []model.Event{
		event(2, "share.promoted", "share/share-0", "share share-0 is served by node n2"),
		event(5, "node.down", "node/n1", ""),
		event(6, "share.failover", "share/share-0", "share share-0: node n2 takes over from node n1; up to 3s of writes stay behind and are kept there"),
		event(9, "share.promoted", "share/other", "share other is served by node n2"),
	}
	acks := []model.Ack{ack(1, 1), ack(2, 3), ack(3, 4), ack(4, 7)}
	got := takeovers([]model.Stream{{Events: events}}, []*traffic.Share{{Name: "share-0"}}, acks)
	want := []model.Takeover{
		{Share: "share-0", From: 1, Planned: true, At: 2 * time.Second},
		{Share: "share-0", From: 3, LeftBehind: 3 * time.Second, At: 5 * time.Second},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}
