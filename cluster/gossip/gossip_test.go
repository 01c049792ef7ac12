package gossip_test

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/gossip"
)

func open(t *testing.T, id cairn.NodeID, key byte, label string) *gossip.Gossip {
	t.Helper()
	g, err := gossip.Open(gossip.Config{
		Bind: "127.0.0.1:0", Key: bytes.Repeat([]byte{key}, 32), Label: label,
		Self: gossip.Member{ID: id, Address: string(id) + ":7400"}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// within waits until the condition holds.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func TestMembersLearnOfEachOther(t *testing.T) {
	first, second, third := open(t, "n1", 1, "c"), open(t, "n2", 1, "c"), open(t, "n3", 1, "c")
	for _, g := range []*gossip.Gossip{second, third} {
		if err := g.Join(first.Address()); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 10*time.Second, "the second knows the third", func() bool { _, ok := second.Find("n3"); return ok })
	if m, _ := second.Find("n3"); m.Address != "n3:7400" {
		t.Errorf("address %q", m.Address)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
	within(t, 10*time.Second, "the second knows that the third left", func() bool { _, ok := second.Find("n3"); return !ok })
	for _, g := range []*gossip.Gossip{first, second} {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStrangersAreNotListenedTo(t *testing.T) {
	member := open(t, "n1", 1, "c")
	for name, stranger := range map[string]*gossip.Gossip{
		"another key":     open(t, "n2", 2, "c"),
		"another cluster": open(t, "n3", 1, "other"),
	} {
		if err := stranger.Join(member.Address()); err == nil {
			t.Errorf("%s: joined", name)
		}
		if err := stranger.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(member.Members()); n != 1 {
		t.Errorf("%d members, want 1", n)
	}
	if err := member.Close(); err != nil {
		t.Error(err)
	}
}
