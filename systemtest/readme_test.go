package systemtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quickStart marks the blocks of the README that are run here, in their order, in one shell.
const quickStart = "<!-- quick start: tested by systemtest -->"

// TestQuickStart does what a new user does: it copies the commands of the README into a shell, in a copy of the repository
// and with a home directory of its own. Every command has to succeed.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts server processes: run without -short")
	}
	clone := copyRepository(t)
	readme, err := os.ReadFile(filepath.Join(clone, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -e -o pipefail\n" + strings.Join(marked(t, string(readme)), "\n") + "\nwait\n"
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script)
	shell.Dir = clone
	shell.Env = append(os.Environ(), "HOME="+t.TempDir(), "GOPATH="+goEnv(t, "GOPATH"), "GOCACHE="+goEnv(t, "GOCACHE"), "GOFLAGS=-buildvcs=false")
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	shell.WaitDelay = 10 * time.Second
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	out, err := shell.CombinedOutput()
	if killed := syscall.Kill(-shell.Process.Pid, syscall.SIGKILL); !errors.Is(killed, syscall.ESRCH) {
		t.Errorf("the commands of the quick start left processes behind (%v)", killed)
	}
	if err != nil {
		t.Fatalf("quick start: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	if !strings.Contains(string(out), "\nsame\n") {
		t.Error("the quick start did not say that the file which it read is the one that it wrote")
	}
}

// marked returns the fenced sh blocks that follow a mark.
func marked(t *testing.T, readme string) []string {
	t.Helper()
	var blocks []string
	for _, part := range strings.Split(readme, quickStart)[1:] {
		block, ok := strings.CutPrefix(strings.TrimLeft(part, "\n"), "```sh\n")
		block, _, ended := strings.Cut(block, "\n```")
		if !ok || !ended {
			t.Fatalf("README.md: a mark %q is not followed by a fenced sh block", quickStart)
		}
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md: has no block marked %q", quickStart)
	}
	return blocks
}

// copyRepository copies what git would clone, and what is not committed yet.
func copyRepository(t *testing.T) string {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "cairn")
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = ".."
	names, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("..", name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted and not committed
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(clone, name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(clone, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return clone
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}
