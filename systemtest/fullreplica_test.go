package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// TestReplicaFull: the disk of a standby is full. The active replica goes on taking writes and snapshots, the other standby
// follows, and what is told of the full one says why it does not. When there is room again it catches up by itself.
func TestReplicaFull(t *testing.T) {
	t.Parallel()
	withMounts(t, func(t *testing.T) {
		c := prepare(t)
		var small *local.Server
		for range 3 {
			s, err := c.Prepare()
			c.check(err)
			small = s
		}
		mountSmall(t, small.PoolDir(), 256<<20)
		c.check(c.Cluster.Start(t.Context(), 3))
		s := c.makeCopiedBy("auto", "300ms", "docs", "64MiB", 3)
		if s.host() == small {
			s.must(nil, "share", "promote", "docs")
		}
		active := s.host()
		s.write("first", "one")
		s.follow()
		ballast := filepath.Join(small.PoolDir(), "ballast")
		fill(t, ballast, 1<<20)

		files, err := s.files(t.Context())
		c.check(err)
		defer files.Close()
		slowest := time.Duration(0)
		content := bytes.Repeat([]byte("large "), 1<<20)
		for n := range 5 {
			began := time.Now()
			c.check(files.Put(t.Context(), fmt.Sprint("large-", n), bytes.NewReader(content), int64(len(content))))
			slowest = max(slowest, time.Since(began))
		}
		s.state(small, "out_of_sync", "space")
		s.must(nil, "snapshot", "create", "docs", "while-full")
		s.state(s.third(active, small), "in_sync", "")
		if s.host() != active {
			t.Errorf("the share has moved to %s", s.host().Name)
		}
		t.Logf("the slowest of 5 writes of %d MiB took %s", len(content)>>20, slowest.Round(time.Millisecond))
		objects, err := active.Objects()
		c.check(err)
		for _, object := range objects { // what waits for the full one must not pile up here
			if inside, err := active.Inside(object, "snapshots"); err != nil || len(inside) > 6 {
				t.Errorf("the active replica keeps %d snapshots (%v)", len(inside), err)
			}
		}

		c.check(os.Remove(ballast))
		s.awaitSync(3)
		s.follow()
		s.must(nil, "share", "promote", "docs", "--to", small.Name)
		s.expect("large-4", string(content))
	})
}

// third is the server that is none of the two.
func (s *copied) third(a, b *local.Server) *local.Server {
	for _, other := range s.Servers() {
		if other != a && other != b {
			return other
		}
	}
	return nil
}

// state waits until the replica on a server is in the state, with that word in its fault.
func (s *copied) state(at *local.Server, state, word string) {
	s.t.Helper()
	s.await(time.Minute, fmt.Sprintf("%s to be %s", at.Name, state), func(ctx context.Context) (bool, error) {
		share, err := s.show(ctx)
		var found *cairnv1.Replica
		for _, r := range share.GetReplicas() {
			if r.GetNode() == at.Name {
				found = r
			}
		}
		if found.GetState() == state && strings.Contains(found.GetFault().GetMessage(), word) || err != nil {
			return err == nil, err
		}
		return false, fmt.Errorf("it is %s: %s", found.GetState(), found.GetFault().GetMessage())
	})
}
