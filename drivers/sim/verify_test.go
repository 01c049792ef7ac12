package sim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/drivers/sim"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// transcripts are all that were recorded, by name.
func transcripts(t *testing.T) map[string]*transcript.Transcript {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	all := make(map[string]*transcript.Transcript)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := transcript.Parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".txt")] = tr
	}
	return all
}

// The simulator answers as the real tools did, word for word.
func TestVerify(t *testing.T) {
	for name, tr := range transcripts(t) {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			tr.Exchanges = slices.DeleteFunc(tr.Exchanges, func(x transcript.Exchange) bool {
				return notSimulated[strings.Join(x.Argv, " ")]
			})
			names := &transcript.Names{Fixed: map[string]string{"/dir": m.dir, "/srv": m.srv}, Cells: sim.Cells, Order: sim.Order}
			transcript.Verify(t, tr, m, names)
		})
	}
}

// The list of exceptions has nothing that is no exception any more.
func TestNotSimulated(t *testing.T) {
	recorded := make(map[string]bool)
	for _, tr := range transcripts(t) {
		for _, x := range tr.Exchanges {
			recorded[strings.Join(x.Argv, " ")] = true
		}
	}
	for line := range notSimulated {
		if !recorded[line] {
			t.Errorf("no transcript has %q", line)
		}
	}
}

// notSimulated are commands of the transcripts for which the simulator has no answer.
var notSimulated = map[string]bool{
	"zfs inherit nosuch tank/a": true, // says everything that zfs knows about properties
	"zpool get -Hp feature@encryption,feature@bookmarks,feature@bookmark_v2,feature@extensible_dataset tank": true,
	"zfs send tank/cut": true, // a file system, not a snapshot
	// Limits do not stop writers, nor the mkdir of a mountpoint.
	"dd if=/dev/urandom of=/dir/tank/q/three bs=1M count=8 status=none": true,
	"zfs create tank/q/full":                true,
	"zfs clone tank/q@s1 tank/q/clone":      true,
	"zfs list -Hp -o name -r -t all tank/q": true,
	"zfs destroy tank/q@s1":                 true,
	// A key in a file.
	"zfs receive -u -o encryption=on -o keyformat=hex -o keylocation=file:///dir/key tank/withKey": true,
}

// recorded is the machine of the transcripts: zfs and exportfs are simulated, what breaks the machine is broken here, and
// what only touches files is run.
type recorded struct {
	z       *sim.ZFS
	exports *sim.Exports
	dir     string
	srv     string
	undo    map[string]func()
	restore func() error
}

func newMachine(t *testing.T) *recorded {
	dir := t.TempDir()
	z, err := sim.NewZFS(dir, sim.Pool{Name: "tank", Size: 448<<20 + 1<<18}, sim.Pool{Name: "other", Size: 112 << 20}, sim.Pool{Name: "frail", Size: 112 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "disks"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &recorded{z: z, exports: sim.NewExports(), dir: dir, srv: t.TempDir(), undo: make(map[string]func())}
}

func (m *recorded) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	line := strings.Join(append([]string{c.Name}, c.Args...), " ")
	switch c.Name {
	case "zfs", "cat":
		return m.z.Run(ctx, c)
	case "exportfs":
		return m.exports.Run(ctx, c)
	case "setpriv":
		allow := m.z.Deny()
		defer allow()
		at := slices.IndexFunc(c.Args, func(arg string) bool { return !strings.HasPrefix(arg, "-") })
		return m.z.Run(ctx, tool.Cmd{Name: c.Args[at], Args: c.Args[at+1:]})
	case "zpool":
		return m.zpool(ctx, c)
	case "mount", "umount":
		return tool.Result{}, m.mount(c)
	case "dmsetup":
		if strings.Contains(line, "error") {
			m.undo["frail"] = m.z.Suspend("frail")
		}
		return tool.Result{}, nil
	case "dd", "ls", "mkdir", "rm", "sh":
	default:
		return tool.Result{}, fmt.Errorf("no such tool in transcripts: %s", line)
	}
	return tool.NewMachine().Run(ctx, c)
}

func (m *recorded) zpool(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	var err error
	switch c.Args[0] {
	case "export":
		m.restore, err = m.z.Export(c.Args[1])
	case "import":
		err = m.restore()
	case "clear":
		m.undo["frail"]()
		delete(m.undo, "frail")
	default:
		return m.z.Run(ctx, c)
	}
	return tool.Result{}, err
}

// mount: what is mounted in a file system keeps it busy.
func (m *recorded) mount(c tool.Cmd) error {
	at := c.Args[len(c.Args)-1]
	name, ok := strings.CutPrefix(filepath.Dir(at), m.dir+"/")
	switch {
	case filepath.Dir(at) == m.srv:
		return nil // the table is not asked what is mounted
	case !ok:
		return errors.New("a mount elsewhere")
	case c.Name == "umount":
		m.undo[at]()
		return nil
	}
	leave, err := m.z.Occupy(name)
	m.undo[at] = leave
	return err
}

func (m *recorded) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (tool.Result, error) {
	return m.z.Stream(ctx, c, stdin, stdout)
}
