package sim_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/sim"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// bench is a simulated machine in a test.
type bench struct {
	*testing.T
	z   *sim.ZFS
	dir string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	z, err := sim.NewZFS(dir, sim.Pool{Name: "tank", Size: 832 << 20}, sim.Pool{Name: "other", Size: 96 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, z: z, dir: dir}
}

// do runs a command that must succeed, and returns what it says.
func (b *bench) do(line string) string {
	b.Helper()
	got, err := b.z.Run(b.Context(), command(line))
	if err != nil {
		b.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(string(got.Stdout))
}

// refused runs a command that must fail with a text.
func (b *bench) refused(line, want string) {
	b.Helper()
	_, err := b.z.Run(b.Context(), command(line))
	var exit *tool.ExitError
	if !errors.As(err, &exit) || exit.Code != 1 || !strings.Contains(string(exit.Stderr), want) {
		b.Errorf("%s: %v; want %q", line, err, want)
	}
}

func (b *bench) path(elements ...string) string {
	return filepath.Join(append([]string{b.dir}, elements...)...)
}

func (b *bench) fill(root, seed string) string {
	b.Helper()
	data := drivertest.Tree{Except: ".zfs"}
	if err := data.Fill(root, seed); err != nil {
		b.Fatal(err)
	}
	return b.print(root)
}

func (b *bench) print(root string) string {
	b.Helper()
	print, err := drivertest.Tree{Except: ".zfs"}.Fingerprint(root)
	if err != nil {
		b.Fatal(err)
	}
	return print
}

func (b *bench) holds(root, want string) {
	b.Helper()
	if got := b.print(root); got != want {
		b.Errorf("%s holds\n%s\nwant\n%s", root, got, want)
	}
}

func (b *bench) send(line string) []byte {
	b.Helper()
	var stream bytes.Buffer
	if _, err := b.z.Stream(b.Context(), command(line), nil, &stream); err != nil {
		b.Fatalf("%s: %v", line, err)
	}
	return stream.Bytes()
}

func (b *bench) receive(line string, stream []byte) error {
	b.Helper()
	_, err := b.z.Stream(b.Context(), command(line), bytes.NewReader(stream), nil)
	return err
}

func command(line string) tool.Cmd {
	words := strings.Fields(line)
	return tool.Cmd{Name: words[0], Args: words[1:]}
}

func TestContents(t *testing.T) {
	b := newBench(t)
	b.do("zfs create tank/a")
	b.do("zfs create tank/a/child")
	b.fill(b.path("tank/a/child"), "child")
	root := b.path("tank/a")
	if err := os.WriteFile(filepath.Join(root, "file"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.do("zfs snapshot tank/a@s1")
	b.do("zfs unmount tank/a/child")
	one := b.print(b.path("tank/a/.zfs/snapshot/s1"))
	if err := os.WriteFile(filepath.Join(root, "file"), []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.do("zfs mount tank/a/child")
	b.holds(b.path("tank/a/.zfs/snapshot/s1"), one)
	child := b.print(b.path("tank/a/child"))
	b.do("zfs clone tank/a@s1 tank/c")
	b.holds(b.path("tank/c"), one)
	b.do("zfs rollback tank/a@s1")
	b.holds(b.path("tank/a/child"), child)
	b.do("zfs rename tank/a tank/b")
	b.holds(b.path("tank/b/child"), child)
	b.holds(b.path("tank/b/.zfs/snapshot/s1"), one)
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old mountpoint is still there: %v", err)
	}
	b.do("zfs promote tank/c")
	b.holds(b.path("tank/c/.zfs/snapshot/s1"), one)
	b.do("zfs destroy -r tank/b")
	b.holds(b.path("tank/c"), one)
}

func TestUnmountedContentsAreKept(t *testing.T) {
	b := newBench(t)
	b.do("zfs create tank/a")
	one := b.fill(b.path("tank/a"), "one")
	b.do("zfs unmount tank/a")
	if left, err := os.ReadDir(b.path("tank/a")); err != nil || len(left) > 0 {
		t.Errorf("an unmounted file system shows %v, %v", left, err)
	}
	b.do("zfs mount tank/a")
	b.holds(b.path("tank/a"), one)
	restore, err := b.z.Export("tank")
	if err != nil {
		t.Fatal(err)
	}
	b.refused("zfs list -Hp -o name tank/a", "dataset does not exist")
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	b.holds(b.path("tank/a"), one)
}

// A driver takes whatever zfs reports for the truth, so a simulator that makes something up is worse than none.
func TestNothingIsGuessed(t *testing.T) {
	b := newBench(t)
	for _, line := range []string{
		"zfs", "zfs program tank x", "zfs create -V 1G tank/v", "zfs list", "zfs list -Hp -o nosuch", "zfs list -H -o used",
		"zfs get -Hp all tank", "zfs create -o sharenfs=on tank/a", "zfs send tank", "zpool destroy tank", "lvs", "zfs create",
		"zfs create tank/a tank/b", "zfs create -o", "zfs create -o mountpoint=/etc tank/a",
	} {
		_, err := b.z.Run(t.Context(), command(line))
		if err == nil || errors.As(err, new(*tool.ExitError)) || !strings.HasPrefix(err.Error(), "sim: ") {
			t.Errorf("%s: %v; want an error of the simulator", line, err)
		}
	}
	if got := b.do("zfs list -Hp -o name"); got != "other\ntank" {
		t.Errorf("left behind: %q", got)
	}
}

func TestStreams(t *testing.T) {
	b := newBench(t)
	b.do("zfs create tank/a")
	one := b.fill(b.path("tank/a"), strings.Repeat("one", 20))
	b.do("zfs snapshot tank/a@s1")
	two := b.fill(b.path("tank/a"), "two")
	b.do("zfs snapshot tank/a@s2")
	full, more := b.send("zfs send tank/a@s1"), b.send("zfs send -i @s1 tank/a@s2")

	for cut := range 5 {
		at := len(full) * cut / 5
		if err := b.receive("zfs receive -s other/b", full[:at]); err == nil {
			t.Fatalf("a stream that ends after %d of %d bytes was received", at, len(full))
		}
		token := "-"
		if cut > 1 {
			token = b.do("zfs get -Hp -o value receive_resume_token other/b")
			b.refused("zfs snapshot other/b@x", "dataset is busy")
		}
		if token != "-" {
			if err := b.receive("zfs receive -s other/b", b.send("zfs send -t "+token)); err != nil {
				t.Fatal(err)
			}
			b.holds(b.path("other/b"), one)
			b.do("zfs destroy -r other/b")
		}
	}
	for i := range 40 {
		at := len(full) * i / 40
		damaged := bytes.Clone(full)
		damaged[at] ^= 1
		if err := b.receive("zfs receive other/b", damaged); !errors.As(err, new(*tool.ExitError)) {
			t.Fatalf("a stream damaged at %d of %d bytes: %v", at, len(full), err)
		}
		b.refused("zfs list -Hp -o name other/b", "dataset does not exist")
	}
	for _, stream := range [][]byte{full, more} {
		if err := b.receive("zfs receive other/b", stream); err != nil {
			t.Fatal(err)
		}
	}
	b.holds(b.path("other/b"), two)
	b.holds(b.path("other/b/.zfs/snapshot/s1"), one)
	if b.do("zfs get -Hp -o value guid tank/a@s2") != b.do("zfs get -Hp -o value guid other/b@s2") {
		t.Error("the received snapshot has another guid")
	}
}

// Sender and receiver of one machine run at the same time.
func TestPipe(t *testing.T) {
	b := newBench(t)
	b.do("zfs create tank/a")
	one := b.fill(b.path("tank/a"), strings.Repeat("one", 20))
	b.do("zfs snapshot tank/a@s1")
	in, out := io.Pipe()
	sent := make(chan error)
	go func() {
		_, err := b.z.Stream(t.Context(), command("zfs send tank/a@s1"), nil, out)
		sent <- errors.Join(err, out.Close())
	}()
	_, err := b.z.Stream(t.Context(), command("zfs receive other/b"), in, nil)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	b.holds(b.path("other/b"), one)
}

// What is being sent cannot be destroyed.
func TestSentSnapshotIsBusy(t *testing.T) {
	b := newBench(t)
	b.do("zfs create tank/a")
	b.do("zfs snapshot tank/a@s1")
	in, out := io.Pipe()
	sent := make(chan error)
	go func() {
		_, err := b.z.Stream(t.Context(), command("zfs send tank/a@s1"), nil, out)
		sent <- err
	}()
	if _, err := in.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	b.refused("zfs destroy tank/a@s1", "dataset is busy")
	broken := errors.New("nobody listens")
	if err := in.CloseWithError(broken); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; !errors.Is(err, broken) {
		t.Errorf("send to a broken pipe: %v", err)
	}
	b.do("zfs destroy tank/a@s1")
}

// A reader that breaks leaves what has arrived, and both are in the error.
func TestReceiveFromABrokenReader(t *testing.T) {
	b := newBench(t)
	b.do("zfs create tank/a")
	b.fill(b.path("tank/a"), strings.Repeat("one", 20))
	b.do("zfs snapshot tank/a@s1")
	full := b.send("zfs send tank/a@s1")
	broken := errors.New("the network is gone")
	reader := io.MultiReader(bytes.NewReader(full[:len(full)/2]), failing{broken})
	_, err := b.z.Stream(t.Context(), command("zfs receive -s other/b"), reader, nil)
	if !errors.Is(err, broken) || !errors.As(err, new(*tool.ExitError)) {
		t.Errorf("receive: %v", err)
	}
	if b.do("zfs get -Hp -o value receive_resume_token other/b") == "-" {
		t.Error("nothing was kept")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestHang(t *testing.T) {
	b := newBench(t)
	synctest.Test(t, func(t *testing.T) {
		release := b.z.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := b.z.Run(ctx, command("zfs create tank/a")); !errors.Is(err, cairn.ErrTimeout) {
			t.Errorf("a hanging command: %v; want cairn.ErrTimeout", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if _, err := b.z.Run(ctx, command("zfs create tank/a")); !errors.Is(err, cairn.ErrUnknownOutcome) {
			t.Errorf("a hanging command: %v; want cairn.ErrUnknownOutcome", err)
		}
		time.AfterFunc(time.Minute, release)
		if _, err := b.z.Run(t.Context(), command("zfs create tank/a")); err != nil {
			t.Error(err)
		}
	})
	if _, err := b.z.Run(canceled(t), command("zfs create tank/b")); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("after a cancellation: %v; want cairn.ErrUnavailable", err)
	}
	if got := b.do("zfs list -Hp -o name -r tank"); got != "tank\ntank/a" {
		t.Errorf("file systems: %q", got)
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestFaults(t *testing.T) {
	b := newBench(t)
	b.do("zfs create tank/a")
	b.z.FailNext("cannot create 'tank/b': the disk is on fire")
	b.refused("zfs create tank/b", "cannot create 'tank/b': the disk is on fire\n")
	resume := b.z.Suspend("tank")
	b.refused("zfs create tank/b", "pool I/O is currently suspended")
	b.do("zfs create other/b")
	resume()
	allow := b.z.Deny()
	b.refused("zfs create tank/b", "permission denied")
	allow()
	leave, err := b.z.Occupy("tank/a")
	if err != nil {
		t.Fatal(err)
	}
	b.refused("zfs destroy tank/a", "busy")
	leave()
	b.do("zfs destroy tank/a")
	if got := b.do("zfs list -Hp -o name -r tank"); got != "tank" {
		t.Errorf("file systems: %q", got)
	}
}
