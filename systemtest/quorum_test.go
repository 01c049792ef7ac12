package systemtest

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// TestNoQuorum: with one of three servers left nothing can be changed, and whoever tries learns so soon. What the server
// knows can still be read on request, and the share that it hosts is served.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	docs := c.makeShare("docs", "1GiB")
	c.put(docs, "file", []byte("before"))
	before := c.agree()
	left := c.host(docs)
	var dead []*local.Server
	for _, s := range c.Servers() {
		if s != left {
			c.check(s.Kill())
			dead = append(dead, s)
		}
	}
	c.await(10*time.Second, "the end of the last leader's term", func(ctx context.Context) (bool, error) {
		status, err := c.Status(ctx, left)
		return status.GetLeader() == "", err
	})
	for _, args := range [][]string{
		{"share", "create", "x", "--size", "1GiB"},
		{"share", "delete", "docs", "--yes"},
		{"access", "allow", "docs", "ip", "10.0.0.0/8", "ro"},
		{"node", "token", "create", "--name", "n9"},
		{"share", "list"},
	} {
		o := c.cli(args...)
		o.refused(t, exitUnavailable, "leader")
		if o.took > 5*time.Second {
			t.Errorf("%s: took %s, want less than 5 s", o.command, o.took)
		}
	}
	stale := c.cli("share", "show", "docs", "--stale", "-o", "json")
	var shown cairnv1.Share
	if err := protojson.Unmarshal([]byte(stale.stdout), &shown); stale.code != 0 || err != nil || shown.GetId() != docs.GetId() {
		t.Errorf("%s: exit %d: %s (%v)", stale.command, stale.code, stale.stderr, err)
	}
	if status := c.cli("cluster", "status"); status.code != 0 || !strings.Contains(status.stdout, "none") {
		t.Errorf("%s: exit %d: %s%s", status.command, status.code, status.stdout, status.stderr)
	}
	c.put(docs, "file", []byte("during"))
	if got := c.get(docs, "file"); string(got) != "during" {
		t.Errorf("the share reads %q, want what was written without a quorum", got)
	}
	c.check(dead[0].Start())
	c.await(30*time.Second, "a write with a quorum again", func(ctx context.Context) (bool, error) {
		err := c.touch(ctx, "docs", 1)
		return err == nil, err
	})
	if after := c.agree(); after.Index <= before.Index {
		t.Errorf("entry %d, want more than %d", after.Index, before.Index)
	}
	if o := c.cli("share", "show", "x"); o.code != exitNotFound {
		t.Errorf("the share that was refused without a quorum: exit %d, want %d: %s", o.code, exitNotFound, o.stderr)
	}
}

// TestLeaderStopped: a leader that stands still for a while loses its office; when it goes on it must not answer a read with
// what it remembers.
func TestLeaderStopped(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	c.must(nil, "share", "create", "docs", "--size", "1GiB")
	c.check(c.touch(t.Context(), "docs", 0))
	old := c.leader()
	c.check(old.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = old.Signal(syscall.SIGCONT) })
	others := make([]*local.Server, 0, 2)
	for _, s := range c.Servers() {
		if s != old {
			others = append(others, s)
		}
	}
	stopped := time.Now()
	c.await(10*time.Second, "a write while the leader stands still", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := c.touchAt(ctx, others[0], "docs", 1)
		return err == nil, err
	})
	t.Logf("first committed write %s after SIGSTOP of %s", time.Since(stopped), old.Name)
	c.check(old.Signal(syscall.SIGCONT))
	for n := 1; n < 200; n++ { // reads race with the old leader's discovery that it is none any more
		c.readsNoLess(old, n)
		c.check(c.touchAt(t.Context(), others[n%2], "docs", n+1))
	}
	c.agree()
}

// readsNoLess reads through a server until it answers; what it answers must include change n.
func (c *cluster) readsNoLess(s *local.Server, n int) {
	c.t.Helper()
	c.await(10*time.Second, "a read through "+s.Name, func(ctx context.Context) (bool, error) {
		got, err := c.touched(ctx, s, "docs")
		if err == nil && got < n {
			return false, local.Fatal(fmt.Errorf("stale read: %s answers with change %d after change %d was committed", s.Name, got, n))
		}
		return err == nil, err
	})
}
