package tool_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// sh is a tool that does what its script says.
func sh(script string, args ...string) tool.Cmd {
	return tool.Cmd{Name: "sh", Args: append([]string{"-c", script, "sh"}, args...)}
}

func TestRun(t *testing.T) {
	t.Setenv("LC_MESSAGES", "de_DE.UTF-8")
	t.Setenv("LANG", "de_DE.UTF-8")
	tests := []struct {
		name string
		cmd  tool.Cmd
		want string
	}{
		{"stdout", sh("echo out; echo err >&2"), "out\n"},
		{"stdin", tool.Cmd{Name: "cat", Stdin: []byte("in")}, "in"},
		{"no stdin", tool.Cmd{Name: "cat"}, ""},
		{"arguments are data", sh(`printf '%s|' "$@"`, "a b", "$(id)", "`id`", "; id", "*", ""), "a b|$(id)|`id`|; id|*||"},
		{"C locale", sh("echo $LC_ALL,$LANG,$LC_MESSAGES,$TZ"), "C,,,UTC\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tool.NewMachine().Run(t.Context(), tt.cmd)
			if err != nil || string(got.Stdout) != tt.want {
				t.Errorf("Run: %q, %v; want %q", got.Stdout, err, tt.want)
			}
		})
	}
}

func TestExitError(t *testing.T) {
	cmd := sh(`echo partial; printf 'cannot open\n  %s\n' "$1" >&2; exit 3`, "hunter2")
	cmd.Redact = []string{"hunter2"}
	_, err := tool.NewMachine().Run(t.Context(), cmd)
	var exit *tool.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("Run: %v; want an ExitError", err)
	}
	if exit.Code != 3 || string(exit.Stdout) != "partial\n" || string(exit.Stderr) != "cannot open\n  hunter2\n" {
		t.Errorf("ExitError: %+v", exit)
	}
	if text := err.Error(); strings.Contains(text, "hunter2") || strings.Contains(text, "\n") || !strings.HasSuffix(text, "exit 3: cannot open ***") {
		t.Errorf("Error: %q; want one line without the secret", text)
	}
	for _, sentinel := range cairn.Sentinels() {
		if errors.Is(err, sentinel) {
			t.Errorf("Error: %v is %v; this package cannot know", err, sentinel)
		}
	}
}

func TestExitErrorOfSignal(t *testing.T) {
	_, err := tool.NewMachine().Run(t.Context(), sh("kill -TERM $$"))
	var exit *tool.ExitError
	if !errors.As(err, &exit) || exit.Code != -1 || exit.Signal != syscall.SIGTERM {
		t.Errorf("Run: %v; want an ExitError of SIGTERM", err)
	}
}

func TestString(t *testing.T) {
	tests := []struct {
		name string
		cmd  tool.Cmd
		want string
	}{
		{"plain", tool.Cmd{Name: "zfs", Args: []string{"list", "-Hp", "tank/a"}}, "zfs list -Hp tank/a"},
		{"quoted", tool.Cmd{Name: "x", Args: []string{"a b", "", "\n", "é"}}, `x "a b" "" "\n" é`},
		{"secret", tool.Cmd{Name: "x", Args: []string{"--password=pw", "pwd"}, Redact: []string{"pw", "pwd"}}, "x --password=*** ***"},
		{"quoted secret", tool.Cmd{Name: "x", Args: []string{"a\"b c"}, Redact: []string{"a\"b c"}}, `x "***"`},
		{"empty secret", tool.Cmd{Name: "x", Args: []string{"y"}, Redact: []string{""}}, "x y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.cmd.String(); got != tt.want {
				t.Errorf("String: %s; want %s", got, tt.want)
			}
		})
	}
}

func TestNotStarted(t *testing.T) {
	deadline, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	mark := filepath.Join(t.TempDir(), "mark")
	touch := tool.Cmd{Name: "touch", Args: []string{mark}}
	tests := []struct {
		name string
		ctx  context.Context
		cmd  tool.Cmd
		want error
	}{
		{"not installed", t.Context(), tool.Cmd{Name: "cairn-no-such-tool"}, cairn.ErrNotSupported},
		{"not executable", t.Context(), tool.Cmd{Name: t.TempDir()}, os.ErrPermission},
		{"after the deadline", deadline, touch, cairn.ErrTimeout},
		{"after a cancellation", canceled, touch, cairn.ErrUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tool.NewMachine().Run(tt.ctx, tt.cmd); !errors.Is(err, tt.want) || errors.Is(err, cairn.ErrUnknownOutcome) {
				t.Errorf("Run: %v; want %v and nothing unknown", err, tt.want)
			}
		})
	}
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a tool ran although its context had ended: %v", err)
	}
}

// The tool starts a process of its own, which holds the output open: both have to go, and promptly.
func TestKillsTheGroup(t *testing.T) {
	tests := []struct {
		name string
		end  func(context.Context) (context.Context, context.CancelFunc)
		want error
	}{
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 200*time.Millisecond)
		}, cairn.ErrTimeout},
		{"cancellation", context.WithCancel, cairn.ErrUnknownOutcome},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			ctx, cancel := tt.end(t.Context())
			defer cancel()
			if tt.want != cairn.ErrTimeout {
				go func() { readPid(t, file); cancel() }()
			}
			_, err := tool.NewMachine().Run(ctx, sh(`sleep 1000 & echo $! > "$1.tmp"; mv "$1.tmp" "$1"; wait`, file))
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "outcome unknown") {
				t.Errorf("Run: %v; want %v", err, tt.want)
			}
			awaitEnd(t, readPid(t, file))
		})
	}
}

func TestOutputIsBounded(t *testing.T) {
	m := tool.NewMachine()
	m.MaxOutput = 1 << 20
	for _, script := range []string{"yes", "yes >&2", "head -c 2000000 /dev/zero"} {
		if _, err := m.Run(t.Context(), sh(script)); !errors.Is(err, tool.ErrOutput) || !errors.Is(err, cairn.ErrUnknownOutcome) {
			t.Errorf("Run of %q: %v; want ErrOutput", script, err)
		}
	}
	got, err := m.Run(t.Context(), sh("head -c 1048576 /dev/zero"))
	if err != nil || !bytes.Equal(got.Stdout, make([]byte, 1<<20)) {
		t.Errorf("Run of what just fits: %d bytes, %v", len(got.Stdout), err)
	}
}

// A daemon that a tool leaves behind must not hang the caller, nor pass for success.
func TestDaemonLeftBehind(t *testing.T) {
	m := tool.NewMachine()
	m.Grace = 50 * time.Millisecond
	file := filepath.Join(t.TempDir(), "pid")
	_, err := m.Run(t.Context(), sh(`setsid sleep 1000 & echo $! > "$1"`, file))
	if !errors.Is(err, cairn.ErrUnknownOutcome) {
		t.Errorf("Run: %v; want cairn.ErrUnknownOutcome", err)
	}
	if err := syscall.Kill(readPid(t, file), syscall.SIGKILL); err != nil {
		t.Errorf("the daemon was gone: %v", err)
	}
}

// eventually waits for a condition; it fails the test when the condition takes longer than anything sane.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Errorf("still not: %s", what)
			return
		}
	}
}

func readPid(t *testing.T, file string) (pid int) {
	t.Helper()
	eventually(t, "a pid in "+file, func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return pid
}

// awaitEnd waits until a process that is not our child is gone, or a zombie that nobody has collected.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "the end of process "+strconv.Itoa(pid), func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || bytes.Contains(stat, []byte(") Z "))
	})
}
