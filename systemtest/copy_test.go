package systemtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// copier has a share docs on n1/data, which is too full for another one of its size, and a snapshot of it.
type copier struct {
	*cluster
	files map[string][]byte // in the snapshot
}

// startCopier makes n servers and a share of the size, of which the first has a second pool, "more", on dir.
func startCopier(t *testing.T, n int, size string, prepared func(c *cluster, first *local.Server, more string)) *copier {
	t.Helper()
	c := prepare(t)
	first, err := c.Prepare()
	c.check(err)
	more := t.TempDir()
	text, err := os.ReadFile(first.File)
	c.check(err)
	config := fmt.Sprintf("%s\n[[pool]]\nname = \"more\"\ndriver = \"dir\"\npath = %q\nmax_size = \"10GiB\"\n", text, more)
	c.check(os.WriteFile(first.File, []byte(config), 0o600))
	prepared(c, first, more)
	c.check(c.Start(t.Context(), n))
	for i := 2; i <= n; i++ {
		c.must(nil, "pool", "freeze", fmt.Sprintf("n%d/data", i))
	}
	c.must(nil, "pool", "freeze", "n1/more")
	docs := c.makeShare("docs", size)
	k := &copier{c, map[string][]byte{}}
	for i, size := range []int{0, 1, 100 << 10, 12 << 20} {
		content := make([]byte, size)
		_, _ = rand.Read(content)
		name := fmt.Sprint("file-", i)
		k.files[name] = content
		c.put(docs, name, content)
	}
	c.must(nil, "snapshot", "create", "docs", "s")
	c.put(docs, "file-1", []byte("written since"))
	return k
}

// holds makes sure that the share is on the pool, and has what the snapshot has.
func (k *copier) holds(name, node, pool string) {
	k.t.Helper()
	k.must(nil, "access", "allow", name, "ip", "127.0.0.0/8", "ro")
	var made cairnv1.Share
	k.must(&made, "share", "show", name)
	if where := made.GetReplicas()[0]; where.GetNode() != node || where.GetPool() != pool {
		k.t.Errorf("%s is on %s/%s, want %s/%s", name, where.GetNode(), where.GetPool(), node, pool)
	}
	files := k.reach(made.GetLocations(), "", "")
	for file, want := range k.files {
		if got, err := read(k.t.Context(), files, file); err != nil || !bytes.Equal(got, want) {
			k.t.Errorf("%s: %s has %d bytes (%v), want the %d of the snapshot", name, file, len(got), err, len(want))
		}
	}
}

// end removes everything that was made.
func (k *copier) end(more string, shares ...string) {
	k.t.Helper()
	k.must(nil, "snapshot", "delete", "docs", "s")
	for _, name := range append(shares, "docs") {
		k.must(nil, "share", "delete", name, "--yes")
	}
	k.check(k.AwaitEmptyPools(k.t.Context()))
	for _, pattern := range []string{"[^.]*", ".cairn-work/*"} {
		if left, err := filepath.Glob(filepath.Join(more, pattern)); err != nil || len(left) > 0 {
			k.t.Errorf("pool more still holds %v, %v", left, err)
		}
	}
}

// TestCopyElsewhere: a share from a snapshot whose pool takes no more is sent to another pool: on another node, whose server is
// killed meanwhile, and on the same one.
func TestCopyElsewhere(t *testing.T) {
	t.Parallel()
	var more string
	k := startCopier(t, 3, "6GiB", func(_ *cluster, _ *local.Server, path string) { more = path })
	k.cli("share", "create", "nowhere", "--from-snapshot", "docs/s").refused(t, exitPrecondition, "n1/data: capacity: 4GiB of", "n1/more: frozen", "n2/data: frozen")

	k.must(nil, "pool", "thaw", "n2/data")
	k.must(nil, "share", "create", "away", "--from-snapshot", "docs/s", "--wait=false")
	n2 := k.Server("n2")
	k.check(n2.Kill())
	k.check(k.Revive(t.Context(), n2))
	k.await(time.Minute, "the copy", func(context.Context) (bool, error) {
		var made cairnv1.Share
		k.must(&made, "share", "show", "away")
		if made.GetStatus() != "available" {
			return false, fmt.Errorf("is %s: %s", made.GetStatus(), made.GetFault().GetMessage())
		}
		return true, nil
	})
	k.holds("away", "n2", "data")

	k.must(nil, "pool", "freeze", "n2/data")
	k.must(nil, "pool", "thaw", "n1/more")
	k.must(nil, "share", "create", "beside", "--from-snapshot", "docs/s", "--size", "7GiB")
	k.holds("beside", "n1", "more")
	k.end(more, "away", "beside")
}

// TestCopyBtrfs is a copy between two pools of btrfs.
func TestCopyBtrfs(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounts file systems: run as root")
	}
	var more string
	k := startCopier(t, 1, "64MiB", func(c *cluster, first *local.Server, path string) {
		more = path
		text, err := os.ReadFile(first.File)
		c.check(err)
		c.check(os.WriteFile(first.File, []byte(strings.ReplaceAll(string(text), `"dir"`, `"btrfs"`)), 0o600))
		mountBtrfs(t, first.PoolDir())
		mountBtrfs(t, path)
	})
	k.must(nil, "pool", "thaw", "n1/more")
	k.must(nil, "pool", "freeze", "n1/data")
	k.must(nil, "share", "create", "beside", "--from-snapshot", "docs/s")
	k.holds("beside", "n1", "more")
	k.end(more, "beside")
}
