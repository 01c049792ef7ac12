package webdav

import (
	"encoding/xml"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestLinksDoNotLeadOut puts links into a share that a client could not make, as an adopted directory may hold them.
func TestLinksDoNotLeadOut(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	f.must(os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
	f.write("inside", "inside")
	for name, target := range map[string]string{
		"file": filepath.Join(outside, "secret"), "dir": outside, "up": "../../../../../../../../" + outside,
		"good": "inside", "circle": "circle", "dangling": "nothing",
	} {
		f.must(os.Symlink(target, filepath.Join(f.spec.Root, name)))
	}
	f.export()
	f.want(403, "GET", "/file", "")
	f.want(403, "GET", "/dir/secret", "")
	f.want(403, "GET", "/up/secret", "")
	f.want(403, "GET", "/circle", "")
	f.want(404, "GET", "/dangling", "")
	f.want(403, "PROPFIND", "/dir", "")
	f.want(403, "PUT", "/dir/new", "x")
	f.want(403, "MKCOL", "/dir/new", "")
	f.want(403, "DELETE", "/dir/secret", "")
	f.want(403, "MOVE", "/inside", "", "Destination: /dir/new")
	f.want(403, "MOVE", "/dir/secret", "", "Destination: /stolen")
	f.want(403, "COPY", "/dir/secret", "", "Destination: /stolen")
	f.want(403, "LOCK", "/dir/new", lockBody)
	if got := f.want(200, "GET", "/good", "").body; got != "inside" {
		t.Errorf("a link inside the share: %q", got)
	}
	if listed := f.hrefs("/", "1"); !slices.Equal(listed, []string{"/", "/good", "/inside"}) {
		t.Errorf("PROPFIND lists %q", listed)
	}
	f.want(201, "COPY", "/dir", "", "Destination: /copied-link") // the link, not what it leads to
	f.want(403, "GET", "/copied-link/secret", "")
	f.want(204, "PUT", "/file", "mine") // replaces the link
	f.onDisk("file", "mine")
	f.want(204, "DELETE", "/dir", "") // removes the link
	if got, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(got) != "secret" {
		t.Errorf("outside of the share: %q, %v", got, err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside of the share: %v, %v", left, err)
	}
}

// hrefs lists what PROPFIND finds, relative to the share, sorted.
func (f *fixture) hrefs(path, depth string) []string {
	f.Helper()
	var answer struct {
		Responses []struct {
			Href string `xml:"href"`
		} `xml:"response"`
	}
	f.must(xml.Unmarshal([]byte(f.want(207, "PROPFIND", path, "", "Depth: "+depth).body), &answer))
	var list []string
	for _, r := range answer.Responses {
		name, err := url.PathUnescape(strings.TrimPrefix(r.Href, "/shares/share-1"))
		f.must(err)
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func TestPaths(t *testing.T) {
	f := newFixture(t)
	f.write("dir/file", "content")
	f.must(os.WriteFile(filepath.Join(f.spec.Root, "..", "beside"), []byte("secret"), 0o644))
	f.export()
	for path, want := range map[string]int{
		"/shares/share-1/dir/file":                 200,
		"/shares/share-1//dir///file":              200,
		"/shares/share-1/d%69r/file":               200,
		"/shares/share-1/../share-1/dir/file":      400,
		"/shares/share-1/dir/../dir/file":          400,
		"/shares/share-1/dir/./file":               400,
		"/shares/share-1/../beside":                400,
		"/shares/share-1/%2e%2e/beside":            400,
		"/shares/share-1/%2e%2e%2fbeside":          400,
		"/shares/share-1/..%2Fbeside":              400,
		"/shares/share-1/dir%2ffile":               400,
		"/shares/share-1/dir/file%00":              400,
		"/shares/share-1/..%5cbeside":              404, // a backslash is a letter
		"/shares/share-1/%252e%252e/beside":        404, // encoded twice: a name
		"/shares/share-1/.../beside":               404,
		"/shares/share-1/" + long("n", 300):        414,
		"/shares/share-1/dir/file/" + long("n", 9): 404,
		"/shares/share-1":                          405,
		"/shares/share-10/dir/file":                503,
		"/shares/share/dir/file":                   503,
		"/snapshots/share-1/dir/file":              503,
		"/shares/":                                 404,
		"/shares":                                  404,
		"/":                                        404,
		"/other/share-1/dir/file":                  404,
	} {
		r := httptest.NewRequest("GET", "https://host"+path, nil)
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		f.e.ServeHTTP(w, r)
		if w.Code != want || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("GET %s: %d %q, want %d", path, w.Code, w.Body, want)
		}
	}
	f.want(201, "PUT", "/d%C3%BCr%20%26%20%3Cd%C3%BCnn%3E%0A", "umlauts, markup and a line break")
	if listed := f.hrefs("/", "1"); !slices.Contains(listed, "/dür & <dünn>\n") {
		t.Errorf("PROPFIND lists %q", listed)
	}
	f.want(400, "MOVE", "/dir/file", "", "Destination: /../beside")
	f.want(400, "COPY", "/dir/file", "", "Destination: /%2e%2e/beside")
	f.onDisk("dir/file", "content")
}

func long(s string, n int) string { return strings.Repeat(s, n) }

// TestSpecialFiles: a FIFO without a writer must not block its reader.
func TestSpecialFiles(t *testing.T) {
	f := newFixture(t)
	f.must(syscall.Mkfifo(filepath.Join(f.spec.Root, "fifo"), 0o644))
	f.export()
	f.want(403, "GET", "/fifo", "")
	f.want(403, "COPY", "/fifo", "", "Destination: /copy")
	f.want(204, "DELETE", "/fifo", "")
}

func TestReading(t *testing.T) {
	f := newFixture(t)
	f.write("page.html", "<script>0123456789</script>")
	f.export()
	part := f.want(206, "GET", "/page.html", "", "Range: bytes=8-17")
	if part.body != "0123456789" || part.header.Get("Content-Range") != "bytes 8-17/27" {
		t.Errorf("range: %q %q", part.body, part.header.Get("Content-Range"))
	}
	f.want(416, "GET", "/page.html", "", "Range: bytes=100-")
	head := f.want(200, "HEAD", "/page.html", "")
	for name, want := range map[string]string{
		"Content-Length": "27", "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff",
	} {
		if got := head.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestLargeTree has more files than one answer of the kernel holds entries, and more than a process may have open.
func TestLargeTree(t *testing.T) {
	const dirs, files = 4, 1100
	f := newFixture(t)
	for d := range dirs {
		for n := range files {
			f.write(fmt.Sprintf("d%d/f%d", d, n), "")
		}
	}
	f.export()
	for _, c := range []struct {
		path, depth string
		want        int
	}{
		{"/", "infinity", 1 + dirs*(1+files)}, {"/d2", "1", 1 + files}, {"/", "1", 1 + dirs}, {"/", "0", 1},
	} {
		if n := strings.Count(f.want(207, "PROPFIND", c.path, "", "Depth: "+c.depth).body, "</D:response>"); n != c.want {
			t.Errorf("PROPFIND %s of depth %s lists %d entries, want %d", c.path, c.depth, n, c.want)
		}
	}
}
