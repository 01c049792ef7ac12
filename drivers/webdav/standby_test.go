package webdav

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// point makes a directory with one file, and how a standby serves it.
func (f *fixture) point(name, content string) drivers.ExportSpec {
	f.Helper()
	spec := drivers.ExportSpec{
		ID: drivers.ExportID{Replica: "replica-1", Snapshot: cairn.SnapshotID(name)}, Share: "share-1", Epoch: 5,
		Root: filepath.Join(f.TempDir(), name), ReadOnly: true, Standby: true, Rules: []cairn.AccessRule{localhost},
	}
	f.must(os.Mkdir(spec.Root, 0o755))
	f.must(os.WriteFile(filepath.Join(spec.Root, "file"), []byte(content), 0o644))
	return spec
}

func (f *fixture) inUse(id drivers.ExportID, want bool) {
	f.Helper()
	if got, err := f.e.InUse(f.ctx, id); err != nil || got != want {
		f.Errorf("point %s is in use: %t (%v), want %t", id.Snapshot, got, err, want)
	}
}

// A standby goes on to the next point in time without a gap: what has begun is read to its end from the one that it began with.
func TestStandbyGoesOn(t *testing.T) {
	f := newFixture(t)
	big := make([]byte, 64<<20) // more than sockets hold
	first, second := f.point("sync-1", string(big)), f.point("sync-2", "two")
	locations, err := f.e.Export(f.ctx, first)
	f.must(err)
	url := locations[0].URL + "file"
	if want := f.server.URL + "/replicas/replica-1/"; len(locations) != 1 || locations[0].URL != want || !locations[0].ReadOnly || locations[0].Preferred {
		t.Errorf("locations %+v, want %s, read-only", locations, want)
	}
	f.inUse(first.ID, false)
	begun, err := http.NewRequestWithContext(f.ctx, http.MethodGet, url, nil)
	f.must(err)
	download, err := f.client.Do(begun)
	f.must(err)
	defer download.Body.Close()
	f.inUse(first.ID, true)
	again, err := f.e.Export(f.ctx, second)
	f.must(err)
	if again[0] != locations[0] {
		t.Errorf("the location changed to %v", again)
	}
	if _, err := f.e.Export(f.ctx, first); err != nil { // its rules change, say: it stays behind
		t.Fatal(err)
	}
	f.readsPoint(url, "two", "sync-2")
	f.inUse(first.ID, true)
	var n int64
	for chunk := make([]byte, 1<<20); ; {
		read, err := download.Body.Read(chunk)
		if n += int64(read); err != nil {
			break
		}
	}
	if n != int64(len(big)) || download.Header.Get(Point) != "sync-1" {
		t.Errorf("what had begun ended after %d of %d bytes, from point %q", n, len(big), download.Header.Get(Point))
	}
	f.must(f.e.Unexport(f.ctx, first.ID))
	f.inUse(first.ID, false)
	f.readsPoint(url, "two", "sync-2")
	f.must(f.e.Unexport(f.ctx, second.ID))
	f.answers(http.StatusServiceUnavailable, "GET", url)
}

// at sends a request to a URL of its own.
func (f *fixture) at(method, url string) result {
	f.Helper()
	req, err := http.NewRequestWithContext(f.ctx, method, url, strings.NewReader("x"))
	f.must(err)
	res, err := roundTrip(f.client, req)
	f.must(err)
	return res
}

func (f *fixture) answers(status int, method, url string) {
	f.Helper()
	if got := f.at(method, url); got.status != status {
		f.Errorf("%s %s: %d %.100q, want %d", method, url, got.status, got.body, status)
	}
}

func (f *fixture) readsPoint(url, content, point string) {
	f.Helper()
	got := f.at("GET", url)
	if got.status != http.StatusOK || got.body != content || got.header.Get(Point) != point {
		f.Errorf("GET %s: %d %.20q from point %q, want %q from %q", url, got.status, got.body, got.header.Get(Point), content, point)
	}
}

// Whatever the rules and the spec say, nobody writes to a standby, and its path is not that of the share.
func TestStandbyIsNeverWritable(t *testing.T) {
	f := newFixture(t)
	spec := f.point("sync-1", "one")
	spec.ReadOnly = false
	locations, err := f.e.Export(f.ctx, spec)
	f.must(err)
	for _, method := range []string{"PUT", "DELETE", "MKCOL", "PROPPATCH", "LOCK"} {
		f.answers(http.StatusForbidden, method, locations[0].URL+"file")
	}
	f.answers(http.StatusServiceUnavailable, "GET", f.server.URL+"/shares/share-1/file")
	f.answers(http.StatusServiceUnavailable, "GET", f.server.URL+"/snapshots/sync-1/file")
	f.guard.answer(func(cairn.ReplicaID, uint64) error { return cairn.ErrStale })
	f.answers(http.StatusServiceUnavailable, "GET", locations[0].URL+"file")
	spec.ID.Snapshot = ""
	if _, err := f.e.Export(f.ctx, spec); err == nil {
		t.Error("a standby was served from what it receives into")
	}
}
