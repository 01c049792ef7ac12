package replication

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/cairn-storage/cairn"
)

func TestHintsMerge(t *testing.T) {
	var hints Hints
	hints.Publish("n2", "lost") // nobody listens
	watch := hints.subscribe("n2")
	for range 3 {
		for i := range 2*hintsPerMessage + 1 {
			hints.Publish("n2", cairn.ReplicaID(fmt.Sprintf("%04d", i)))
		}
	}
	hints.Publish("n3", "other")
	<-watch.signal
	var sizes []int
	var got []string
	for message := range watch.take() {
		sizes, got = append(sizes, len(message)), append(got, message...)
	}
	if !slices.Equal(sizes, []int{hintsPerMessage, hintsPerMessage, 1}) || !slices.IsSorted(got) || slices.Contains(got, "lost") {
		t.Errorf("messages of %d", sizes)
	}
	for range watch.take() {
		t.Error("what was taken is there again")
	}
	newer := hints.subscribe("n2")
	<-watch.replaced
	hints.leave("n2", watch) // late, and no affair of the newer one's
	hints.Publish("n2", "again")
	<-newer.signal
	hints.leave("n2", newer)
	if len(hints.watches) != 0 {
		t.Error("a listener stays behind")
	}
}

// watching runs a node's watcher and returns what it wakes.
func (l *lab) watching(self cairn.NodeID, hosts map[cairn.NodeID]*host) <-chan cairn.ReplicaID {
	woken := make(chan cairn.ReplicaID, 100)
	watcher := &Watcher{Self: self, State: l.machine, Conn: l.dialer(self, hosts), Wake: func(id cairn.ReplicaID) { woken <- id }}
	ctx, cancel := context.WithCancel(context.Background())
	l.background(func() { watcher.Run(ctx) }, cancel)
	return woken
}

func TestWatch(t *testing.T) {
	l := newLab(t)
	first, third := l.serve("n1", source{}), l.serve("n3", source{})
	woken := l.watching("n2", map[cairn.NodeID]*host{"n1": first, "n3": third})
	// Every standby is woken when its source begins to tell.
	both := []cairn.ReplicaID{await(t, "a standby is woken", woken), await(t, "the other is woken", woken)}
	if slices.Sort(both); !slices.Equal(both, []cairn.ReplicaID{"s1-n2", "s2-n2"}) {
		t.Errorf("woken: %s", both)
	}
	// Hints arrive; what is not of this node is left alone.
	first.hints.Publish("n2", "s1-n3")
	first.hints.Publish("n2", "unknown")
	first.hints.Publish("n3", "s1-n3")
	first.hints.Publish("n2", "s1-n2")
	if id := await(t, "a hint", woken); id != "s1-n2" {
		t.Errorf("woken: %s", id)
	}
	third.hints.Publish("n2", "s2-n2")
	if id := await(t, "a hint of the other node", woken); id != "s2-n2" {
		t.Errorf("woken: %s", id)
	}
	// A new share whose active replica is on a node that is watched already.
	l.share("s3", "n1", "n2")
	first.hints.Publish("n2", "s3-n2")
	if id := await(t, "a hint for the new share", woken); id != "s3-n2" {
		t.Errorf("woken: %s", id)
	}
}

// TestWatchGoesOn: when a node comes back, everything that depends on it looks once, and hints arrive again.
func TestWatchGoesOn(t *testing.T) {
	l := newLab(t)
	first := l.serve("n1", source{})
	woken := l.watching("n2", map[cairn.NodeID]*host{"n1": first, "n3": l.serve("n3", source{})})
	await(t, "a standby is woken", woken)
	await(t, "the other is woken", woken)
	first.Close()
	first.grpc.GracefulStop() // would wait for the watch
	listener, err := net.Listen("tcp", first.address)
	must(t, err)
	again := l.serveOn(listener, "n1", source{}, ServerConfig{})
	if id := await(t, "the standby looks", woken); id != "s1-n2" {
		t.Errorf("woken: %s", id)
	}
	again.hints.Publish("n2", "s1-n2")
	if id := await(t, "a hint", woken); id != "s1-n2" {
		t.Errorf("woken: %s", id)
	}
}

// TestWatchFollowsRoles: a node whose first standby appears begins to listen.
func TestWatchFollowsRoles(t *testing.T) {
	l := newLab(t)
	second := l.serve("n2", source{})
	woken := l.watching("n4", map[cairn.NodeID]*host{"n2": second})
	l.register("n4")
	l.share("s5", "n2", "n4")
	if id := await(t, "the new standby is woken", woken); id != "s5-n4" {
		t.Errorf("woken: %s", id)
	}
}
