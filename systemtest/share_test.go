package systemtest

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// reach makes a client of a location, as a user with a password, or as nobody.
func (c *cluster) reach(locations []*cairnv1.ExportLocation, user, password string) *dav.Client {
	c.t.Helper()
	if len(locations) == 0 {
		c.t.Fatal("there is no location")
	}
	ca, err := c.CA()
	c.check(err)
	files, err := dav.New(dav.Config{URL: locations[0].GetUrl(), CA: ca, User: user, Password: password, Timeout: 20 * time.Second})
	c.check(err)
	c.t.Cleanup(files.Close)
	return files
}

// TestShareLife takes one share through everything that can be done with it, and looks at its data each time.
func TestShareLife(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	docs := c.makeShare("docs", "1GiB")
	c.put(docs, "file", []byte("one"))

	var grown cairnv1.Share
	c.must(&grown, "share", "extend", "docs", "2GiB")
	if grown.GetSize() != 2<<30 {
		t.Errorf("after extend the share has %d bytes", grown.GetSize())
	}
	c.must(nil, "snapshot", "create", "docs", "s")
	c.put(docs, "file", []byte("two"))

	t.Run("clone", func(t *testing.T) {
		c := c.in(t)
		var clone cairnv1.Share
		c.must(&clone, "share", "create", "copy", "--from-snapshot", "docs/s")
		c.must(nil, "access", "allow", "copy", "ip", "127.0.0.0/8", "ro")
		files := c.reach(clone.GetLocations(), "", "")
		if got, err := read(t.Context(), files, "file"); err != nil || string(got) != "one" {
			t.Errorf("the clone reads %q (%v), want what the snapshot holds", got, err)
		}
		if err := files.Put(t.Context(), "x", strings.NewReader("x"), 1); dav.StatusOf(err) != http.StatusForbidden {
			t.Errorf("a write with an ro rule: %v, want 403", err)
		}
		c.must(nil, "access", "deny", "copy", "ip", "127.0.0.0/8")
		if _, err := read(t.Context(), files, "file"); dav.StatusOf(err) != http.StatusForbidden {
			t.Errorf("a read after the rule was taken away: %v, want 403", err)
		}
		c.must(nil, "share", "delete", "copy", "--yes")
	})
	t.Run("mounted snapshot", func(t *testing.T) {
		c := c.in(t)
		c.must(nil, "snapshot", "allow", "docs", "s", "ip", "127.0.0.1")
		var snapshot cairnv1.Snapshot
		c.must(&snapshot, "snapshot", "show", "docs", "s")
		files := c.reach(snapshot.GetLocations(), "", "")
		if got, err := read(t.Context(), files, "file"); err != nil || string(got) != "one" {
			t.Errorf("the snapshot reads %q (%v), want %q", got, err, "one")
		}
	})
	t.Run("size", func(t *testing.T) {
		c := c.in(t)
		c.must(nil, "share", "shrink", "docs", "1MiB")
		big := strings.Repeat("x", 2<<20)
		if err := docs.files.Put(t.Context(), "big", strings.NewReader(big), int64(len(big))); dav.StatusOf(err) != http.StatusInsufficientStorage {
			t.Errorf("2 MiB in a share of 1 MiB: %v, want 507", err)
		}
	})
	t.Run("unmanage and manage", func(t *testing.T) {
		c := c.in(t)
		c.cli("share", "unmanage", "docs").refused(t, exitConflict, "snapshot")
		c.must(nil, "snapshot", "delete", "docs", "s")
		c.must(nil, "share", "unmanage", "docs", "--object", "left")
		host := c.host(docs)
		if got, err := os.ReadFile(filepath.Join(host.PoolDir(), "left", "file")); err != nil || string(got) != "two" {
			t.Errorf("what unmanage leaves reads %q (%v), want %q", got, err, "two")
		}
		var again cairnv1.Share
		c.must(&again, "share", "manage", "again", "--pool", host.Name+"/data", "--object", "left", "--size", "1GiB")
		c.must(nil, "access", "allow", "again", "ip", "127.0.0.1", "rw")
		if got, err := read(t.Context(), c.reach(again.GetLocations(), "", ""), "file"); err != nil || string(got) != "two" {
			t.Errorf("the share that was managed again reads %q (%v), want %q", got, err, "two")
		}
		c.must(nil, "share", "delete", "again", "--yes")
	})
	c.check(c.AwaitEmptyPools(t.Context()))
}

// TestMissingData: data that somebody has taken away behind Cairn's back is a fault, never an empty share.
func TestMissingData(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	docs := c.makeShare("docs", "1GiB")
	c.put(docs, "file", []byte("x"))
	host := c.host(docs)
	c.check(host.Stop(t.Context()))
	replica := filepath.Join(host.PoolDir(), docs.GetReplicas()[0].GetId())
	c.check(os.Rename(replica, filepath.Join(host.Dir, "taken")))
	c.check(host.Start())
	c.check(c.AwaitUp(t.Context(), host))
	c.await(20*time.Second, "the fault", func(context.Context) (bool, error) {
		var now cairnv1.Share
		c.must(&now, "share", "show", "docs")
		return now.GetFault().GetCode() == "missing" && now.GetManilaStatus() == "error", nil
	})
	if _, err := read(t.Context(), docs.files, "file"); dav.StatusOf(err) == 0 || dav.StatusOf(err) == http.StatusNotFound {
		t.Errorf("a file of the missing share: %v, want an answer that does not say that it is gone", err)
	}
	if _, err := os.Stat(replica); !os.IsNotExist(err) {
		t.Errorf("the missing replica was made again, empty (%v)", err)
	}
	c.check(host.Stop(t.Context()))
	c.check(os.Rename(filepath.Join(host.Dir, "taken"), replica)) // as if its disk had been mounted
	c.check(host.Start())
	c.check(c.AwaitUp(t.Context(), host))
	c.check(c.AwaitServed(t.Context(), "docs"))
	if got := c.get(docs, "file"); string(got) != "x" {
		t.Errorf("when the data is back the file reads %q", got)
	}
}

// TestDrainAndLeave: a node that drains gets nothing new, one that holds shares cannot leave, and one that holds none can.
func TestDrainAndLeave(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	docs := c.makeShare("docs", "1GiB")
	host := c.host(docs)
	c.cli("node", "leave", host.Name).refused(t, exitConflict, "docs")
	if o := c.cli("node", "ok-to-stop", host.Name); o.code != exitPrecondition || !strings.Contains(o.stdout, "docs") {
		t.Errorf("%s: exit %d: %s%s, want %d with the share", o.command, o.code, o.stdout, o.stderr, exitPrecondition)
	}
	c.must(nil, "node", "drain", host.Name)
	for _, name := range []string{"a", "b", "c", "d"} {
		var placed cairnv1.Share
		c.must(&placed, "share", "create", name, "--size", "1GiB")
		if node := placed.GetReplicas()[0].GetNode(); node == host.Name {
			t.Errorf("share %s was placed on %s, which drains", name, node)
		}
	}
	c.must(nil, "share", "delete", "docs", "--yes")
	c.must(nil, "node", "leave", host.Name)
	c.await(20*time.Second, "the end of the server that left", func(context.Context) (bool, error) { return !host.Running(), nil })
	c.check(c.AwaitVoters(t.Context(), 2))
	c.must(nil, "share", "create", "e", "--size", "1GiB")
}
