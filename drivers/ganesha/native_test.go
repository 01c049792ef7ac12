package ganesha_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/ganesha"
)

// These tests run a real Ganesha on this machine and read through libnfs: no NFS in the kernel is needed.

const (
	replicaID  cairn.ReplicaID  = "0198c000-0000-7000-8000-0000000000a1"
	shareID    cairn.ShareID    = "0198c000-0000-7000-8000-0000000000b1"
	snapshotID cairn.SnapshotID = "0198c000-0000-7000-8000-0000000000c1"
)

// native is an exporter with a directory to serve.
type native struct {
	*testing.T
	ctx    context.Context
	config ganesha.Config
	e      *ganesha.Exporter
	spec   drivers.ExportSpec
}

func newNative(t *testing.T) *native {
	t.Helper()
	for _, program := range []string{"ganesha.nfsd", "nfs-cat", "nfs-cp"} {
		if _, err := exec.LookPath(program); err != nil || os.Geteuid() != 0 {
			t.Skipf("needs root and %s: apt-get install nfs-ganesha nfs-ganesha-vfs libnfs-utils", program)
		}
	}
	t.Parallel()                                                   // they wait for grace periods
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a busy machine takes long
	t.Cleanup(cancel)
	n := &native{T: t, ctx: ctx, config: ganesha.DefaultConfig()}
	n.config.StateDir = t.TempDir()
	n.config.ServiceAddresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	n.config.Port = freePort(t)
	n.config.Grace = 3 * time.Second
	n.config.Guard, n.config.Logger = anyone{}, slog.New(slog.NewTextHandler(t.Output(), nil))
	n.spec = drivers.ExportSpec{
		ID: drivers.ExportID{Replica: replicaID}, Share: shareID, Root: t.TempDir(), Epoch: 4, Size: 1 << 30,
		Rules: []cairn.AccessRule{{ID: "r1", Kind: cairn.AccessIP, Who: "127.0.0.1", Level: cairn.AccessRW, State: cairn.RuleActive}},
	}
	n.ok(os.WriteFile(filepath.Join(n.spec.Root, "hello"), []byte("world"), 0o644))
	n.open()
	return n
}

func (n *native) open() {
	n.Helper()
	e, err := ganesha.New(n.config)
	n.ok(err)
	n.Cleanup(func() { n.ok(e.Close()) })
	n.e = e
}

// portSerial makes the ports of tests that run at the same time different ones.
var portSerial atomic.Uint32

// freePort is one that nobody listens on and that no outgoing connection gets.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 1000 {
		port := 10000 + (uint32(os.Getpid())*16+portSerial.Add(1))%20000
		if listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			if err := listener.Close(); err != nil {
				t.Fatal(err)
			}
			return uint16(port)
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (n *native) ok(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

func (n *native) export(spec drivers.ExportSpec) cairn.ExportLocation {
	n.Helper()
	at, err := n.e.Export(n.ctx, spec)
	n.ok(err)
	return at[0]
}

// url is a location as libnfs takes it.
func (n *native) url(at cairn.ExportLocation, name string) string {
	port := fmt.Sprint(n.config.Port)
	return strings.Replace(at.URL, ":"+port+"/", "/", 1) + "/" + name + "?version=4&nfsport=" + port
}

// cat reads a file, however often the grace period says later.
func (n *native) cat(at cairn.ExportLocation, name string) (string, error) {
	for {
		out, err := exec.CommandContext(n.ctx, "nfs-cat", n.url(at, name)).CombinedOutput()
		if err == nil {
			return string(out), nil
		}
		if !strings.Contains(string(out), "NFS4ERR_GRACE") || n.ctx.Err() != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
	}
}

func (n *native) reads(at cairn.ExportLocation, name, want string) {
	n.Helper()
	if got, err := n.cat(at, name); err != nil || got != want {
		n.Fatalf("read %s: %q, %v; want %q", name, got, err, want)
	}
}

func (n *native) refused(at cairn.ExportLocation, answers ...string) {
	n.Helper()
	_, err := n.cat(at, "hello")
	for _, answer := range answers {
		if err != nil && strings.Contains(err.Error(), answer) {
			return
		}
	}
	n.Errorf("read: %v; want one of %v", err, answers)
}

func (n *native) list() []drivers.ExportSpec {
	n.Helper()
	list, err := n.e.Exports(n.ctx)
	n.ok(err)
	return list
}

type anyone struct{}

// Check implements drivers.Guard.
func (anyone) Check(cairn.ReplicaID, uint64) error { return nil }

func TestNativeServe(t *testing.T) {
	n := newNative(t)
	if list := n.list(); len(list) != 0 {
		t.Fatalf("Exports of a new exporter: %v", list)
	}
	at := n.export(n.spec)
	n.reads(at, "hello", "world")
	local := filepath.Join(t.TempDir(), "up")
	n.ok(os.WriteFile(local, []byte("bytes"), 0o644))
	if out, err := exec.CommandContext(n.ctx, "nfs-cp", local, n.url(at, "up")).CombinedOutput(); err != nil {
		t.Fatalf("write: %v: %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(n.spec.Root, "up")); err != nil || string(got) != "bytes" {
		t.Errorf("on disk: %q, %v", got, err)
	}

	frozen := n.spec
	frozen.ID.Snapshot, frozen.ReadOnly, frozen.Root = snapshotID, true, t.TempDir()
	n.ok(os.WriteFile(filepath.Join(frozen.Root, "hello"), []byte("yesterday"), 0o644))
	old := n.export(frozen)
	n.reads(old, "hello", "yesterday")
	if out, err := exec.CommandContext(n.ctx, "nfs-cp", local, n.url(old, "up")).CombinedOutput(); err == nil {
		t.Errorf("write to a snapshot succeeded: %s", out)
	}
	if list := n.list(); !reflect.DeepEqual(list, []drivers.ExportSpec{n.spec, frozen}) {
		t.Errorf("Exports: %+v", list)
	}

	other := n.spec
	other.Rules = []cairn.AccessRule{{ID: "r2", Kind: cairn.AccessIP, Who: "10.0.0.0/8", Level: cairn.AccessRW, State: cairn.RuleActive}}
	n.export(other)
	n.refused(at, "NFS4ERR_ACCESS", "NFS4ERR_NOENT", "NFS4ERR_PERM")
	n.export(n.spec)
	n.reads(at, "hello", "world")
	n.ok(n.e.Unexport(n.ctx, n.spec.ID))
	n.refused(at, "NFS4ERR_NOENT")
	n.reads(old, "hello", "yesterday")
}

// Another root under the same name: what a promotion on the same node does.
func TestNativeRootMoves(t *testing.T) {
	n := newNative(t)
	at := n.export(n.spec)
	n.reads(at, "hello", "world")
	second := n.spec
	second.ID.Replica, second.Root, second.Epoch = "0198c000-0000-7000-8000-0000000000a2", t.TempDir(), 5
	n.ok(os.WriteFile(filepath.Join(second.Root, "hello"), []byte("moved"), 0o644))
	n.export(second)
	n.reads(at, "hello", "moved")
	n.ok(n.e.Unexport(n.ctx, second.ID))
	n.reads(at, "hello", "world")
}

func TestNativeRefuses(t *testing.T) {
	n := newNative(t)
	tests := []struct {
		name   string
		change func(*drivers.ExportSpec)
		want   error
	}{
		{"a size that nobody enforces", func(s *drivers.ExportSpec) { s.EnforceSize = true }, cairn.ErrNotSupported},
		{"a standby", func(s *drivers.ExportSpec) { s.ID.Snapshot, s.Standby = "0198c000-0000-7000-8000-0000000000c1", true }, cairn.ErrNotSupported},
		{"a user rule", func(s *drivers.ExportSpec) { s.Rules[0].Kind = cairn.AccessUser }, cairn.ErrNotSupported},
		{"no share", func(s *drivers.ExportSpec) { s.Share = "" }, cairn.ErrInvalid},
		{"a root that breaks out", func(s *drivers.ExportSpec) { s.Root = "/\"; } EXPORT {" }, cairn.ErrInvalid},
		{"no root", func(s *drivers.ExportSpec) { s.Root = "/no/such/root" }, cairn.ErrNotFound},
		{"a file", func(s *drivers.ExportSpec) { s.Root = "/etc/passwd" }, cairn.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := n.spec
			spec.Rules = append([]cairn.AccessRule(nil), spec.Rules...)
			tt.change(&spec)
			if _, err := n.e.Export(n.ctx, spec); !errors.Is(err, tt.want) {
				t.Errorf("Export: %v; want %v", err, tt.want)
			}
			if list := n.list(); len(list) != 0 {
				t.Errorf("Exports: %v", list)
			}
		})
	}
}

// What Ganesha itself refuses, here because the file system has no handles, is withdrawn without waiting for requests that nobody can have.
func TestNativeRefusedByGanesha(t *testing.T) {
	n := newNative(t)
	at := n.export(n.spec)
	spec := n.spec
	spec.ID.Snapshot, spec.Root = snapshotID, "/proc/sys"
	if _, err := n.e.Export(n.ctx, spec); !errors.Is(err, cairn.ErrUnavailable) || !strings.Contains(err.Error(), "has refused") {
		t.Fatalf("Export: %v; want a refusal", err)
	}
	ctx, cancel := context.WithTimeout(n.ctx, 20*time.Second)
	defer cancel()
	n.ok(n.e.Unexport(ctx, spec.ID))
	n.reads(at, "hello", "world")
}

// A Ganesha that is killed comes back with its exports; meanwhile nobody is told that they are served.
func TestNativeKilled(t *testing.T) {
	n := newNative(t)
	at := n.export(n.spec)
	n.reads(at, "hello", "world")
	n.kill()
	for served := true; served; { // until the end is noticed
		served = len(n.list()[0].Rules) > 0
		n.ok(n.ctx.Err())
	}
	if _, err := n.e.Export(n.ctx, n.spec); err != nil && (!errors.Is(err, cairn.ErrUnavailable) || !strings.Contains(err.Error(), "killed")) {
		t.Errorf("Export while Ganesha is down: %v; want cairn.ErrUnavailable that says it was killed", err)
	}
	for served := false; !served; {
		served = len(n.list()[0].Rules) > 0
		n.ok(n.ctx.Err())
	}
	n.reads(at, "hello", "world")
}

func (n *native) kill() {
	n.Helper()
	pid, err := os.ReadFile(filepath.Join(n.config.StateDir, "ganesha.pid"))
	n.ok(err)
	n.ok(exec.CommandContext(n.ctx, "kill", "-KILL", strings.TrimSpace(string(pid))).Run())
}

func TestNativeHandEdit(t *testing.T) {
	n := newNative(t)
	n.export(n.spec)
	path := filepath.Join(n.config.StateDir, "ganesha.conf")
	before, err := os.ReadFile(path)
	n.ok(err)
	for _, edit := range []string{strings.Replace(string(before), "127.0.0.1;", "*;", 1), "", "# cairn: {}"} {
		n.ok(os.WriteFile(path, []byte(edit), 0o600))
		if list := n.list(); !reflect.DeepEqual(list, []drivers.ExportSpec{n.spec}) {
			t.Errorf("Exports: %+v", list)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("the edit was not undone: %v\n%s", err, after)
		}
	}
}

// A fence holds over a restart, and the restart serves nothing.
func TestNativeFence(t *testing.T) {
	n := newNative(t)
	at := n.export(n.spec)
	n.ok(n.e.Fence(n.ctx, replicaID, 5))
	n.refused(at, "NFS4ERR_NOENT")
	n.ok(n.e.Close())
	n.open()
	if list := n.list(); len(list) != 0 {
		t.Errorf("Exports after a restart: %v", list)
	}
	if _, err := n.e.Export(n.ctx, n.spec); !errors.Is(err, cairn.ErrStale) {
		t.Errorf("Export below the fence after a restart: %v; want cairn.ErrStale", err)
	}
	n.spec.Epoch = 5
	n.reads(n.export(n.spec), "hello", "world")
}

// A configuration that cannot be written must not keep a fence from holding: Ganesha ends, and stays down until it can.
func TestNativeFenceWithoutDisk(t *testing.T) {
	n := newNative(t)
	at := n.export(n.spec)
	n.reads(at, "hello", "world")
	path := filepath.Join(n.config.StateDir, "ganesha.conf")
	n.ok(os.Remove(path))
	n.ok(os.MkdirAll(filepath.Join(path, "taken"), 0o700)) // what no rename replaces
	if err := n.e.Fence(n.ctx, replicaID, 5); err == nil {
		t.Error("Fence succeeded although nothing could be written")
	}
	if _, err := n.cat(at, "hello"); err == nil {
		t.Error("a fenced share was read")
	}
	n.ok(os.RemoveAll(path))
	n.ok(n.e.Fence(n.ctx, replicaID, 5))
	n.spec.Epoch = 5
	for { // it is started again when it is its time
		if _, err := n.e.Export(n.ctx, n.spec); err == nil {
			break
		} else if !errors.Is(err, cairn.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	n.reads(at, "hello", "world")
}

// What cannot be started is said plainly.
func TestNativeNotInstalled(t *testing.T) {
	n := newNative(t)
	n.config.Binary = "cairn-no-such-ganesha"
	n.open()
	_, err := n.e.Export(n.ctx, n.spec)
	if !errors.Is(err, cairn.ErrUnavailable) || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("Export: %v; want cairn.ErrUnavailable that says why", err)
	}
	n.ok(n.e.Unexport(n.ctx, n.spec.ID))
}
