package systemtest

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Exit codes, as the command line promises them.
const (
	exitUsage        = 2
	exitNotFound     = 3
	exitConflict     = 4
	exitPrecondition = 5
	exitTimeout      = 6
	exitUnavailable  = 7
)

// refusals are commands that must not change anything. The share "docs" has 1 GiB, the snapshots "old" and "new", and a
// file of 8 MiB; project "small" may have one share and has it; the pools have 10 GiB each.
var refusals = []struct {
	name string
	args []string
	code int
	says []string
}{
	{"size 0", []string{"share", "create", "x", "--size", "0"}, exitUsage, []string{"more than 0"}},
	{"negative size", []string{"share", "create", "x", "--size=-1GiB"}, exitUsage, []string{"more than 0"}},
	{"size of 5 EiB", []string{"share", "create", "x", "--size", "5EiB"}, exitUsage, []string{"largest share", "1EiB"}},
	{"size beyond int64", []string{"share", "create", "x", "--size", "99999999999999999999"}, exitUsage, []string{"size"}},
	{"decimal unit", []string{"share", "create", "x", "--size", "10GB"}, exitUsage, []string{"10GB", "GiB"}},
	{"no size", []string{"share", "create", "x"}, exitUsage, []string{"--size"}},
	{"name with a slash", []string{"share", "create", "a/b", "--size", "1GiB"}, exitUsage, []string{"'/'"}},
	{"name ..", []string{"share", "create", "..", "--size", "1GiB"}, exitUsage, []string{`".."`}},
	{"name with a newline", []string{"share", "create", "a\nb", "--size", "1GiB"}, exitUsage, []string{`\n`}},
	{"name of 10 kB", []string{"share", "create", strings.Repeat("a", 10_000), "--size", "1GiB"}, exitUsage, []string{"10000 bytes", "255"}},
	{"empty name", []string{"share", "create", "", "--size", "1GiB"}, exitUsage, []string{"empty"}},
	{"snapshot name ..", []string{"snapshot", "create", "docs", ".."}, exitUsage, []string{`".."`}},
	{"rename to a slash", []string{"share", "rename", "docs", "a/b"}, exitUsage, []string{"'/'"}},
	{"no CIDR", []string{"access", "allow", "docs", "ip", "nowhere", "rw"}, exitUsage, []string{"nowhere", "CIDR"}},
	{"CIDR with too many bits", []string{"access", "allow", "docs", "ip", "10.0.0.0/33", "rw"}, exitUsage, []string{"10.0.0.0/33"}},
	{"CIDR with host bits", []string{"access", "allow", "docs", "ip", "10.0.0.7/8", "rw"}, exitUsage, []string{"did you mean 10.0.0.0/8"}},
	{"no level", []string{"access", "allow", "docs", "ip", "10.0.0.7", "rwx"}, exitUsage, []string{"rwx"}},
	{"no kind", []string{"access", "allow", "docs", "dns", "host", "rw"}, exitUsage, []string{"dns"}},
	{"a second rule for the user", []string{"access", "allow", "docs", "user", "tester", "ro"}, exitConflict, []string{"tester"}},
	{"duplicate with another size", []string{"share", "create", "docs", "--size", "2GiB"}, exitConflict, []string{"docs"}},
	{"duplicate snapshot", []string{"snapshot", "create", "docs", "old"}, exitConflict, []string{"old"}},
	{"rename to a name that is taken", []string{"share", "rename", "docs", "other"}, exitConflict, []string{"other"}},
	{"delete with snapshots", []string{"share", "delete", "docs", "--yes"}, exitConflict, []string{"snapshot"}},
	{"revert to an older snapshot", []string{"share", "revert", "docs", "old", "--yes"}, exitPrecondition, []string{"newest", "new"}},
	{"revert without --yes", []string{"share", "revert", "docs", "new"}, exitUsage, []string{"--yes"}},
	{"revert to what is not there", []string{"share", "revert", "docs", "none", "--yes"}, exitNotFound, []string{"none"}},
	{"extend that shrinks", []string{"share", "extend", "docs", "1MiB"}, exitUsage, []string{"docs"}},
	{"quota of shares", []string{"share", "create", "second", "--size", "1MiB", "--project", "small"}, exitPrecondition, []string{"quota", "small"}},
	{"capacity", []string{"share", "create", "x", "--size", "11GiB"}, exitPrecondition, []string{"capacity", "n1/data"}},
	{"capacity of an extension", []string{"share", "extend", "docs", "11GiB"}, exitPrecondition, []string{"capacity"}},
	{"unknown type", []string{"share", "create", "x", "--size", "1GiB", "--type", "gold"}, exitNotFound, []string{"gold"}},
	{"unknown share", []string{"share", "delete", "nothing", "--yes"}, exitNotFound, []string{"nothing"}},
	{"unknown command", []string{"share", "destroy", "docs"}, exitUsage, []string{"destroy"}},
	{"unknown flag", []string{"share", "create", "x", "--sise", "1GiB"}, exitUsage, []string{"--sise"}},
	{"manage with a path", []string{"share", "manage", "x", "--pool", "n1/data", "--object", "../data", "--size", "1GiB"}, exitUsage, []string{"../data"}},
}

// TestBadInput: every bad input has one clear line, its exit code, and leaves the replicated state as it was, bit for bit.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	docs := c.makeShare("docs", "1GiB")
	c.put(docs, "file", bytes.Repeat([]byte("x"), 8<<20))
	c.must(nil, "share", "create", "other", "--size", "1GiB")
	for _, name := range []string{"old", "new"} {
		c.must(nil, "snapshot", "create", "docs", name)
	}
	c.must(nil, "quota", "set", "small", "--shares", "1")
	c.must(nil, "share", "create", "first", "--size", "1MiB", "--project", "small")
	before := c.agree()
	for _, refusal := range refusals {
		t.Run(refusal.name, func(t *testing.T) {
			c := c.in(t)
			c.cli(refusal.args...).refused(t, refusal.code, refusal.says...)
			if after := c.agree(); after.Digest != before.Digest {
				t.Errorf("the state has changed: digest %s, was %s", after.Digest, before.Digest)
				before = after // the next one is judged by itself
			}
		})
	}
	t.Run("duplicate with the same specification", func(t *testing.T) {
		c := c.in(t)
		var again cairnv1.Share
		c.must(&again, "share", "create", "docs", "--size", "1GiB")
		if again.GetId() != docs.GetId() {
			t.Errorf("the same name with the same specification is another share: %s, was %s", again.GetId(), docs.GetId())
		}
	})
	t.Run("shrink below use", func(t *testing.T) { testShrinkBelowUse(t, c.in(t), docs) })
	t.Run("manage what is not there", func(t *testing.T) { testManageNothing(t, c.in(t)) })
}

// testManageNothing: whether an object is there its node finds out, so the task goes on with the fault until somebody cancels
// it or puts the object there; Manila calls that manage_error. Nothing is made on the pool, and the name can be used again.
func testManageNothing(t *testing.T, c *cluster) {
	manage := []string{"share", "manage", "x", "--pool", "n1/data", "--object", "nothing", "--size", "1GiB", "--timeout", "10s"}
	c.cli(manage...).refused(t, exitNotFound, "nothing")
	c.must(nil, "task", "cancel", "x")
	c.await(10*time.Second, "the end of the share", func(context.Context) (bool, error) {
		return c.cli("share", "show", "x").code == exitNotFound, nil
	})
	c.must(nil, "share", "create", "x", "--size", "1GiB")
	c.must(nil, "share", "delete", "x", "--yes")
	c.check(c.inOrderNow())
}

// inOrderNow waits a moment until the pools hold what the state says.
func (c *cluster) inOrderNow() error {
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	return local.Await(ctx, "order", c.inOrder)
}

// testShrinkBelowUse: what is used is known on the node only, so the request is accepted and its task fails. Size, data and
// service stay.
func testShrinkBelowUse(t *testing.T, c *cluster, docs share) {
	c.cli("share", "shrink", "docs", "4MiB").refused(t, exitPrecondition, "docs", "8MiB")
	var now cairnv1.Share
	c.must(&now, "share", "show", "docs")
	if now.GetSize() != docs.GetSize() || now.GetManilaStatus() != "available" {
		t.Errorf("after a refused shrink: size %d, status %s; want %d, available", now.GetSize(), now.GetManilaStatus(), docs.GetSize())
	}
	if content := c.get(docs, "file"); len(content) != 8<<20 {
		t.Errorf("the file has %d bytes, want %d", len(content), 8<<20)
	}
	c.put(docs, "another", []byte("x"))
	c.must(nil, "share", "shrink", "docs", "512MiB") // a possible one still works
}
