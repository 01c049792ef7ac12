package systemtest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// binary is how the tests call cairn: TestMain builds it and puts it first in PATH.
const binary = "cairn"

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() || inNamespace() {
		os.Exit(m.Run())
	}
	os.Exit(withBinary(m.Run))
}

func withBinary(run func() int) int {
	dir, err := os.MkdirTemp("", "cairn-systemtest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, binary), "../cmd/cairn")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := errors.Join(build.Run(), os.Setenv("PATH", dir+":"+os.Getenv("PATH"))); err != nil {
		fmt.Fprintln(os.Stderr, "build of cairn:", err)
		return 1
	}
	return run()
}

// cluster is a cluster whose failures end the test.
type cluster struct {
	*local.Cluster
	t *testing.T
}

// start makes a cluster of n servers, each with a pool of 10 GiB, and ends it with the test.
func start(t *testing.T, n int) *cluster {
	t.Helper()
	c := prepare(t)
	if err := c.Start(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return c
}

// in is the same cluster in a subtest.
func (c *cluster) in(t *testing.T) *cluster { return &cluster{c.Cluster, t} }

// prepare makes a cluster without servers.
func prepare(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts server processes: run without -short")
	}
	return prepareWith(t, local.Config{Executable: binary})
}

// prepareWith makes a cluster without servers, as cfg says.
func prepareWith(t *testing.T, cfg local.Config) *cluster {
	t.Helper()
	cfg.Dir, cfg.PoolSize = t.TempDir(), "10GiB"
	inner, err := local.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{inner, t}
	t.Cleanup(func() {
		if err := inner.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			c.showLogs()
		}
	})
	return c
}

// showLogs prints the end of every server's log.
func (c *cluster) showLogs() {
	const lines = 25
	for _, s := range c.Servers() {
		data, err := os.ReadFile(s.Log)
		if err != nil {
			continue // it was never started
		}
		all := strings.Split(strings.TrimSpace(string(data)), "\n")
		c.t.Logf("the end of the log of %s:\n%s", s.Name, strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
}

// outcome is how a command ended.
type outcome struct {
	command string
	stdout  string
	stderr  string // only of a command that did not succeed
	code    int
	took    time.Duration
}

// cli runs the command line against all running servers.
func (c *cluster) cli(args ...string) outcome {
	c.t.Helper()
	return c.cliAt(nil, args...)
}

// cliAt runs the command line against the given servers.
func (c *cluster) cliAt(servers []*local.Server, args ...string) outcome {
	c.t.Helper()
	began := time.Now()
	stdout, err := c.RunAt(c.t.Context(), servers, args...)
	return c.outcome(args, string(stdout), err, time.Since(began))
}

// serverTool runs the command line on a server's own configuration: init, join, server.
func (c *cluster) serverTool(stdin string, args ...string) outcome {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	return c.outcome(args, "", c.Tool(ctx, []byte(stdin), args...), time.Since(began))
}

func (c *cluster) outcome(args []string, stdout string, err error, took time.Duration) outcome {
	c.t.Helper()
	o := outcome{command: "cairn " + shorten(strings.Join(args, " ")), stdout: stdout, took: took}
	var exit *tool.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		o.code, o.stdout, o.stderr = exit.Code, string(exit.Stdout), string(exit.Stderr)
	default:
		c.t.Fatalf("%s: %v", o.command, err)
	}
	return o
}

func shorten(text string) string {
	if len(text) > 120 {
		return text[:120] + "…"
	}
	return text
}

// must runs a command that has to succeed and reads its JSON.
func (c *cluster) must(answer proto.Message, args ...string) {
	c.t.Helper()
	o := c.cli(append(args, "-o", "json")...)
	if o.code != 0 {
		c.t.Fatalf("%s: exit %d: %s", o.command, o.code, o.stderr)
	}
	if answer == nil {
		return
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(o.stdout), answer); err != nil {
		c.t.Fatalf("%s: %v in %s", o.command, err, o.stdout)
	}
}

// refused fails the test unless the command ended with the code, and with exactly one line on stderr, not too long, that has
// all the words.
func (o outcome) refused(t *testing.T, code int, words ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("%s: exit %d, want %d: %s%s", o.command, o.code, code, o.stdout, o.stderr)
		return
	}
	if line := strings.TrimSuffix(o.stderr, "\n"); line == "" || strings.Contains(line, "\n") || len(line) > 1200 {
		t.Errorf("%s: stderr is not one line of sensible length: %q", o.command, o.stderr)
	}
	for _, word := range words {
		if !strings.Contains(o.stderr, word) {
			t.Errorf("%s: stderr does not say %q: %s", o.command, word, o.stderr)
		}
	}
	if o.stdout != "" {
		t.Errorf("%s: was refused and printed a result: %s", o.command, o.stdout)
	}
}

// agree waits until all running servers are in the same state, and returns it.
func (c *cluster) agree() local.State {
	c.t.Helper()
	state, err := c.Agree(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return state
}

func (c *cluster) leader() *local.Server {
	c.t.Helper()
	leader, err := c.Leader(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return leader
}

// await waits for a condition, at most so long.
func (c *cluster) await(limit time.Duration, what string, condition func(ctx context.Context) (bool, error)) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	if err := local.Await(ctx, what, condition); err != nil {
		c.t.Fatal(err)
	}
}

// check ends the test on an error.
func (c *cluster) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// share is a share with a user who may write it.
type share struct {
	*cairnv1.Share
	files *dav.Client
}

// makeShare creates a share of the size, with access for the user "tester".
func (c *cluster) makeShare(name, size string) share {
	c.t.Helper()
	var made cairnv1.Share
	c.must(&made, "share", "create", name, "--size", size)
	var access cairnv1.AllowAccessResponse
	c.must(&access, "access", "allow", name, "user", "tester", "rw")
	if len(made.GetLocations()) == 0 || !made.GetLocations()[0].GetPreferred() {
		c.t.Fatalf("share %s: locations %v, want the preferred one first", name, made.GetLocations())
	}
	ca, err := c.CA()
	c.check(err)
	files, err := dav.New(dav.Config{
		URL: made.GetLocations()[0].GetUrl(), CA: ca, User: "tester", Password: access.GetPassword().GetPassword(),
		Connections: 4, Timeout: 20 * time.Second,
	})
	c.check(err)
	c.t.Cleanup(files.Close)
	return share{&made, files}
}

// host is the server that serves the share.
func (c *cluster) host(s share) *local.Server { return c.Server(s.GetReplicas()[0].GetNode()) }

func (c *cluster) put(s share, name string, content []byte) {
	c.t.Helper()
	c.check(s.files.Put(c.t.Context(), name, bytes.NewReader(content), int64(len(content))))
}

func (c *cluster) get(s share, name string) []byte {
	c.t.Helper()
	content, err := read(c.t.Context(), s.files, name)
	c.check(err)
	return content
}

func read(ctx context.Context, files *dav.Client, name string) ([]byte, error) {
	body, err := files.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var content bytes.Buffer
	_, err = content.ReadFrom(body)
	return content.Bytes(), err
}
