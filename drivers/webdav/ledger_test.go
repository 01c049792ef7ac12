package webdav

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
)

func newSizedFixture(t *testing.T, size int64) *fixture {
	f := newFixture(t)
	f.spec.Size, f.spec.EnforceSize = size, true
	return f
}

func TestSizeIsEnforced(t *testing.T) {
	const kib = 1024
	f := newSizedFixture(t, 100*kib)
	f.write("dir/before", strings.Repeat("b", 30*kib))
	f.must(os.Symlink("before", filepath.Join(f.spec.Root, "dir/link"))) // costs nothing
	f.export()
	f.want(201, "PUT", "/a", strings.Repeat("a", 50*kib))
	refused := f.want(507, "PUT", "/b", strings.Repeat("b", 21*kib))
	if want := "share is full: 80KiB used of 100KiB and 0B being written, this needs 21KiB more; delete files or extend the share: no space left\n"; refused.body != want {
		t.Errorf("507 says %q, want %q", refused.body, want)
	}
	f.absent("b")
	f.want(201, "PUT", "/b", strings.Repeat("b", 20*kib)) // to the last byte
	f.want(507, "PUT", "/c", "c")
	f.want(201, "PUT", "/empty", "")
	f.want(204, "PUT", "/a", strings.Repeat("A", 50*kib)) // replaces what it counted before
	f.want(507, "PUT", "/a", strings.Repeat("A", 50*kib+1))
	f.want(507, "COPY", "/a", "", "Destination: /copy")
	f.want(507, "COPY", "/dir", "", "Destination: /copy")
	f.want(204, "COPY", "/b", "", "Destination: /a") // smaller than what it replaces
	f.want(201, "MOVE", "/a", "", "Destination: /dir/a")
	f.want(204, "MOVE", "/dir/a", "", "Destination: /b")
	f.countedRight()
	f.want(201, "COPY", "/dir", "", "Destination: /copy")
	f.want(204, "MOVE", "/b", "", "Destination: /copy")
	f.countedRight()
	f.want(204, "DELETE", "/dir", "")
	f.want(204, "DELETE", "/copy", "")
	if used := f.used(); used != 0 {
		t.Errorf("%d bytes are counted in an empty share", used)
	}
	f.countedRight()
	f.stagingIsEmpty()
}

func TestUnknownLengthIsCountedAsItComes(t *testing.T) {
	f := newSizedFixture(t, 1000)
	f.write("file", strings.Repeat("o", 600))
	f.export()
	for path, c := range map[string]struct {
		bytes, status int
	}{
		"/file": {1000, 204}, "/new": {1, 507}, "/none": {0, 201},
	} {
		if path != "/file" && f.used() != 1000 {
			f.want(204, "PUT", "/file", strings.Repeat("f", 1000))
		}
		w, verdict, err := begin(f.ctx, f.server, f.client, f.url(path), "")
		f.must(err)
		_, _ = io.WriteString(w, strings.Repeat("n", c.bytes)) // the verdict tells
		_ = w.Close()
		if res := <-verdict; res.err != nil || res.status != c.status {
			t.Errorf("%s: %d %q %v, want %d", path, res.status, res.body, res.err, c.status)
		}
	}
	f.countedRight()
}

// TestConcurrentUploadsShareTheRoom: each of them would fit, all together would not.
func TestConcurrentUploadsShareTheRoom(t *testing.T) {
	f := newSizedFixture(t, 10_000)
	f.export()
	var stored, refused atomic.Int64
	var workers sync.WaitGroup
	for n := range parallel {
		workers.Go(func() {
			switch res := f.do("PUT", fmt.Sprintf("/%d", n), strings.Repeat("x", 3000)); res.status {
			case 201:
				stored.Add(1)
			case 507:
				refused.Add(1)
			default:
				t.Errorf("%d %q %v", res.status, res.body, res.err)
			}
		})
	}
	workers.Wait()
	if stored.Load() != 3 || refused.Load() != parallel-3 {
		t.Errorf("%d uploads of 3000 bytes were stored in 10000, %d refused", stored.Load(), refused.Load())
	}
	f.countedRight()
	// An upload in progress has its room already, and gives it back when it breaks off.
	f.want(204, "DELETE", "/"+f.anyFile(), "")
	w, verdict, err := begin(f.ctx, f.server, f.client, f.url("/slow"), strings.Repeat("s", 4000))
	f.must(err)
	f.want(507, "PUT", "/late", "x")
	_ = w.CloseWithError(errors.New("the client died"))
	<-verdict
	f.eventually("the room is given back", func() bool { return f.do("PUT", "/late", strings.Repeat("l", 4000)).status == 201 })
	f.countedRight()
}

func (f *fixture) anyFile() string {
	f.Helper()
	entries, err := os.ReadDir(f.spec.Root)
	f.must(err)
	return entries[0].Name()
}

// TestExportAgainDoesNotCountAgain: a file from outside shows whether the directory was walked.
func TestExportAgainDoesNotCountAgain(t *testing.T) {
	f := newSizedFixture(t, 1000)
	f.write("file", "12345")
	f.export()
	f.write("from-outside", "1234567890")
	f.spec.Size = 2000
	f.export()
	if used := f.used(); used != 5 {
		t.Errorf("counted again: %d", used)
	}
	f.want(201, "PUT", "/more", strings.Repeat("m", 1995)) // the new size holds
	f.want(507, "PUT", "/too-much", "x")
	f.spec.Size = 1000 // below what is used: only what needs no room
	f.export()
	f.want(204, "PUT", "/more", strings.Repeat("m", 1995))
	f.want(507, "PUT", "/more", strings.Repeat("m", 1996))
	f.want(204, "PUT", "/more", "m")

	// While it was read-only others may have written it, so then it is counted again.
	f.spec.ReadOnly = true
	f.export()
	f.spec.ReadOnly = false
	f.export()
	f.countedRight()
}

func TestReservationNeverOverflows(t *testing.T) {
	l := &ledger{size: cairn.MaxSize, used: 10}
	a, b := l.reserve(0), l.reserve(0)
	if err := a.grow(cairn.MaxSize - 20); err != nil {
		t.Fatal(err)
	}
	if err := b.grow(math.MaxInt64); !errors.Is(err, cairn.ErrNoSpace) {
		t.Errorf("a reservation of MaxInt64: %v", err)
	}
	if err := b.grow(11); !errors.Is(err, cairn.ErrNoSpace) {
		t.Errorf("one byte too many: %v", err)
	}
	if err := b.grow(10); err != nil {
		t.Errorf("the last bytes: %v", err)
	}
	a.drop()
	b.book()
	if l.used != 20 || l.reserved != 0 {
		t.Errorf("used %d, reserved %d", l.used, l.reserved)
	}
}

// TestCountSurvivesAnything runs random changes from many clients on few names, so that they collide, and compares the
// count with the directory.
func TestCountSurvivesAnything(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := newSizedFixture(t, 50_000)
	f.export()
	paths := []string{"/a", "/b", "/d", "/d/a", "/d/b", "/d/e", "/d/e/a", "/f", "/f/a"}
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			pick := func() string { return paths[random.IntN(len(paths))] }
			for range 60 {
				var res result
				switch random.IntN(6) {
				case 0:
					res = f.do("DELETE", pick(), "")
				case 1:
					res = f.do("MOVE", pick(), "", "Destination: "+pick())
				case 2:
					res = f.do("COPY", pick(), "", "Destination: "+pick())
				case 3:
					res = f.do("MKCOL", pick(), "")
				default:
					res = f.do("PUT", pick(), strings.Repeat("x", random.IntN(5000)))
				}
				if res.err != nil || res.status == 500 {
					t.Errorf("seed %d: %d %q %v", seed, res.status, res.body, res.err)
				}
			}
		})
	}
	workers.Wait()
	f.countedRight()
	f.stagingIsEmpty()
	if log := f.log.String(); log != "" {
		t.Errorf("seed %d: logged:\n%s", seed, log)
	}
}
