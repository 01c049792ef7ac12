package webdav

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// patience bounds every wait of the tests: a hang fails with a name.
const patience = 20 * time.Second

// guard answers for the lease; the zero guard lets everything pass.
type guard struct {
	mu    sync.Mutex
	check func(cairn.ReplicaID, uint64) error
}

func (g *guard) Check(id cairn.ReplicaID, epoch uint64) error {
	g.mu.Lock()
	check := g.check
	g.mu.Unlock()
	if check == nil {
		return nil
	}
	return check(id, epoch)
}

func (g *guard) answer(check func(cairn.ReplicaID, uint64) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.check = check
}

// fixture is an exporter behind a real HTTPS server, with one directory to serve.
type fixture struct {
	*testing.T
	ctx    context.Context
	e      *Exporter
	guard  *guard
	server *httptest.Server
	client *http.Client
	spec   drivers.ExportSpec
	log    *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

var localhost = cairn.AccessRule{ID: "r1", Kind: cairn.AccessIP, Who: "127.0.0.1", Level: cairn.AccessRW, State: cairn.RuleActive}

func newFixture(t *testing.T) *fixture {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	f := &fixture{T: t, ctx: ctx, guard: &guard{}, log: &logBuffer{}}
	f.e, f.server = serve(t, f.guard, f.log)
	f.client = dial(t, f.server, netip.Addr{})
	base := t.TempDir()
	f.spec = drivers.ExportSpec{
		ID: drivers.ExportID{Replica: "replica-1"}, Share: "share-1", Epoch: 5, Size: 1 << 30,
		Root: filepath.Join(base, "data"), Staging: filepath.Join(base, "staging"), Rules: []cairn.AccessRule{localhost},
	}
	for _, dir := range []string{f.spec.Root, f.spec.Staging} {
		f.must(os.Mkdir(dir, 0o755))
	}
	return f
}

// serve starts an exporter behind TLS. Client certificates are verified where they are given, as the node does.
func serve(t testing.TB, g drivers.Guard, log io.Writer) (*Exporter, *httptest.Server) {
	server := httptest.NewUnstartedServer(nil)
	e := New(Config{
		BaseURL: "https://" + server.Listener.Addr().String(), Guard: g,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	server.Config.Handler = watched{e, &sync.Map{}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelDebug)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	return e, server
}

// watched lets a client wait until the exporter has read the first bytes of its upload.
type watched struct {
	http.Handler
	uploads *sync.Map // of *upload, by the value of the Test-Upload header
}

type upload struct {
	first int
	seen  chan struct{}
}

type watchedBody struct {
	io.ReadCloser
	upload *upload
	read   int
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.read >= b.upload.first { // the exporter asks for more: it has stored the first part
		select {
		case <-b.upload.seen:
		default:
			close(b.upload.seen)
		}
	}
	n, err := b.ReadCloser.Read(p)
	b.read += n
	return n, err
}

func (h watched) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if u, ok := h.uploads.Load(r.Header.Get("Test-Upload")); ok {
		r.Body = &watchedBody{ReadCloser: r.Body, upload: u.(*upload)}
	}
	h.Handler.ServeHTTP(w, r)
}

// begin starts a PUT that stays in progress; finish sends the rest and returns the status.
func begin(ctx context.Context, server *httptest.Server, client *http.Client, url, first string) (w *io.PipeWriter, verdict <-chan result, err error) {
	r, w := io.Pipe()
	u := &upload{first: len(first), seen: make(chan struct{})}
	key := fmt.Sprintf("%p", u)
	uploads := server.Config.Handler.(watched).uploads
	uploads.Store(key, u)
	defer uploads.Delete(key)
	req, err := http.NewRequestWithContext(ctx, "PUT", url, r)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Test-Upload", key)
	done := make(chan result, 1)
	go func() {
		res, err := roundTrip(client, req)
		res.err = err
		_ = r.CloseWithError(io.ErrClosedPipe)
		done <- res
	}()
	if _, err := io.WriteString(w, first); err != nil {
		res := <-done
		return nil, nil, fmt.Errorf("upload ended early: %d %s: %w", res.status, res.body, err)
	}
	select {
	case <-u.seen:
		return w, done, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// dial returns a client that connects from the given address, or from any.
func dial(t testing.TB, server *httptest.Server, from netip.Addr) *http.Client {
	transport := server.Client().Transport.(*http.Transport).Clone()
	dialer := &net.Dialer{}
	if from.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	transport.DialContext = dialer.DialContext
	transport.MaxIdleConnsPerHost = 32
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type result struct {
	status int
	header http.Header
	body   string
	err    error
}

func roundTrip(client *http.Client, req *http.Request) (result, error) {
	resp, err := client.Do(req)
	if err != nil {
		return result{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return result{status: resp.StatusCode, header: resp.Header, body: string(body)}, err
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) export() cairn.ExportLocation {
	f.Helper()
	spec := f.spec
	spec.Rules = slices.Clone(spec.Rules)
	at, err := f.e.Export(f.ctx, spec)
	f.must(err)
	return at[0]
}

// url is that of a path in the share, as it is: already encoded.
func (f *fixture) url(path string) string { return f.server.URL + "/shares/share-1" + path }

// do sends one request; headers are "Name: value". It may be called from any goroutine.
func (f *fixture) do(method, path, body string, headers ...string) result {
	f.Helper()
	req, err := http.NewRequestWithContext(f.ctx, method, f.url(path), strings.NewReader(body))
	if err != nil {
		return result{err: err}
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if name == "Destination" && strings.HasPrefix(value, "/") {
			value = f.url(value)
		}
		req.Header.Set(name, value)
	}
	if user, password, ok := strings.Cut(req.Header.Get("Test-User"), ":"); ok {
		req.SetBasicAuth(user, password)
	}
	res, err := roundTrip(f.client, req)
	res.err = err
	return res
}

// want sends a request and checks its status; every refusal must be one line.
func (f *fixture) want(status int, method, path, body string, headers ...string) result {
	f.Helper()
	res := f.do(method, path, body, headers...)
	if res.err != nil || res.status != status {
		f.Fatalf("%s %s %v: %d %.300q, %v; want %d", method, path, headers, res.status, res.body, res.err, status)
	}
	if status >= 400 && method != "HEAD" && (strings.Count(res.body, "\n") != 1 || !strings.HasSuffix(res.body, "\n")) {
		f.Errorf("%s %s: refusal is not one line: %q", method, path, res.body)
	}
	return res
}

func (f *fixture) onDisk(name, want string) {
	f.Helper()
	if got, err := os.ReadFile(filepath.Join(f.spec.Root, name)); err != nil || string(got) != want {
		f.Errorf("%s on disk: %.60q, %v; want %.60q", name, got, err, want)
	}
}

func (f *fixture) absent(name string) {
	f.Helper()
	if _, err := os.Lstat(filepath.Join(f.spec.Root, name)); !errors.Is(err, fs.ErrNotExist) {
		f.Errorf("%s is on disk (%v); want it absent", name, err)
	}
}

func (f *fixture) stagingIsEmpty() {
	f.Helper()
	if left, err := os.ReadDir(f.spec.Staging); err != nil || len(left) > 0 {
		f.Errorf("left in staging: %v, %v", left, err)
	}
}

func (f *fixture) write(name, data string) {
	f.Helper()
	path := filepath.Join(f.spec.Root, name)
	f.must(os.MkdirAll(filepath.Dir(path), 0o755))
	f.must(os.WriteFile(path, []byte(data), 0o644))
}

// used is what the exporter has counted.
func (f *fixture) used() int64 {
	x, _ := f.e.known(f.spec.ID)
	l := x.terms.Load().ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved != 0 {
		f.Errorf("%d bytes are reserved while nothing is in progress", l.reserved)
	}
	return l.used
}

// countedRight compares it with a fresh walk over the directory.
func (f *fixture) countedRight() {
	f.Helper()
	var want int64
	f.must(filepath.WalkDir(f.spec.Root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			want += info.Size()
		}
		return err
	}))
	if got := f.used(); got != want {
		f.Errorf("exporter counts %d used bytes, the directory holds %d", got, want)
	}
}

// eventually waits for a condition that another goroutine of the exporter brings about.
func (f *fixture) eventually(what string, ready func() bool) {
	f.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			f.Fatalf("waited in vain: %s", what)
		}
	}
}
