package cluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
	"github.com/cairn-storage/cairn/fsm"
)

func join(t *testing.T, dir, token string) (*cluster.Identity, error) {
	t.Helper()
	return cluster.Join(t.Context(), cluster.JoinConfig{DataDir: dir, Token: token, Hosts: []string{"127.0.0.1"}})
}

// edit changes a part of a token.
func edit(t *testing.T, text string, change func(*cluster.Token)) string {
	t.Helper()
	token, err := cluster.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	change(&token)
	if text, err = token.Encode(); err != nil {
		t.Fatal(err)
	}
	return text
}

// TestJoinRefusals: each is one clear line, and leaves a directory that belongs to nobody.
func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 1)
	other := clustertest.Start(t, 1)
	good := c.Token("n2")
	used := c.Token("n3")
	if _, err := join(t, t.TempDir(), used); err != nil {
		t.Fatal(err)
	}
	past := clustertest.Meta()
	past.At -= int64(2 * time.Hour)
	expired, _, err := c.Leader().CreateToken(t.Context(), past, "n4", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now
	for _, test := range []struct {
		name  string
		token string
		now   func() time.Time
		want  error
		text  string
	}{
		{"not a token", "hello", now, cairn.ErrInvalid, "paste the whole line"},
		{"half a token", good[:len(good)/2], now, cairn.ErrInvalid, "paste the whole line"},
		{"of another machine", used, now, cairn.ErrPrecondition, "was used by another machine; a token works once"},
		{"expired", expired, now, cairn.ErrPrecondition, "has expired; make a new one"},
		{"wrong secret", edit(t, good, func(token *cluster.Token) { token.Secret[0]++ }), now, cairn.ErrDenied, "wrong secret"},
		{"unknown", edit(t, good, func(token *cluster.Token) { token.ID = "x" }), now, cairn.ErrNotFound, "is not known"},
		{"pin of another cluster", edit(t, good, func(token *cluster.Token) {
			token.Fingerprint = other.Nodes[0].Identity().Cluster.CAFingerprint
		}), now, cairn.ErrUnauthenticated, "another fingerprint"},
		{"address of another cluster", edit(t, good, func(token *cluster.Token) {
			token.Addresses = []string{other.Nodes[0].Address}
		}), now, cairn.ErrUnauthenticated, "another fingerprint"},
		{"nobody there", edit(t, good, func(token *cluster.Token) { token.Addresses = []string{"127.0.0.1:1"} }), now, nil, "connection refused"},
		{"clock ahead", good, func() time.Time { return now().Add(5 * time.Minute) }, cairn.ErrPrecondition, "clock: is 5m0s ahead of that of the leader n1"},
		{"clock behind", good, func() time.Time { return now().Add(-61 * time.Second) }, cairn.ErrPrecondition, "behind that of the leader n1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := cluster.Join(t.Context(), cluster.JoinConfig{DataDir: dir, Token: test.token, Now: test.now})
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("message %q, want one line with %q", err, test.text)
			}
			if _, err := cluster.LoadIdentity(dir); !errors.Is(err, cairn.ErrNotFound) {
				t.Errorf("the directory has an identity: %v", err)
			}
		})
	}
	// None of it has spent the good token.
	if id, err := join(t, t.TempDir(), good); err != nil || id.Name != "n2" {
		t.Errorf("good token: %v", err)
	}
}

// TestNobodyJoinsBeforeTheFounder: the rows of nodes say who is a member. If the first one were another's, the node that made the
// cluster would count as removed, and never come back.
func TestNobodyJoinsBeforeTheFounder(t *testing.T) {
	t.Parallel()
	c, dir := clustertest.New(t), t.TempDir()
	if _, err := cluster.Init(cluster.InitConfig{DataDir: dir, NodeName: "n1", ClusterName: "test", Hosts: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	c.Nodes = append(c.Nodes, &clustertest.Server{Name: "n1", DataDir: dir})
	t.Cleanup(func() { c.Kill(0) })
	c.Open(0)
	if _, _, err := c.Leader().CreateToken(t.Context(), clustertest.Meta(), "n2", 0); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("a token before the leader has announced itself: %v, want %v", err, cairn.ErrUnavailable)
	}
	c.Announce(0)
	if _, err := join(t, t.TempDir(), c.Token("n2")); err != nil {
		t.Error(err)
	}
}

// TestTwoRacers: of machines that join at the same time with one token exactly one wins.
func TestTwoRacers(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	token := c.Token("n4")
	const racers = 6
	results := make(chan error, racers)
	for range racers {
		dir := t.TempDir()
		go func() {
			_, err := cluster.Join(t.Context(), cluster.JoinConfig{DataDir: dir, Token: token})
			results <- err
		}()
	}
	won := 0
	for range racers {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, cairn.ErrPrecondition):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d machines have joined, want 1", won)
	}
}

// TestJoinAgainAfterACrash loses the answer: the cluster has spent the token, the machine has what was on its disk before it
// asked. The next attempt with the same directory becomes the same node.
func TestJoinAgainAfterACrash(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 1)
	token, dir, before := c.Token("n2"), t.TempDir(), filepath.Join(t.TempDir(), "before")
	first, err := cluster.Join(t.Context(), cluster.JoinConfig{DataDir: dir, Token: token, Now: func() time.Time {
		if err := os.CopyFS(before, os.DirFS(dir)); err != nil { // the clock is read when the request is made
			t.Error(err)
		}
		return time.Now()
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.LoadIdentity(before); !errors.Is(err, cairn.ErrNotFound) {
		t.Fatalf("half an identity is one: %v", err)
	}
	second, err := join(t, before, token)
	if err != nil || first.Node != second.Node {
		t.Fatalf("the same machine: %v", err)
	}
	if _, err := join(t, t.TempDir(), token); !errors.Is(err, cairn.ErrPrecondition) {
		t.Errorf("another machine: %v", err)
	}
	if _, err := join(t, dir, token); !errors.Is(err, cairn.ErrExists) || !strings.Contains(err.Error(), "belongs to node n2 of cluster test already") {
		t.Errorf("a third time: %v", err)
	}
	if _, err := cluster.Init(cluster.InitConfig{DataDir: dir, NodeName: "n1", ClusterName: "other"}); !errors.Is(err, cairn.ErrExists) {
		t.Errorf("another cluster in the same directory: %v", err)
	}
}

// TestJoinThroughAFollower: any member answers, with all that the cluster has decided for good.
func TestJoinThroughAFollower(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	for i, s := range c.Nodes {
		if !s.IsLeader() {
			token := edit(t, c.Token("x"+s.Name), func(token *cluster.Token) { token.Addresses = []string{c.Nodes[i].Address} })
			if id, err := join(t, t.TempDir(), token); err != nil || id.Patience != clustertest.Patience {
				t.Errorf("through %s: %+v, %v", s.Name, id, err)
			}
		}
	}
}

// TestTokenAgain: a request that is repeated with its idempotency token shows the same join token. If that has been deleted, it says
// that it was carried out all the same: "not found" alone is what nothing was done for.
func TestTokenAgain(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 1)
	meta := clustertest.Meta()
	meta.Token = "00000000-0000-4000-8000-000000000001"
	first, node, err := c.Leader().CreateToken(t.Context(), meta, "n2", 0)
	if err != nil {
		t.Fatal(err)
	}
	second, again, err := c.Leader().CreateToken(t.Context(), meta, "n2", 0)
	if err != nil || first != second || node != again {
		t.Errorf("the second answer differs: %v", err)
	}
	if _, _, err := c.Leader().CreateToken(t.Context(), clustertest.Meta(), "n9", 25*time.Hour); !errors.Is(err, cairn.ErrInvalid) {
		t.Errorf("25 hours: %v", err)
	}
	if _, err := join(t, t.TempDir(), second); err != nil {
		t.Error(err)
	}
	for row := range c.Leader().View().Tokens() {
		if _, err := c.Leader().Apply(t.Context(), clustertest.Meta(), &fsm.DeleteJoinToken{ID: row.ID}); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = c.Leader().CreateToken(t.Context(), meta, "n2", 0)
	if !errors.Is(err, cairn.ErrNotFound) || !strings.Contains(err.Error(), "the request was carried out") {
		t.Errorf("again, when the token is deleted: %v", err)
	}
}

// TestForeignClockCannotAnnounce: a node whose clock went wrong while it was away is not taken back.
func TestForeignClockCannotAnnounce(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	away := 0
	if c.Nodes[away].IsLeader() {
		away = 1
	}
	c.Kill(away)
	c.Configure = func(_ int, config *cluster.Config) {
		config.Now = func() time.Time { return time.Now().Add(-2 * time.Minute) }
	}
	c.Open(away)
	err := c.Nodes[away].Node.Announce(t.Context(), cairn.Node{}, nil)
	if !errors.Is(err, cairn.ErrPrecondition) || !strings.Contains(err.Error(), "clock: is 2m0s behind") {
		t.Errorf("got %v", err)
	}
}
