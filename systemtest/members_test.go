package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// touch changes metadata of a share: a small committed write. It tries the servers that run, one after the other.
func (c *cluster) touch(ctx context.Context, share string, n int) error {
	var last error
	for _, s := range c.Servers() {
		if !s.Running() {
			continue
		}
		if last = c.touchAt(ctx, s, share, n); last == nil {
			return nil
		}
	}
	return last
}

func (c *cluster) touchAt(ctx context.Context, s *local.Server, share string, n int) error {
	api, err := c.API(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err = api.Shares().UpdateShare(ctx, &cairnv1.UpdateShareRequest{Share: share, SetMetadata: map[string]string{"touched": strconv.Itoa(n)}})
	return err
}

// touched reads, linearizably through one server, what touch wrote last.
func (c *cluster) touched(ctx context.Context, s *local.Server, share string) (int, error) {
	api, err := c.API(s)
	if err != nil {
		return 0, err
	}
	answer, err := api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: share})
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(answer.GetShare().GetMetadata()["touched"])
}

// TestVotersAndOthers: of seven members five vote. A voter that is removed is replaced by one of the others; two dead voters
// of five stop nothing.
func TestVotersAndOthers(t *testing.T) {
	t.Parallel()
	c := start(t, 7)
	c.must(nil, "share", "create", "docs", "--size", "1GiB")
	status, err := c.Status(t.Context(), c.Servers()[0])
	c.check(err)
	others := 0
	for _, m := range status.GetMembers() {
		if m.GetRole() == "non-voter" {
			others++
		}
	}
	if voters := local.Voters(status); len(voters) != 5 || others != 2 {
		t.Fatalf("%d voters and %d non-voters, want 5 and 2: %v", len(voters), others, status.GetMembers())
	}
	for _, s := range c.Servers() { // any node answers, also one without a vote
		c.check(c.touchAt(t.Context(), s, "docs", 1))
	}
	victim := c.follower(c.without(nil, "docs"))
	c.must(nil, "node", "remove", victim.Name)
	c.await(20*time.Second, "end of the removed server", func(context.Context) (bool, error) { return !victim.Running(), nil })
	c.check(c.AwaitVoters(t.Context(), 5))
	for range 2 {
		c.check(c.voter(c.without(nil, "docs")).Kill())
	}
	c.await(20*time.Second, "a write with three of five voters", func(ctx context.Context) (bool, error) {
		err := c.touch(ctx, "docs", 2)
		return err == nil, err
	})
}

// without returns the running servers except one, and except the one that hosts the share.
func (c *cluster) without(s *local.Server, share string) []*local.Server {
	c.t.Helper()
	var show cairnv1.Share
	c.must(&show, "share", "show", share)
	return slices.DeleteFunc(c.Servers(), func(other *local.Server) bool {
		return other == s || !other.Running() || other.Name == show.GetReplicas()[0].GetNode()
	})
}

// follower is a voter among the servers that does not lead.
func (c *cluster) follower(among []*local.Server) *local.Server {
	c.t.Helper()
	leader := c.leader()
	return c.voter(slices.DeleteFunc(slices.Clone(among), func(s *local.Server) bool { return s == leader }))
}

// voter is one of the servers that votes.
func (c *cluster) voter(among []*local.Server) *local.Server {
	c.t.Helper()
	status, err := c.Status(c.t.Context(), c.leader())
	c.check(err)
	for _, s := range among {
		if slices.Contains(local.Voters(status), s.Name) {
			return s
		}
	}
	c.t.Fatalf("no voter among %d servers", len(among))
	return nil
}

// TestAllAtOnce: power is lost and comes back. Every committed change and every acknowledged file is there.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	docs := c.makeShare("docs", "1GiB")
	c.put(docs, "file", []byte("acknowledged"))
	c.must(nil, "snapshot", "create", "docs", "s")
	before := c.agree()
	for _, s := range c.Servers() {
		c.check(s.Kill())
	}
	for _, s := range c.Servers() {
		c.check(s.Start())
	}
	for _, s := range c.Servers() {
		c.check(c.AwaitUp(t.Context(), s))
	}
	c.await(30*time.Second, "the file", func(ctx context.Context) (bool, error) {
		content, err := read(ctx, docs.files, "file")
		if err == nil && string(content) != "acknowledged" {
			return false, local.Fatal(fmt.Errorf("the file holds %q", content))
		}
		return err == nil, err
	})
	if after := c.agree(); after.Index < before.Index {
		t.Errorf("entry %d after the restart, was at %d before", after.Index, before.Index)
	}
	c.must(nil, "snapshot", "delete", "docs", "s")
	c.must(nil, "share", "delete", "docs", "--yes")
	c.check(c.AwaitEmptyPools(t.Context()))
}

// TestLongAbsence: a node that was away while much happened has the same state soon after it is back. (That it also comes back
// from a snapshot, when the log behind it is gone, is tested in package cluster with a short log.)
func TestLongAbsence(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	c.must(nil, "share", "create", "docs", "--size", "1GiB")
	away := c.follower(c.without(nil, "docs"))
	c.check(away.Kill())
	const changes = 3000
	for n := range changes {
		c.check(c.touch(t.Context(), "docs", n))
	}
	c.check(away.Start())
	c.check(c.AwaitUp(t.Context(), away))
	c.agree()
	n, err := c.touched(t.Context(), away, "docs")
	c.check(err)
	if n != changes-1 {
		t.Errorf("the node that was away reads change %d, want %d", n, changes-1)
	}
}

// TestRemovedNode: a removed server ends by itself and says why; started again it says it again, and the cluster does not
// take it back without a new token.
func TestRemovedNode(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	removed := c.follower(c.Servers())
	c.must(nil, "node", "remove", removed.Name)
	for _, when := range []string{"when it is removed", "when it is started again"} {
		c.await(20*time.Second, "the end of the removed server, "+when, func(context.Context) (bool, error) { return !removed.Running(), nil })
		if line := removed.LastLine(); !bytes.Contains([]byte(line), []byte("removed")) {
			t.Errorf("%s its log ends with: %s", when, line)
		}
		if when == "when it is removed" {
			c.check(removed.Start())
		}
	}
	c.cli("node", "show", removed.Name).refused(t, exitNotFound, removed.Name)
	back, err := c.Join(t.Context())
	c.check(err)
	c.check(c.AwaitVoters(t.Context(), 3))
	t.Logf("%s has taken its place", back.Name)
}

// TestRollingRestart: servers are restarted one after the other while clients go on. A client sees nothing of it but time.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	c.must(nil, "share", "create", "docs", "--size", "1GiB")
	cfg, err := c.ClientConfig(c.Servers()...)
	c.check(err)
	w := startWriter(t, cfg, "docs")
	for _, s := range c.Servers() {
		w.flow(50)
		c.check(s.Stop(t.Context()))
		w.flow(50)
		c.check(s.Start())
		c.check(c.AwaitUp(t.Context(), s))
		c.check(c.AwaitVoters(t.Context(), 3))
		c.agreeUnderLoad(s)
	}
	written, slowest := w.end()
	if slowest > 5*time.Second {
		t.Errorf("the slowest of %d writes took %s, want at most 5 s", written, slowest)
	}
	t.Logf("%d writes, none failed, the slowest took %s", written, slowest)
	c.agree()
	n, err := c.touched(t.Context(), c.Servers()[2], "docs")
	c.check(err)
	if n != written {
		t.Errorf("the last write that can be read is %d, want %d", n, written)
	}
}

// agreeUnderLoad waits until a server has caught up with what the leader had at some moment: the next one may go only then.
func (c *cluster) agreeUnderLoad(s *local.Server) {
	c.t.Helper()
	target, err := c.Status(c.t.Context(), c.leader())
	c.check(err)
	c.await(20*time.Second, s.Name+" to catch up", func(ctx context.Context) (bool, error) {
		status, err := c.Status(ctx, s)
		return status.GetAppliedIndex() >= target.GetAppliedIndex(), err
	})
}
