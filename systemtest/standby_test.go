package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/drivers/webdav"
)

// TestReadableStandby reads standbys while the active replica is written to, through a promotion, a failover and a removal: what
// belongs together is of one point in time, it goes on, and only the active replica is ever written.
func TestReadableStandby(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopiedOf("readable", "auto", "300ms", "docs", "1GiB", 3)
	s.write("first", "0")
	s.write("second", "0")
	first := s.standby("")
	s.showsAtLast(first, 0)
	const last = 20
	newest := ""
	for n := 1; n <= last; n++ {
		s.write("first", fmt.Sprint(n))
		newest = s.readsOnePoint(first, newest)
		s.write("second", fmt.Sprint(n))
		newest = s.readsOnePoint(first, newest)
	}
	s.showsAtLast(first, last)
	s.refuses(first, http.StatusForbidden)

	from := s.host().Name
	s.must(nil, "share", "promote", "docs", "--to", first.node)
	if s.host().Name != first.node {
		t.Fatalf("the share is at %s, not at %s", s.host().Name, first.node)
	}
	s.refuses(first, http.StatusServiceUnavailable) // where it was read nobody writes, also now
	s.expect("second", fmt.Sprint(last))
	s.write("first", "21")
	s.write("second", "21")
	old := s.standby(from)
	s.showsAtLast(old, 21)
	s.refuses(old, http.StatusForbidden)

	s.awaitSync(3)
	s.follow()
	killed := s.host()
	s.check(killed.Kill())
	s.write("first", "22")
	s.write("second", "22")
	s.showsAtLast(s.standby(""), 22)
	s.check(killed.Start())
	s.awaitSync(3)
	back := s.standby(killed.Name)
	s.showsAtLast(back, 22)
	s.must(nil, "replica", "remove", "docs", killed.Name, "--yes")
	s.refuses(back, http.StatusServiceUnavailable)
}

// A standby that its node cannot show follows all the same, and `cairn why` says that clients cannot read it, and why not.
func TestStandbyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopiedOf("readable", "manual", "300ms", "docs", "1GiB", 2)
	s.write("first", "0")
	s.write("second", "0")
	at := s.standby("")
	s.showsAtLast(at, 0)
	server := s.Server(at.node)
	s.check(server.Kill())
	points, err := filepath.Glob(filepath.Join(server.PoolDir(), "*", "snapshots", "sync-*"))
	s.check(err)
	if len(points) == 0 {
		t.Fatal("the standby has no sync point")
	}
	aside := t.TempDir()
	exchange := func(point string) {
		s.check(unix.Renameat2(unix.AT_FDCWD, point, unix.AT_FDCWD, filepath.Join(aside, filepath.Base(point)), unix.RENAME_EXCHANGE))
	}
	for _, point := range points {
		s.check(os.WriteFile(filepath.Join(aside, filepath.Base(point)), nil, 0o600)) // no directory that could be served
		exchange(point)
	}
	s.check(server.Start())
	s.why("available, and a standby is not as it should be", "clients cannot read what this standby holds now", "not a directory")
	for _, point := range points {
		exchange(point)
	}
	s.showsAtLast(at, 0)
	s.why("nothing is being waited for")
}

// why waits until the summary of the share has all of the texts.
func (s *copied) why(texts ...string) {
	s.t.Helper()
	s.await(30*time.Second, fmt.Sprintf("cairn why says %q", texts), func(ctx context.Context) (bool, error) {
		out, err := s.Run(ctx, "why", "share/docs")
		for _, text := range texts {
			if err == nil && !strings.Contains(string(out), text) {
				err = fmt.Errorf("cairn why: %s", out)
			}
		}
		return err == nil, err
	})
}

// standby is a replica that is read.
type standby struct {
	node, url string
	files     *dav.Client
}

// standby waits until a replica that is not active can be read, on that node or on any that is up.
func (s *copied) standby(node string) *standby {
	s.t.Helper()
	at := &standby{}
	s.await(30*time.Second, "a standby that can be read at node "+node, func(ctx context.Context) (bool, error) {
		share, err := s.show(ctx)
		for _, r := range share.GetReplicas() {
			if len(r.GetLocations()) == 0 || node != "" && r.GetNode() != node || !s.Server(r.GetNode()).Running() {
				continue
			}
			location := r.GetLocations()[0]
			if r.GetState() == "active" || !location.GetReadOnly() || !strings.HasSuffix(location.GetUrl(), "/replicas/"+r.GetId()+"/") {
				return false, fmt.Errorf("%v", r)
			}
			at.node, at.url = r.GetNode(), location.GetUrl()
			return true, nil
		}
		if err == nil {
			err = fmt.Errorf("%v", share.GetReplicas())
		}
		return false, err
	})
	ca, err := s.CA()
	s.check(err)
	files, err := dav.New(dav.Config{URL: at.url, CA: ca, User: "tester", Password: s.password, Timeout: time.Minute})
	s.check(err)
	s.t.Cleanup(files.Close)
	at.files = files
	return at
}

// number reads a file, and from what point in time.
func (at *standby) number(ctx context.Context, name string) (n int, point string, err error) {
	body, header, err := at.files.GetHeader(ctx, name)
	if err != nil {
		return 0, "", err
	}
	defer body.Close()
	var content bytes.Buffer
	if _, err := content.ReadFrom(body); err != nil {
		return 0, "", err
	}
	n, err = strconv.Atoi(content.String())
	return n, header.Get(webdav.Point), err
}

// pair reads both files from one point in time.
func (at *standby) pair(ctx context.Context) (first, second int, point string, err error) {
	for {
		first, before, err := at.number(ctx, "first")
		if err != nil {
			return 0, 0, "", err
		}
		second, point, err := at.number(ctx, "second")
		if err != nil || point == before {
			return first, second, point, err
		}
	}
}

// readsOnePoint: the first file is written before the second one, so at no point in time is it the older one, or newer by two.
func (s *copied) readsOnePoint(at *standby, newest string) string {
	s.t.Helper()
	var first, second int
	var point string
	s.await(30*time.Second, "both files at node "+at.node, func(ctx context.Context) (_ bool, err error) {
		first, second, point, err = at.pair(ctx) // a node that is late for its lease refuses
		return err == nil, err
	})
	if point == "" || point < newest || first < second || first > second+1 {
		s.t.Errorf("reads %d and %d at %q, after %q", first, second, point, newest)
	}
	return point
}

// showsAtLast waits until both files are so far.
func (s *copied) showsAtLast(at *standby, n int) {
	s.t.Helper()
	s.await(30*time.Second, fmt.Sprintf("%d at node %s", n, at.node), func(ctx context.Context) (bool, error) {
		first, second, point, err := at.pair(ctx)
		if err == nil && (first != n || second != n) {
			err = fmt.Errorf("reads %d and %d at %q", first, second, point)
		}
		return err == nil, err
	})
}

// refuses tries to write, and to read if that is not served either.
func (s *copied) refuses(at *standby, status int) {
	s.t.Helper()
	ctx := s.t.Context()
	if err := at.files.Put(ctx, "first", strings.NewReader("x"), 1); dav.StatusOf(err) != status {
		s.t.Errorf("a write at %s ended with %v, want status %d", at.url, err, status)
	}
	if _, _, err := at.number(ctx, "first"); status == http.StatusServiceUnavailable && dav.StatusOf(err) != status {
		s.t.Errorf("a read at %s ended with %v, want status %d", at.url, err, status)
	}
	share, err := s.show(ctx)
	s.check(err)
	for _, location := range share.GetLocations() {
		if location.GetReadOnly() || location.GetUrl() == at.url {
			s.t.Errorf("the share is said to be at %v", location)
		}
	}
}
