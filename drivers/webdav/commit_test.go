package webdav

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// mutations are one request of every kind that changes files, and how to see on disk that it did.
var mutations = map[string]struct {
	method, path, to, body string
	done                   func(root string) bool
}{
	"PUT":    {"PUT", "/file", "", "new", contains("file", "new")},
	"DELETE": {"DELETE", "/file", "", "", missing("file")},
	"MKCOL":  {"MKCOL", "/made", "", "", exists("made")},
	"MOVE":   {"MOVE", "/file", "/moved", "", exists("moved")},
	"COPY":   {"COPY", "/dir", "/copied", "", exists("copied")},
	"LOCK":   {"LOCK", "/locked", "", lockBody, exists("locked")},
}

func newMutationFixture(t *testing.T) *fixture {
	f := newFixture(t)
	f.write("file", "old")
	f.write("dir/file", "old")
	f.export()
	return f
}

// TestPermissionEndsBeforeTheCommit takes away, in many ways, what a request had when it began. The gate is held so that
// the request is certainly past its first check and not past its second.
func TestPermissionEndsBeforeTheCommit(t *testing.T) {
	reexport := func(change func(*drivers.ExportSpec)) func(*fixture) {
		return func(f *fixture) { change(&f.spec); f.export() }
	}
	for how, c := range map[string]struct {
		revoke func(*fixture)
		status int
	}{
		"lease lost": {func(f *fixture) {
			f.guard.answer(func(cairn.ReplicaID, uint64) error { return cairn.ErrUnavailable })
		}, 503},
		"epoch over": {func(f *fixture) {
			f.guard.answer(func(cairn.ReplicaID, uint64) error { return cairn.ErrStale })
		}, 503},
		"fenced": {func(f *fixture) {
			f.e.mu.Lock() // Fence itself would wait for the gate that the test holds
			defer f.e.mu.Unlock()
			f.e.fences[f.spec.ID.Replica] = 6
		}, 503},
		"demoted":          {reexport(func(s *drivers.ExportSpec) { s.ReadOnly = true }), 403},
		"demoted and back": {reexport(func(s *drivers.ExportSpec) { s.Epoch = 7 }), 503},
		"rule withdrawn":   {reexport(func(s *drivers.ExportSpec) { s.Rules = nil }), 403},
	} {
		for name, m := range mutations {
			t.Run(how+"/"+name, func(t *testing.T) {
				f := newMutationFixture(t)
				resume, err := f.e.Quiesce(f.ctx, f.spec.ID)
				f.must(err)
				verdict := make(chan result, 1)
				go func() { verdict <- f.do(m.method, m.path, m.body, "Destination: "+m.to) }()
				f.waitingAtGate(1)
				c.revoke(f)
				resume()
				if res := <-verdict; res.err != nil || res.status != c.status {
					t.Errorf("%d %q %v, want %d", res.status, res.body, res.err, c.status)
				}
				if m.done(f.spec.Root) {
					t.Errorf("a change was made after its permission had ended")
				}
				f.stagingIsEmpty()
			})
		}
	}
}

// waitingAtGate waits until n requests wait to commit. The exporter's own prepared files are then in staging, not more.
func (f *fixture) waitingAtGate(n int) {
	f.Helper()
	x, _ := f.e.known(f.spec.ID)
	f.eventually("requests at the gate", func() bool {
		x.writes.mu.Lock()
		defer x.writes.mu.Unlock()
		return x.writes.waiting == n
	})
}

// received waits for a signal.
func (f *fixture) received(signal <-chan struct{}) {
	f.Helper()
	select {
	case <-signal:
	case <-f.ctx.Done():
		f.Fatal("waited in vain")
	}
}

func TestQuiesceHoldsEveryMethod(t *testing.T) {
	for name, m := range mutations {
		t.Run(name, func(t *testing.T) {
			f := newMutationFixture(t)
			ctx, cancel := context.WithCancel(f.ctx)
			resume, err := f.e.Quiesce(ctx, f.spec.ID)
			f.must(err)
			verdict := make(chan result, 1)
			go func() { verdict <- f.do(m.method, m.path, m.body, "Destination: "+m.to) }()
			f.waitingAtGate(1)
			if m.done(f.spec.Root) {
				t.Errorf("a change was made while writers were held")
			}
			f.want(200, "GET", "/dir/file", "")
			cancel() // ends it as resume does
			if res := <-verdict; res.err != nil || res.status >= 300 || !m.done(f.spec.Root) {
				t.Errorf("after resume: %d %q %v", res.status, res.body, res.err)
			}
			resume()
		})
	}
}

// TestCommitInProgress: whoever stops writes waits for it, as long as its context says.
func TestCommitInProgress(t *testing.T) {
	f := newMutationFixture(t)
	entered, proceed := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(proceed) })
	defer release()
	f.e.disk.sync = func(file *os.File) error {
		close(entered)
		<-proceed
		return file.Sync()
	}
	verdict := make(chan result, 1)
	go func() { verdict <- f.do("MKCOL", "/made", "") }()
	f.received(entered) // a commit is in progress
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, err := f.e.Quiesce(ctx, f.spec.ID); !errors.Is(err, cairn.ErrTimeout) {
		t.Errorf("Quiesce with a commit in progress: %v; want cairn.ErrTimeout", err)
	}
	if err := f.e.Fence(ctx, f.spec.ID.Replica, 6); !errors.Is(err, cairn.ErrTimeout) {
		t.Errorf("Fence with a commit in progress: %v; want cairn.ErrTimeout", err)
	}
	demoted := f.spec
	demoted.Epoch, demoted.ReadOnly = 6, true
	if _, err := f.e.Export(ctx, demoted); !errors.Is(err, cairn.ErrTimeout) {
		t.Errorf("Export read-only with a commit in progress: %v; want cairn.ErrTimeout", err)
	}
	release()
	if res := <-verdict; res.status != 201 {
		t.Errorf("the commit in progress: %d %s", res.status, res.body)
	}
	f.want(503, "MKCOL", "/late", "") // the fence holds though its caller did not wait
	f.must(f.e.Fence(f.ctx, f.spec.ID.Replica, 6))
}

func TestGuardAnswers(t *testing.T) {
	f := newMutationFixture(t)
	f.guard.answer(func(id cairn.ReplicaID, epoch uint64) error {
		if id != "replica-1" || epoch != 5 {
			return errors.New("asked about the wrong replica or epoch")
		}
		return nil
	})
	f.want(200, "GET", "/file", "")
	f.want(204, "PUT", "/file", "new")
	for cause, c := range map[error]struct {
		status int
		retry  string
	}{
		cairn.ErrUnavailable:              {503, "2"},
		cairn.ErrStale:                    {503, ""},
		errors.New("nobody expects this"): {500, ""},
	} {
		f.guard.answer(func(cairn.ReplicaID, uint64) error { return cause })
		for _, method := range []string{"GET", "PROPFIND", "PUT", "DELETE"} {
			if res := f.want(c.status, method, "/file", "newer"); res.header.Get("Retry-After") != c.retry {
				t.Errorf("%v, %s: Retry-After %q, want %q", cause, method, res.header.Get("Retry-After"), c.retry)
			}
		}
	}
	f.onDisk("file", "new")
}

func TestFenceOutlivesTheExport(t *testing.T) {
	f := newMutationFixture(t)
	f.must(f.e.Fence(f.ctx, f.spec.ID.Replica, 6))
	f.must(f.e.Fence(f.ctx, f.spec.ID.Replica, 3)) // an older fence lowers nothing
	f.want(200, "GET", "/file", "")
	f.must(f.e.Unexport(f.ctx, f.spec.ID))
	f.exportIsStale()
	f.spec.Epoch = 6
	f.export()
	f.want(204, "PUT", "/file", "new")
}

func TestExportNeverGoesBack(t *testing.T) {
	f := newMutationFixture(t)
	f.spec.Epoch = 4
	f.exportIsStale()
	f.want(204, "PUT", "/file", "of epoch 5")
}

func (f *fixture) exportIsStale() {
	f.Helper()
	if _, err := f.e.Export(f.ctx, f.spec); !errors.Is(err, cairn.ErrStale) {
		f.Errorf("Export of epoch %d: %v; want cairn.ErrStale", f.spec.Epoch, err)
	}
}

// TestUnexportCutsDownloads: a client that has stopped reading must not keep the export alive.
func TestUnexportCutsDownloads(t *testing.T) {
	f := newFixture(t)
	f.must(os.WriteFile(filepath.Join(f.spec.Root, "large"), nil, 0o644))
	f.must(os.Truncate(filepath.Join(f.spec.Root, "large"), 1<<30))
	f.export()
	resp, err := f.client.Get(f.url("/large"))
	f.must(err)
	defer resp.Body.Close()
	f.must(f.e.Unexport(f.ctx, f.spec.ID))
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("a download that was cut ended well, with %d bytes", n)
	}
	f.want(503, "GET", "/large", "")
}

func TestUnexportIsBounded(t *testing.T) {
	f := newMutationFixture(t)
	entered, proceed := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(proceed) })
	defer release()
	f.guard.answer(func(cairn.ReplicaID, uint64) error { close(entered); <-proceed; return nil })
	verdict := make(chan result, 1)
	go func() { verdict <- f.do("GET", "/file", "") }()
	f.received(entered)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	for range 2 { // again, too: an export that still has requests is not "absent"
		if err := f.e.Unexport(ctx, f.spec.ID); !errors.Is(err, cairn.ErrTimeout) {
			t.Errorf("Unexport with a request in progress: %v; want cairn.ErrTimeout", err)
		}
	}
	f.want(503, "PUT", "/file", "new")
	release()
	<-verdict
	f.guard.answer(nil)
	f.must(f.e.Unexport(f.ctx, f.spec.ID))
	f.export()
	f.want(204, "PUT", "/file", "new")
}

func TestExportEmptiesItsStaging(t *testing.T) {
	f := newFixture(t)
	ours, tree := stagingPrefix("replica-1")+"X", stagingPrefix("replica-1")+"Y"
	f.must(os.WriteFile(filepath.Join(f.spec.Staging, ours), []byte("half"), 0o644))
	f.must(os.MkdirAll(filepath.Join(f.spec.Staging, tree, "deep"), 0o755))
	others := []string{stagingPrefix("replica-2") + "X", "of-the-pool"}
	for _, name := range others {
		f.must(os.WriteFile(filepath.Join(f.spec.Staging, name), []byte("keep"), 0o644))
	}
	f.export()
	left, err := os.ReadDir(f.spec.Staging)
	f.must(err)
	if len(left) != 2 || left[0].Name() != "of-the-pool" || left[1].Name() != others[0] {
		t.Errorf("left in staging: %v; want %v", left, others)
	}
	// Exported again, uploads in progress stay.
	w, verdict, err := begin(f.ctx, f.server, f.client, f.url("/file"), "first, ")
	f.must(err)
	f.export()
	_, err = io.WriteString(w, "second")
	f.must(err)
	f.must(w.Close())
	if res := <-verdict; res.status != 201 {
		t.Errorf("upload over a repeated Export: %d %s %v", res.status, res.body, res.err)
	}
	f.onDisk("file", "first, second")
}

// TestTwoReplicasOfOneShare on one node share a path: the one that may be written answers.
func TestTwoReplicasOfOneShare(t *testing.T) {
	f := newFixture(t)
	f.write("who", "standby")
	f.spec.ReadOnly = true
	f.export()
	active := f.spec
	active.ID.Replica, active.ReadOnly, active.Root, active.Staging = "replica-9", false, t.TempDir(), t.TempDir()
	f.must(os.WriteFile(filepath.Join(active.Root, "who"), []byte("active"), 0o644))
	for range 2 {
		_, err := f.e.Export(f.ctx, active)
		f.must(err)
		f.export() // order does not matter
		if got := f.want(200, "GET", "/who", "").body; got != "active" {
			t.Errorf("answered by the %s replica", got)
		}
	}
	f.must(f.e.Unexport(f.ctx, active.ID))
	if got := f.want(200, "GET", "/who", "").body; got != "standby" {
		t.Errorf("answered by the %s replica", got)
	}
}

// TestRootReplaced: a directory of the same name that is another one, as after a revert, is opened anew.
func TestRootReplaced(t *testing.T) {
	f := newFixture(t)
	f.spec.EnforceSize = true
	f.write("file", "before the revert")
	f.export()
	f.must(os.Rename(f.spec.Root, f.spec.Root+"-old"))
	f.write("file", "after")
	f.export()
	if got := f.want(200, "GET", "/file", "").body; got != "after" {
		t.Errorf("served %q", got)
	}
	f.countedRight()
}

func TestGate(t *testing.T) {
	var g gate
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended, end := context.WithCancel(ctx)
	end()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(g.enter(ctx))
	if _, err := g.hold(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("hold with somebody inside: %v", err)
	}
	must(g.enter(ctx)) // the hold that gave up holds nobody
	g.leave()
	g.leave()
	first, err := g.hold(ctx)
	must(err)
	second, err := g.hold(ctx) // holders do not exclude each other
	must(err)
	first()
	first() // counts once
	if g.tryEnter() || !errors.Is(g.enter(ended), context.Canceled) {
		t.Fatal("entered a held gate")
	}
	second()
	if !g.tryEnter() {
		t.Fatal("the gate stays held")
	}
}

// TestChangesAreSigned: the answer to a change that was made says which replica has committed it, and in which epoch; nothing else does.
func TestChangesAreSigned(t *testing.T) {
	f := newFixture(t)
	f.export()
	signed := func(epoch string, answer result) {
		t.Helper()
		if got := answer.header.Get(Epoch); got != epoch {
			t.Errorf("epoch %q, want %q", got, epoch)
		}
		if got := answer.header.Get(Replica); (got == "replica-1") != (epoch != "") {
			t.Errorf("replica %q", got)
		}
	}
	signed("5", f.want(201, "PUT", "/a", "one"))
	f.spec.Epoch = 6
	f.export()
	signed("6", f.want(204, "PUT", "/a", "two"))
	signed("6", f.want(201, "MKCOL", "/d", ""))
	signed("6", f.want(201, "MOVE", "/a", "", "Destination: /b"))
	signed("6", f.want(204, "DELETE", "/b", ""))
	signed("", f.want(409, "PUT", "/no/a", "x"))
	f.must(f.e.Fence(f.ctx, "replica-1", 7))
	signed("", f.want(503, "PUT", "/a", "x"))
}
