package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// ZFS is the zfs and zpool commands of one machine with its pools. It is safe for concurrent use.
type ZFS struct {
	dir    string // every mountpoint is below it
	hidden string // contents that are not mounted, and snapshots

	mu     sync.Mutex
	pools  map[string]*pool
	sets   map[string]*dataset // by name
	txg    uint64
	serial uint64 // of guids and objects
	faults faults
	seen   map[*dataset]state // contents, as the running command has found them
}

var (
	_ tool.Runner   = (*ZFS)(nil)
	_ tool.Streamer = (*ZFS)(nil)
)

// Pool is a pool that exists from the start.
type Pool struct {
	Name string
	Size int64 // bytes; what datasets can have in all
}

type pool struct {
	name      string
	guid      uint64
	size      int64
	suspended bool
	gone      map[string]*dataset // its datasets while it is exported; nil while it is imported
}

// NewZFS makes a machine with empty pools, mounted at dir/<name>. dir must be empty and absolute.
func NewZFS(dir string, pools ...Pool) (*ZFS, error) {
	z := &ZFS{
		dir: dir, hidden: filepath.Join(dir, ".sim"),
		pools: make(map[string]*pool), sets: make(map[string]*dataset),
		txg: 4, serial: 1_000_000_000_000_000_000,
	}
	if err := os.Mkdir(z.hidden, 0o755); err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	for _, p := range pools {
		z.pools[p.Name] = &pool{name: p.Name, guid: z.next(), size: p.Size}
		root := z.newDataset(p.Name)
		root.props["mountpoint"] = filepath.Join(dir, p.Name)
		z.sets[p.Name] = root
		if err := errors.Join(root.makeStore(), z.mount(root)); err != nil {
			return nil, fmt.Errorf("sim: pool %s: %w", p.Name, err)
		}
	}
	return z, nil
}

// next is a number that nothing had before.
func (z *ZFS) next() uint64 {
	z.serial++
	return z.serial
}

// Run implements tool.Runner.
func (z *ZFS) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	return z.Stream(ctx, c, nil, nil)
}

// Stream implements tool.Streamer.
func (z *ZFS) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (tool.Result, error) {
	if err := ctx.Err(); err != nil {
		return tool.Result{}, ended(c, "not started", err, cairn.ErrUnavailable)
	}
	run, err := parseCall(c)
	var refused *failure
	if errors.As(err, &refused) {
		return tool.Result{}, tool.NewExitError(c, refused.code, nil, []byte(refused.text+"\n"))
	}
	if err != nil {
		return tool.Result{}, err
	}
	if stdin == nil {
		stdin = bytes.NewReader(c.Stdin)
	}
	if err := z.wait(ctx, c); err != nil {
		return tool.Result{}, err
	}
	broken := run.readStdin(ctx, stdin)
	if err := z.perform(run); err != nil {
		return tool.Result{}, err
	}
	if stdout != nil {
		if _, err := run.stdout.WriteTo(stdout); err != nil {
			broken = errors.Join(broken, fmt.Errorf("write its output: %w", err))
		}
	}
	z.release(run)
	if ctx.Err() != nil {
		return tool.Result{}, ended(c, "killed; outcome unknown, look before trying again", ctx.Err(), cairn.ErrUnknownOutcome)
	}
	return run.answer(broken)
}

// answer is what a command that has run returns; broken is why its input or output was not.
func (c *call) answer(broken error) (tool.Result, error) {
	stdout, stderr := c.stdout.Bytes(), c.stderr.Bytes()
	switch {
	case broken != nil && c.code != 0:
		return tool.Result{}, fmt.Errorf("%s: %w; the tool: %w", c.cmd, broken, tool.NewExitError(c.cmd, c.code, stdout, stderr))
	case broken != nil:
		return tool.Result{}, fmt.Errorf("%s: %w", c.cmd, broken)
	case c.code != 0:
		return tool.Result{}, tool.NewExitError(c.cmd, c.code, stdout, stderr)
	}
	return tool.Result{Stdout: stdout, Stderr: stderr}, nil
}

// ended is the error of a tool whose context has ended, as tool.Machine gives it.
func ended(c tool.Cmd, what string, err, canceled error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		canceled = cairn.ErrTimeout
	}
	return fmt.Errorf("%s: %s: %w: %w", c, what, canceled, err)
}

// perform runs a command while nothing else runs.
func (z *ZFS) perform(run *call) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if text, ok := z.faults.next(); ok {
		run.stderr.WriteString(text)
		run.code = 1
		return nil
	}
	z.txg++
	z.seen = make(map[*dataset]state)
	err := run.do(z, run)
	var failed *failure
	if errors.As(err, &failed) {
		fmt.Fprintln(&run.stderr, failed.text)
		run.code, err = failed.code, nil
	}
	if err != nil {
		return err
	}
	return z.links()
}

// call is one run of a command.
type call struct {
	cmd    tool.Cmd
	do     func(*ZFS, *call) error
	opts   map[byte][]string // "" for each time that a flag without a value was given
	args   []string
	stdin  []byte
	stdout bytes.Buffer
	stderr bytes.Buffer
	code   int
	sent   *snapshot // what is kept busy until stdout is written
}

// has reports whether a flag was given.
func (c *call) has(flag byte) bool { return len(c.opts[flag]) > 0 }

// value is the last value of an option, or what it is without.
func (c *call) value(flag byte, without string) string {
	if given := c.opts[flag]; len(given) > 0 {
		return given[len(given)-1]
	}
	return without
}

// warn is a line on stderr of a command that goes on and exits with 1 at the end.
func (c *call) warn(format string, args ...any) {
	fmt.Fprintf(&c.stderr, format+"\n", args...)
	c.code = 1
}

// failure is how a command ends that the tool refuses.
type failure struct {
	text string // on stderr, without the last newline
	code int
}

func (f *failure) Error() string { return f.text }

func fail(format string, args ...any) error {
	return &failure{text: fmt.Sprintf(format, args...), code: 1}
}

// unknown is what the simulator says when it does not know what the tool would say.
func unknown(format string, args ...any) error {
	return fmt.Errorf("sim: not simulated: "+format, args...)
}

// verbs are the commands with the options that are simulated, as for getopt.
var verbs = map[string]struct {
	opts string
	do   func(*ZFS, *call) error
	min  int // arguments
	max  int
}{
	"zfs bookmark":   {"", (*ZFS).bookmark, 2, 2},
	"zfs change-key": {"", (*ZFS).changeKey, 1, 1},
	"zfs clone":      {"o:", (*ZFS).clone, 2, 2},
	"zfs create":     {"puo:", (*ZFS).create, 1, 1},
	"zfs destroy":    {"rRd", (*ZFS).destroy, 1, 1},
	"zfs get":        {"Hprd:t:o:s:", (*ZFS).get, 2, 1000},
	"zfs hold":       {"", (*ZFS).hold, 2, 1000},
	"zfs holds":      {"H", (*ZFS).holds, 1, 1000},
	"zfs inherit":    {"S", (*ZFS).inherit, 2, 1000},
	"zfs list":       {"Hprd:t:o:", (*ZFS).list, 0, 1000},
	"zfs load-key":   {"", (*ZFS).loadKey, 1, 1},
	"zfs mount":      {"", (*ZFS).mountVerb, 1, 1},
	"zfs promote":    {"", (*ZFS).promote, 1, 1},
	"zfs receive":    {"suFo:x:A", (*ZFS).receive, 1, 1},
	"zfs release":    {"", (*ZFS).unhold, 2, 1000},
	"zfs rename":     {"ur", (*ZFS).rename, 2, 2},
	"zfs rollback":   {"r", (*ZFS).rollback, 1, 1},
	"zfs send":       {"nPwcLepi:t:", (*ZFS).send, 0, 1},
	"zfs set":        {"", (*ZFS).set, 2, 1000},
	"zfs snapshot":   {"ro:", (*ZFS).snapshot, 1, 1000},
	"zfs unload-key": {"", (*ZFS).unloadKey, 1, 1},
	"zfs unmount":    {"", (*ZFS).unmountVerb, 1, 1},
	"zpool get":      {"Hpo:", (*ZFS).poolGet, 1, 1000},
	"zpool list":     {"Hpo:", (*ZFS).poolList, 0, 1000},
	"zpool status":   {"", (*ZFS).poolStatus, 0, 1},
	"zpool sync":     {"", (*ZFS).poolSync, 0, 1},
}

// parseCall reads the arguments as getopt does: options may stand anywhere before "--".
func parseCall(c tool.Cmd) (*call, error) {
	name := filepath.Base(c.Name)
	if len(c.Args) == 0 {
		return nil, unknown("%s", c)
	}
	if name == "cat" {
		return &call{cmd: c, do: (*ZFS).kstat, args: c.Args}, nil
	}
	verb := c.Args[0]
	for short, long := range map[string]string{"snap": "snapshot", "recv": "receive", "umount": "unmount"} {
		if verb == short {
			verb = long
		}
	}
	known, ok := verbs[name+" "+verb]
	if !ok {
		return nil, unknown("%s", c)
	}
	run := &call{cmd: c, do: known.do, opts: make(map[byte][]string)}
	rest := c.Args[1:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			run.args = append(run.args, rest...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			run.args = append(run.args, arg)
			continue
		}
		var err error
		if rest, err = run.option(known.opts, arg[1:], rest); err != nil {
			return nil, err
		}
	}
	if len(run.args) < known.min || len(run.args) > known.max {
		return nil, unknown("%s with %d arguments", c, len(run.args))
	}
	return run, nil
}

// option reads one cluster of flags, and the value of its last one.
func (c *call) option(known, flags string, rest []string) ([]string, error) {
	for i := range flags {
		at := strings.IndexByte(known, flags[i])
		switch {
		case (at < 0 || flags[i] == ':') && c.cmd.Args[0] == "create" && !strings.ContainsRune("PVbnsopuv", rune(flags[i])):
			return nil, &failure{text: fmt.Sprintf("invalid option '%c'\n%s", flags[i], createUsage), code: 2}
		case at < 0 || flags[i] == ':':
			return nil, unknown("option -%c of %s", flags[i], c.cmd)
		case at+1 == len(known) || known[at+1] != ':':
			c.opts[flags[i]] = append(c.opts[flags[i]], "")
			continue
		case i+1 < len(flags):
			c.opts[flags[i]] = append(c.opts[flags[i]], flags[i+1:])
		case len(rest) == 0:
			return nil, unknown("option -%c without a value", flags[i])
		default:
			c.opts[flags[i]] = append(c.opts[flags[i]], rest[0])
			rest = rest[1:]
		}
		break
	}
	return rest, nil
}

// readStdin reads to the end for a command that reads. The end of the context or a broken reader cuts it off.
func (c *call) readStdin(ctx context.Context, stdin io.Reader) error {
	if !c.reads() {
		return nil
	}
	type part struct {
		data []byte
		err  error
	}
	parts := make(chan part)
	go func() {
		defer close(parts)
		buffer := make([]byte, 64<<10)
		for {
			n, err := stdin.Read(buffer)
			select {
			case parts <- part{bytes.Clone(buffer[:n]), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case p := <-parts:
			c.stdin = append(c.stdin, p.data...)
			if errors.Is(p.err, io.EOF) {
				return nil
			}
			if p.err != nil {
				return fmt.Errorf("read its input: %w", p.err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// reads reports whether the command reads stdin to its end.
func (c *call) reads() bool {
	switch c.cmd.Args[0] {
	case "receive", "recv":
		return !c.has('A')
	case "create", "load-key", "change-key":
		return true
	}
	return false
}

// stamp is the time of now as zfs has it, in whole seconds.
func stamp() int64 { return time.Now().Unix() }
