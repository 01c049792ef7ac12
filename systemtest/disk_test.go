package systemtest

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// TestPoolFull: on a full disk an upload is refused and leaves the old file, a snapshot waits with the reason and is finished
// when there is room again, and nothing is left over.
func TestPoolFull(t *testing.T) {
	t.Parallel()
	withMounts(t, func(t *testing.T) {
		c := prepare(t)
		first, err := c.Prepare()
		c.check(err)
		mountSmall(t, first.PoolDir(), 96<<20)
		c.check(c.Cluster.Start(t.Context(), 1))
		docs := c.makeShare("docs", "64MiB")
		content := bytes.Repeat([]byte("old "), 2<<20)
		c.put(docs, "file", content)
		ballast := filepath.Join(first.PoolDir(), "ballast") // of somebody else: nothing of Cairn's
		fill(t, ballast, 1<<20)

		next := bytes.Repeat([]byte("new "), 3<<20)
		err = docs.files.Put(t.Context(), "file", bytes.NewReader(next), int64(len(next)))
		if dav.StatusOf(err) != http.StatusInsufficientStorage {
			t.Errorf("upload on a full disk: %v, want 507", err)
		}
		if got := c.get(docs, "file"); !bytes.Equal(got, content) {
			t.Errorf("after a failed upload the old file has %d bytes or another content, want %d", len(got), len(content))
		}
		c.cli("snapshot", "create", "docs", "s", "--timeout", "5s").refused(t, exitTimeout, "space")
		var why cairnv1.WhyResponse
		c.must(&why, "why", "snapshot/docs/s")
		t.Logf("cairn why: %s", why.GetSummary())

		c.check(os.Remove(ballast))
		c.await(90*time.Second, "the snapshot, now that there is room", func(ctx context.Context) (bool, error) {
			var snap cairnv1.Snapshot
			c.must(&snap, "snapshot", "show", "docs", "s")
			return snap.GetStatus() == "available" && snap.GetFault() == nil, nil
		})
		c.put(docs, "file", next)
		c.must(nil, "snapshot", "delete", "docs", "s")
		c.must(nil, "share", "delete", "docs", "--yes")
		c.check(c.AwaitEmptyPools(t.Context()))
	})
}

// TestRaftLogFull: a voter whose disk is full takes part no more, and the others go on. When there is room again it is back
// with the same state.
func TestRaftLogFull(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) { testRaftLogFull(t, who == "leader") })
	}
}

func testRaftLogFull(t *testing.T, leads bool) {
	withMounts(t, func(t *testing.T) {
		c := prepare(t)
		for range 3 {
			s, err := c.Prepare()
			c.check(err)
			// The data directory itself is made by init and join; its disk is the one above it.
			mountSmall(t, s.Disk(), 64<<20)
		}
		c.check(c.Cluster.Start(t.Context(), 3))
		c.must(nil, "share", "create", "docs", "--size", "1GiB")
		victim := c.leader()
		if !leads {
			for _, s := range c.Servers() {
				if s.Name != victim.Name {
					victim = s
					break
				}
			}
		}
		ballast := filepath.Join(victim.Disk(), "ballast")
		fill(t, ballast, 0)
		c.await(15*time.Second, "a write while one disk is full", func(ctx context.Context) (bool, error) {
			err := c.touch(ctx, "docs", 0)
			return err == nil, err
		})
		for n := range 500 {
			c.check(c.touch(t.Context(), "docs", n))
		}
		t.Logf("the log of %s ends with: %s", victim.Name, victim.LastLine())
		c.check(os.Remove(ballast))
		if !victim.Running() {
			c.check(victim.Start())
		}
		c.check(c.AwaitUp(t.Context(), victim))
		c.agree()
		n, err := c.touched(t.Context(), victim, "docs")
		c.check(err)
		if n != 499 {
			t.Errorf("%s reads change %d, want 499", victim.Name, n)
		}
	})
}
