package dav

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/net/webdav"
)

// serve runs a WebDAV server that lets in nobody but alice.
func serve(t *testing.T, handler http.Handler) Config {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "alice" || password != "secret" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return Config{URL: server.URL + "/shares/s1/", CA: ca, User: "alice", Password: "secret"}
}

func connect(t *testing.T, cfg Config) *Client {
	t.Helper()
	client, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func memory() *webdav.Handler {
	return &webdav.Handler{Prefix: "/shares/s1", FileSystem: webdav.NewMemFS(), LockSystem: webdav.NewMemLS()}
}

func TestRoundTrip(t *testing.T) {
	client, ctx := connect(t, serve(t, memory())), t.Context()
	const name = "a dir/100% ü?#.txt" // every character that a URL could misread
	data := bytes.Repeat([]byte("x"), 100_000)
	if err := client.Mkdir(ctx, "a dir"); err != nil {
		t.Fatal(err)
	}
	if err := client.Put(ctx, name, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if err := client.Put(ctx, "empty", strings.NewReader(""), 0); err != nil {
		t.Fatal(err)
	}
	body, err := client.Get(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes (%v), want the %d that were written", len(got), err, len(data))
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	if err := client.Move(ctx, "a dir", "b"); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(ctx, "empty"); err != nil {
		t.Fatal(err)
	}
	tree, err := client.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if moved := "b/100% ü?#.txt"; len(tree.Files) != 1 || tree.Files[moved] != int64(len(data)) {
		t.Errorf("files = %v, want only %q with %d bytes", tree.Files, moved, len(data))
	}
	if len(tree.Dirs) != 1 || !tree.Dirs["b"] {
		t.Errorf("directories = %v, want only b", tree.Dirs)
	}
}

func TestRefusals(t *testing.T) {
	cfg := serve(t, memory())
	ctx := t.Context()
	if err := connect(t, cfg).Delete(ctx, "absent"); StatusOf(err) != http.StatusNotFound {
		t.Errorf("delete of what is absent: %v, want 404", err)
	}
	wrong := cfg
	wrong.Password = "guess"
	if err := connect(t, wrong).Mkdir(ctx, "d"); StatusOf(err) != http.StatusUnauthorized || !strings.Contains(err.Error(), "who are you?") {
		t.Errorf("wrong password: %v, want 401 with the server's line", err)
	}
	other := serve(t, memory())
	cfg.CA = nil
	if _, err := New(cfg); err == nil {
		t.Error("a client without a CA was made: it would trust nobody, or everybody")
	}
	other.URL = strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	if err := connect(t, other).Mkdir(ctx, "d"); err == nil || StatusOf(err) != 0 {
		t.Errorf("certificate for another name: %v, want no connection", err)
	}
}

// TestListThatEndsEarly: half a list must not look like a whole one, because what it lacks would count as deleted.
func TestListThatEndsEarly(t *testing.T) {
	const whole = `<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>/shares/s1/a</D:href>` +
		`<D:propstat><D:prop><D:resourcetype></D:resourcetype><D:getcontentlength>7</D:getcontentlength></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>`
	answer := whole
	client := connect(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusMultiStatus)
		_, _ = io.WriteString(w, answer)
	})))
	if tree, err := client.List(t.Context()); err != nil || tree.Files["a"] != 7 {
		t.Fatalf("the whole list: %v, %v", tree, err)
	}
	for _, cut := range []int{0, len(whole) / 2, strings.Index(whole, "</D:multistatus>")} {
		answer = whole[:cut]
		if tree, err := client.List(t.Context()); err == nil {
			t.Errorf("the first %d bytes of a list were taken for all of it: %v", cut, tree)
		}
	}
}
