package webdav

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const lockBody = `<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>me</owner></lockinfo>`

// TestMethods is the sequence of the litmus suite: what each method answers, in good order and in bad.
func TestMethods(t *testing.T) {
	f := newFixture(t)
	f.export()
	f.want(201, "MKCOL", "/d", "")
	f.want(405, "MKCOL", "/d", "")
	f.want(409, "MKCOL", "/no/d", "")
	f.want(415, "MKCOL", "/e", "a body")
	f.want(201, "PUT", "/d/f", "one")
	f.want(405, "MKCOL", "/d/f", "")
	f.want(409, "MKCOL", "/d/f/g", "")
	f.want(204, "PUT", "/d/f", "two")
	f.want(409, "PUT", "/no/f", "x")
	f.want(409, "PUT", "/d/f/g", "x")
	f.want(405, "PUT", "/d", "x")
	f.want(405, "PUT", "/d/", "x")
	f.want(405, "PUT", "/", "x")
	f.want(400, "PUT", "/d/f", "x", "Content-Range: bytes 0-0/3")
	if got := f.want(200, "GET", "/d/f", ""); got.body != "two" {
		t.Errorf("GET: %q", got.body)
	}
	f.want(405, "GET", "/d", "")
	f.want(404, "GET", "/d/no", "")
	f.want(404, "GET", "/d/f/no", "")
	f.want(404, "PROPFIND", "/d/no", "")
	f.want(200, "OPTIONS", "/d", "")

	f.want(201, "COPY", "/d/f", "", "Destination: /d/g")
	f.want(412, "COPY", "/d/f", "", "Destination: /d/g", "Overwrite: F")
	f.want(204, "COPY", "/d/f", "", "Destination: /d/g")
	f.want(409, "COPY", "/d/f", "", "Destination: /no/g")
	f.want(404, "COPY", "/d/no", "", "Destination: /d/h")
	f.want(403, "COPY", "/d/f", "", "Destination: /d/f")
	f.want(400, "COPY", "/d/f", "")
	f.want(502, "COPY", "/d/f", "", "Destination: https://elsewhere.example/d/g")
	f.want(502, "COPY", "/d/f", "", "Destination: "+f.server.URL+"/shares/share-2/f")
	f.want(502, "COPY", "/d/f", "", "Destination: "+f.server.URL+"/shares/share-12/f")
	f.want(400, "COPY", "/d", "", "Destination: /c", "Depth: 1")
	f.want(201, "COPY", "/d", "", "Destination: /shallow", "Depth: 0")
	f.absent("shallow/f")
	f.want(201, "COPY", "/d", "", "Destination: /c")
	f.onDisk("c/g", "two")

	f.want(201, "MOVE", "/c/g", "", "Destination: /c/h")
	f.absent("c/g")
	f.want(412, "MOVE", "/c/f", "", "Destination: /c/h", "Overwrite: F")
	f.want(204, "MOVE", "/c/f", "", "Destination: /c/h")
	f.want(404, "MOVE", "/c/no", "", "Destination: /c/i")
	f.want(409, "MOVE", "/c/h", "", "Destination: /no/h")
	f.want(403, "MOVE", "/", "", "Destination: /c/root")
	f.want(403, "MOVE", "/c", "", "Destination: /")
	f.want(201, "MOVE", "/c", "", "Destination: /moved")
	f.onDisk("moved/h", "two")

	f.want(404, "DELETE", "/no", "")
	f.want(404, "DELETE", "/no/no", "")
	f.want(403, "DELETE", "/", "")
	f.want(204, "DELETE", "/moved", "")
	f.absent("moved")
	f.want(204, "DELETE", "/d/f", "")
	f.stagingIsEmpty()
	if log := f.log.String(); log != "" {
		t.Errorf("refusals were logged as faults:\n%s", log)
	}
}

// TestReplacingIsNeverDeletion covers where x/net/webdav removes the destination before it knows that it can go on.
func TestReplacingIsNeverDeletion(t *testing.T) {
	f := newFixture(t)
	f.write("keep", "precious")
	f.write("tree/deep/file", "precious")
	f.write("other/file", "other")
	f.export()
	f.want(404, "MOVE", "/no", "", "Destination: /keep")
	f.want(404, "COPY", "/no", "", "Destination: /keep")
	f.onDisk("keep", "precious")
	f.want(403, "MOVE", "/tree/deep", "", "Destination: /tree")
	f.want(403, "MOVE", "/tree", "", "Destination: /tree/deep/in")
	f.onDisk("tree/deep/file", "precious")

	f.want(201, "COPY", "/tree", "", "Destination: /tree/deep/copy") // into itself, once and not for ever
	f.onDisk("tree/deep/copy/deep/file", "precious")
	f.absent("tree/deep/copy/deep/copy")
	f.want(204, "COPY", "/tree/deep/copy", "", "Destination: /tree") // onto its own ancestor
	f.onDisk("tree/deep/file", "precious")
	f.absent("tree/deep/copy")

	f.want(204, "MOVE", "/other", "", "Destination: /tree") // directory over directory
	f.onDisk("tree/file", "other")
	f.absent("tree/deep")
	f.absent("other")
	f.want(204, "MOVE", "/tree", "", "Destination: /keep") // directory over file
	f.onDisk("keep/file", "other")
	f.want(201, "PUT", "/file", "f")
	f.want(204, "MOVE", "/file", "", "Destination: /keep") // file over directory
	f.onDisk("keep", "f")
	f.stagingIsEmpty()
}

func TestBrokenUploadLeavesTheOldContent(t *testing.T) {
	f := newFixture(t)
	f.write("file", "old")
	f.export()
	for _, name := range []string{"file", "new"} {
		w, verdict, err := begin(f.ctx, f.server, f.client, f.url("/"+name), "half of the new")
		f.must(err)
		f.onDisk("file", "old")
		_ = w.CloseWithError(errors.New("the client died"))
		<-verdict
	}
	f.eventually("the uploads are discarded", func() bool {
		left, err := os.ReadDir(f.spec.Staging)
		return err == nil && len(left) == 0
	})
	f.onDisk("file", "old")
	f.absent("new")
}

// TestDurability watches the calls that make data durable: content before it is visible, the directory before the answer.
func TestDurability(t *testing.T) {
	for name, c := range map[string]struct {
		method, path, to string
		changed          func(root string) bool
		want             []string // what is synced, and whether the change was visible
	}{
		"PUT":       {"PUT", "/dir/file", "", contains("dir/file", "new"), []string{"staged false", "dir true"}},
		"PUT new":   {"PUT", "/dir/new", "", contains("dir/new", "new"), []string{"staged false", "dir true"}},
		"DELETE":    {"DELETE", "/dir/file", "", missing("dir/file"), []string{"dir true"}},
		"MKCOL":     {"MKCOL", "/dir/sub", "", exists("dir/sub"), []string{"dir true"}},
		"LOCK":      {"LOCK", "/dir/locked", "", exists("dir/locked"), []string{"locked true", "dir true"}},
		"MOVE":      {"MOVE", "/dir/file", "/other/file", exists("other/file"), []string{"other true", "dir true"}},
		"MOVE tree": {"MOVE", "/dir", "/other", contains("other/file", "old"), []string{"root true", "root true"}},
		"COPY":      {"COPY", "/dir/file", "/other/file", exists("other/file"), []string{"staged false", "other true"}},
		"COPY tree": {"COPY", "/dir", "/copy", exists("copy"), []string{"all false", "root true"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.write("dir/file", "old")
			f.must(os.Mkdir(filepath.Join(f.spec.Root, "other"), 0o755))
			var mu sync.Mutex
			var synced []string
			note := func(what string) {
				mu.Lock()
				defer mu.Unlock()
				synced = append(synced, fmt.Sprint(what, " ", c.changed(f.spec.Root)))
			}
			f.e.disk.sync = func(file *os.File) error {
				what := filepath.Base(file.Name())
				if strings.HasPrefix(what, stagingPrefix(f.spec.ID.Replica)) {
					what = "staged"
				}
				note(strings.Replace(what, ".", "root", 1)) // how the root was opened
				return file.Sync()
			}
			f.e.disk.syncAll = func(file *os.File) error { note("all"); return syncfs(file) }
			f.export()
			body := map[string]string{"PUT": "new", "LOCK": lockBody}[c.method]
			if res := f.do(c.method, c.path, body, "Destination: "+c.to); res.status >= 300 {
				t.Fatalf("%d %s", res.status, res.body)
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(synced, c.want) {
				t.Errorf("synced %q, want %q", synced, c.want)
			}
		})
	}
}

func contains(name, want string) func(string) bool {
	return func(root string) bool {
		got, err := os.ReadFile(filepath.Join(root, name))
		return err == nil && string(got) == want
	}
}

func exists(name string) func(string) bool {
	return func(root string) bool {
		_, err := os.Lstat(filepath.Join(root, name))
		return err == nil
	}
}

func missing(name string) func(string) bool {
	return func(root string) bool { return !exists(name)(root) }
}

// TestSyncFaults: what could not be made durable is not acknowledged, and a full disk is 507.
func TestSyncFaults(t *testing.T) {
	for name, c := range map[string]struct {
		cause  error
		status int
		logged bool
	}{
		"full disk":   {syscall.ENOSPC, 507, false},
		"disk quota":  {syscall.EDQUOT, 507, false},
		"broken disk": {syscall.EIO, 500, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.write("file", "old")
			f.e.disk.sync = func(file *os.File) error { return &os.PathError{Op: "sync", Path: file.Name(), Err: c.cause} }
			f.export()
			f.want(c.status, "PUT", "/file", "new")
			f.onDisk("file", "old")
			f.stagingIsEmpty()
			if logged := strings.Contains(f.log.String(), c.cause.Error()); logged != c.logged {
				t.Errorf("logged: %v, want %v:\n%s", logged, c.logged, f.log)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	f := newFixture(t)
	f.export()
	first := f.want(201, "PUT", "/file", "one", "If-None-Match: *").header.Get("ETag")
	f.want(412, "PUT", "/file", "two", "If-None-Match: *")
	second := f.want(204, "PUT", "/file", "two", "If-Match: "+first).header.Get("ETag")
	if second == first || second == "" {
		t.Fatalf("ETag %q after %q", second, first)
	}
	f.want(412, "PUT", "/file", "three", "If-Match: "+first)
	f.want(412, "DELETE", "/file", "", "If-Match: "+first)
	f.want(412, "PUT", "/no", "x", "If-Match: *")
	f.want(304, "GET", "/file", "", "If-None-Match: "+second)
	if listed := f.want(207, "PROPFIND", "/file", "").body; !strings.Contains(listed, strings.Trim(second, `"`)) {
		t.Errorf("PROPFIND does not show the ETag %s: %s", second, listed)
	}
	f.onDisk("file", "two")
	f.want(204, "DELETE", "/file", "", `If-Match: "no", `+second)
}

func TestLocks(t *testing.T) {
	f := newFixture(t)
	f.write("dir/file", "old")
	f.export()
	locked := f.want(200, "LOCK", "/dir/file", lockBody)
	token := locked.header.Get("Lock-Token")
	if !strings.Contains(locked.body, "Second-3600") {
		t.Errorf("a lock without a timeout is not bounded: %s", locked.body)
	}
	f.want(423, "PUT", "/dir/file", "x")
	f.want(423, "DELETE", "/dir/file", "")
	f.want(423, "LOCK", "/dir/file", lockBody)
	f.want(423, "MOVE", "/dir/file", "", "Destination: /moved")
	f.want(412, "PUT", "/dir/file", "x", "If: (<bogus>)")
	f.want(423, "DELETE", "/dir", "") // a member is locked by another client
	f.want(423, "MOVE", "/dir", "", "Destination: /moved")
	f.want(201, "PUT", "/other", "x")
	f.want(423, "COPY", "/other", "", "Destination: /dir")
	f.want(201, "COPY", "/dir/file", "", "Destination: /copy") // reading is free
	f.onDisk("dir/file", "old")

	tag := f.want(204, "PUT", "/dir/file", "mine", "If: ("+token+")").header.Get("ETag")
	f.want(412, "PUT", "/dir/file", "x", "If: ("+token+` ["bogus"])`)
	f.want(204, "PUT", "/dir/file", "mine too", "If: ("+token+" ["+tag+"])")
	f.onDisk("dir/file", "mine too")

	f.want(204, "DELETE", "/dir/file", "", "If: ("+token+")")
	f.want(201, "PUT", "/dir/file", "new") // the lock went with the file
	token = f.want(201, "LOCK", "/dir/empty", lockBody).header.Get("Lock-Token")
	f.onDisk("dir/empty", "")
	f.want(409, "LOCK", "/no/empty", lockBody)
	f.want(200, "LOCK", "/dir/empty", "", "If: ("+token+")")
	f.want(204, "UNLOCK", "/dir/empty", "", "Lock-Token: "+token)
	f.want(204, "PUT", "/dir/empty", "free")
}

func TestParallelUploads(t *testing.T) {
	f := newFixture(t)
	f.spec.EnforceSize = true
	f.export()
	f.want(201, "MKCOL", "/d", "")
	const files = 8
	var workers sync.WaitGroup
	for w := range parallel {
		workers.Go(func() {
			for n := range files {
				content := fmt.Sprintf("worker %d file %d", w, n)
				path := fmt.Sprintf("/d/%d-%d", w, n)
				if res := f.do("PUT", path, content); res.status != 201 {
					f.Errorf("PUT %s: %d %s", path, res.status, res.body)
				}
				if res := f.do("GET", path, ""); res.body != content {
					f.Errorf("GET %s: %q", path, res.body)
				}
			}
		})
	}
	workers.Wait()
	f.countedRight()
	f.stagingIsEmpty()
	if c := f.e.Counters(); c.Requests != 1+2*parallel*files || c.Refused != 0 || c.BytesIn == 0 || c.BytesIn != c.BytesOut {
		t.Errorf("counters: %+v", c)
	}
}

// TestReadersSeeWholeFiles: a file that is replaced again and again is always one of its versions.
func TestReadersSeeWholeFiles(t *testing.T) {
	f := newFixture(t)
	version := func(c byte) string { return strings.Repeat(string(c), 200_000) }
	f.write("file", version('a'))
	f.export()
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(done)
		for c := byte('b'); c < 'z'; c++ {
			f.do("PUT", "/file", version(c))
		}
	})
	for {
		select {
		case <-done:
			writer.Wait()
			return
		default:
		}
		got := f.do("GET", "/file", "").body
		if len(got) != 200_000 || got != version(got[0]) {
			t.Fatalf("read a mixture of versions, or %d bytes of one", len(got))
		}
	}
}
