// Package tool runs the storage tools of the machine, such as zfs or lvcreate, and supervises long-running child processes.
// It is the only importer of os/exec.
//
// A command is data: a name and arguments, never a string for a shell, so nothing in an argument has a meaning. Tools speak
// the C locale. The package does not know what any tool does or what its messages mean: reading those is the drivers' part,
// and a message that they do not recognise is an error of its own. Nothing is ever tried twice here.
//
// Linux only.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn"
)

// Cmd is one run of a tool.
type Cmd struct {
	Name  string // looked up in PATH unless it has a slash
	Args  []string
	Stdin []byte
	// Redact holds secrets that Args contain; String and every error show *** in their place.
	Redact []string
}

// String renders the command for a log line, quoted where a reader would otherwise be misled, without secrets. It is not
// meant to be run.
func (c Cmd) String() string {
	words := []string{quote(c.Name)}
	for _, arg := range c.Args {
		words = append(words, quote(arg))
	}
	return c.redact(strings.Join(words, " "))
}

func quote(word string) string {
	if word == "" || strings.ContainsAny(word, " \t\n\"'\\|&;<>()$`*?#~") || strings.ContainsFunc(word, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(word)
	}
	return word
}

func (c Cmd) redact(text string) string {
	secrets := slices.Clone(c.Redact)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // a secret may be part of another
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
			text = strings.ReplaceAll(text, strings.Trim(strconv.Quote(secret), `"`), "***")
		}
	}
	return text
}

// Result is what a tool that exited with 0 has said.
type Result struct {
	Stdout []byte
	Stderr []byte
}

// Runner runs tools. Drivers are given one, so that a simulator or a transcript can stand where the machine is.
type Runner interface {
	// Run runs the command to its end. A tool that exits with another code than 0, or by a signal, is an *ExitError. When
	// ctx ends, the tool is killed with everything that it started: cairn.ErrTimeout after a deadline and
	// cairn.ErrUnknownOutcome after a cancellation. Its outcome is unknown: look before trying again.
	Run(ctx context.Context, c Cmd) (Result, error)
}

// ExitError is a tool that ran and did not succeed.
type ExitError struct {
	Cmd    string // without secrets
	Code   int    // -1 if a signal ended it
	Signal syscall.Signal
	Stdout []byte
	Stderr []byte // as the tool wrote it
	shown  string // the same for people: one line, without secrets
}

// Error says how the tool ended and what it wrote on stderr, in one line.
func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit %d", e.Code)
	if e.Code < 0 {
		how = fmt.Sprintf("killed by %v", e.Signal)
	}
	if e.shown == "" {
		return fmt.Sprintf("%s: %s", e.Cmd, how)
	}
	return fmt.Sprintf("%s: %s: %s", e.Cmd, how, e.shown)
}

// ErrOutput: a tool wrote more than MaxOutput. What it said is not used, since nobody knows what was cut off.
var ErrOutput = errors.New("too much output")

// Machine is the Runner that runs real tools.
type Machine struct {
	// MaxOutput bounds stdout and stderr, each, in bytes. A tool that writes more is killed.
	MaxOutput int
	// Grace is how long a killed tool's pipes are waited for: a process that left the group may hold them open.
	Grace time.Duration
}

// NewMachine returns a Machine with bounds that no tool of ours reaches.
func NewMachine() *Machine { return &Machine{MaxOutput: 64 << 20, Grace: 2 * time.Second} }

// Run implements Runner.
func (m *Machine) Run(ctx context.Context, c Cmd) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, notStarted(c, err)
	}
	// The kernel kills a tool whose parent thread is gone: what the next process finds does not change under its hands.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := m.command(ctx, c)
	stdout, stderr := &bounded{max: m.MaxOutput, end: cancel}, &bounded{max: m.MaxOutput, end: cancel}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		return Result{}, notStarted(c, err)
	}
	err := cmd.Wait()
	return m.result(ctx, c, cmd.ProcessState, stdout, stderr, err)
}

// command is how every tool is run: by itself in a group that is killed when ctx ends.
func (m *Machine) command(ctx context.Context, c Cmd) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Env = environment()
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = m.Grace
	return cmd
}

// result tells the ways apart in which a tool ends.
func (m *Machine) result(ctx context.Context, c Cmd, state *os.ProcessState, stdout, stderr *bounded, err error) (Result, error) {
	switch {
	case err == nil && !stdout.over && !stderr.over:
		return Result{Stdout: stdout.text, Stderr: stderr.text}, nil
	case stdout.over || stderr.over:
		return Result{}, fmt.Errorf("%s: killed after %d bytes; outcome unknown: %w: %w", c, m.MaxOutput, ErrOutput, cairn.ErrUnknownOutcome)
	case ctx.Err() != nil:
		return Result{}, fmt.Errorf("%s: killed; outcome unknown, look before trying again: %w", c, ended(ctx.Err()))
	case errors.Is(err, exec.ErrWaitDelay):
		return Result{}, fmt.Errorf("%s: ended, and left a process behind that holds its output: %w: %w", c, err, cairn.ErrUnknownOutcome)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return Result{}, fmt.Errorf("%s: %w", c, err)
	}
	status := state.Sys().(syscall.WaitStatus)
	failure := &ExitError{Cmd: c.String(), Code: state.ExitCode(), Stdout: stdout.text, Stderr: stderr.text}
	if status.Signaled() {
		failure.Signal = status.Signal()
	}
	failure.shown = c.redact(oneLine(failure.Stderr))
	return Result{}, failure
}

// Find returns where the program is that Run would run. cairn.ErrNotSupported if it is not installed.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		err = fmt.Errorf("%s: is not installed: %w", name, cairn.ErrNotSupported)
	}
	return path, err
}

// notStarted is the one failure after which nothing has changed.
func notStarted(c Cmd, err error) error {
	switch {
	case errors.Is(err, exec.ErrNotFound):
		err = fmt.Errorf("is not installed: %w", cairn.ErrNotSupported)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%w: %w", cairn.ErrTimeout, err)
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("%w: %w", cairn.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: not started: %w", c, err)
}

// ended gives the end of a context the sentinel that callers look for.
func ended(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", cairn.ErrTimeout, err)
	}
	return fmt.Errorf("%w: %w", cairn.ErrUnknownOutcome, err)
}

// oneLine is the beginning of what a tool wrote, for an error message.
func oneLine(text []byte) string {
	const most = 500
	line := strings.Join(strings.Fields(string(text[:min(len(text), most)])), " ")
	line = strings.ToValidUTF8(line, "?")
	if len(text) > most {
		line += " …"
	}
	return line
}

// environment is that of this process with the C locale and UTC, so that output does not depend on who started it.
func environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "LC_") || strings.HasPrefix(entry, "LANG") || strings.HasPrefix(entry, "TZ=")
	})
	return append(env, "LC_ALL=C", "TZ=UTC")
}

// killGroup kills a process and everything that it started and did not move to another group.
func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// bounded keeps what a tool writes, up to a limit, and ends the tool beyond it.
type bounded struct {
	text []byte
	max  int
	over bool
	end  func()
}

// Write implements io.Writer.
func (b *bounded) Write(data []byte) (int, error) {
	if len(b.text)+len(data) > b.max {
		b.over = true
		b.end()
		return 0, ErrOutput
	}
	b.text = append(b.text, data...)
	return len(data), nil
}
