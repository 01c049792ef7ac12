package zfs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/zfs"
)

// fixture is one pool on a machine, and every command that it has run.
type fixture struct {
	*testing.T
	s   storage
	p   *zfs.Pool
	mu  sync.Mutex
	ran []string
}

func newFixture(t *testing.T, m machine, edit func(*zfs.Config)) *fixture {
	t.Helper()
	s, remove := m.harness().New(t)
	t.Cleanup(remove)
	f := &fixture{T: t, s: s.(storage)}
	f.open(edit)
	t.Cleanup(func() { must(t, f.p.Close()) })
	return f
}

func (f *fixture) open(edit func(*zfs.Config)) {
	f.Helper()
	cfg := f.s.config(func(_ string, do func() error) error { return do() })
	cfg.Runner = recorder{cfg.Runner, f}
	if edit != nil {
		edit(&cfg)
	}
	var err error
	f.p, err = zfs.Open(f.Context(), cfg)
	must(f.T, err)
}

// recorder remembers every command.
type recorder struct {
	zfs.Runner
	f *fixture
}

func (r recorder) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	r.remember(c)
	return r.Runner.Run(ctx, c)
}

func (r recorder) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (tool.Result, error) {
	r.remember(c)
	return r.Runner.Stream(ctx, c, stdin, stdout)
}

func (r recorder) remember(c tool.Cmd) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.ran = append(r.f.ran, c.Name+" "+strings.Join(c.Args, " "))
}

func (f *fixture) zfs(args ...string) string {
	f.Helper()
	out, err := f.s.run("zfs", args...)
	must(f.T, err)
	return strings.TrimSpace(out)
}

func (f *fixture) property(name, of string) string {
	f.Helper()
	return f.zfs("get", "-Hp", "-o", "value", name, f.s.dataset+"/"+of)
}

func (f *fixture) create(id cairn.ReplicaID, specs map[string]string) drivers.Object {
	f.Helper()
	object, err := f.p.Create(f.Context(), drivers.CreateSpec{ID: id, Epoch: 1, Size: gib / 8, Specs: specs})
	must(f.T, err)
	return object
}

func (f *fixture) stat(id cairn.ReplicaID) drivers.Object {
	f.Helper()
	object, err := f.p.Stat(f.Context(), id)
	must(f.T, err)
	return object
}

func (f *fixture) write(id cairn.ReplicaID, text string) {
	f.Helper()
	must(f.T, os.WriteFile(filepath.Join(f.stat(id).Root, "file"), []byte(text), 0o644))
}

// holds checks what clients would read from a root.
func (f *fixture) holds(root, text string) {
	f.Helper()
	if data, err := os.ReadFile(filepath.Join(root, "file")); err != nil || string(data) != text {
		f.Errorf("%s holds %.40q, %v; want %.40q", root, data, err, text)
	}
}

func (f *fixture) snapshot(id cairn.ReplicaID, snap cairn.SnapshotID) drivers.SnapshotObject {
	f.Helper()
	object, err := f.p.CreateSnapshot(f.Context(), id, 1, snap)
	must(f.T, err)
	return object
}

func (f *fixture) stream(id cairn.ReplicaID, spec drivers.SendSpec) []byte {
	f.Helper()
	var stream bytes.Buffer
	must(f.T, f.p.Send(f.Context(), id, spec, &stream))
	return stream.Bytes()
}

func (f *fixture) receive(id cairn.ReplicaID, snap, base cairn.SnapshotID, stream []byte) error {
	return f.p.Receive(f.Context(), drivers.ReceiveSpec{
		CreateSpec: drivers.CreateSpec{ID: id, Epoch: 1, Size: gib / 8}, Snapshot: snap, Base: base,
	}, bytes.NewReader(stream))
}

func (f *fixture) transfer(from, to cairn.ReplicaID, snap, base cairn.SnapshotID) {
	f.Helper()
	must(f.T, f.receive(to, snap, base, f.stream(from, drivers.SendSpec{Snapshot: snap, Base: base})))
}

func (f *fixture) is(what string, err, want error, texts ...string) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s: %v; want %v", what, err, want)
		return
	}
	if errors.Is(err, cairn.ErrNotFound) != errors.Is(want, cairn.ErrNotFound) {
		f.Errorf("%s: %v; wraps two sentinels", what, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			f.Errorf("%s: %v; want %q in it", what, err, text)
		}
	}
}

// words are the arguments of every command that was run.
func (f *fixture) words() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var words []string
	for _, line := range f.ran {
		words = append(words, strings.Fields(line)...)
	}
	slices.Sort(words)
	return slices.Compact(words)
}
