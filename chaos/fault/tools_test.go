package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// standing is a tool that tells what it is given and makes a file, behind a program that stands in for it.
type standing struct {
	t          *testing.T
	path, done string
}

func newStanding(t *testing.T) *standing {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "it's a directory")
	s := &standing{t, filepath.Join(dir, "tools", "tool"), filepath.Join(dir, "done")}
	if err := layTool(s.path, filepath.Join(dir, "tool")); err != nil {
		t.Fatal(err)
	}
	tool := fmt.Sprintf("#!/bin/sh\necho \"$# $1\"\ncat\n: > \"%s\"\n", s.done)
	if err := os.WriteFile(filepath.Join(dir, "tool"), []byte(tool), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *standing) ails(what func(string, *rand.Rand) error) {
	s.t.Helper()
	if err := what(ailment(s.path), rand.New(rand.NewPCG(1, 1))); err != nil {
		s.t.Fatal(err)
	}
}

func (s *standing) run(ctx context.Context) (string, error) {
	result, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: s.path, Args: []string{"an argument"}, Stdin: []byte("and more")})
	return string(result.Stdout), err
}

// works makes sure that the tool is run as if nothing stood before it.
func (s *standing) works() {
	s.t.Helper()
	if out, err := s.run(s.t.Context()); out != "1 an argument\nand more" || err != nil {
		s.t.Errorf("a tool with which nothing is wrong says %q, %v", out, err)
	}
}

// hasRun reports whether the tool got to its end, once.
func (s *standing) hasRun() bool {
	err := os.Remove(s.done)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return err == nil
}

// TestTools: what a fault does to a tool is what Cairn sees of it, and ends with the fault.
func TestTools(t *testing.T) {
	always := func(text string) func(string, *rand.Rand) error {
		return func(path string, _ *rand.Rand) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	for _, test := range []struct {
		name string
		ails func(string, *rand.Rand) error
		want tool.ExitError
		runs bool
	}{
		{"fails", toolFails, tool.ExitError{Code: 1}, false},
		{"dies at once", always("dies 0.000001\n"), tool.ExitError{Code: -1, Signal: syscall.SIGKILL}, false},
		{"dies when it has done everything", always("done\n"), tool.ExitError{Code: -1, Signal: syscall.SIGKILL}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStanding(t)
			s.works()
			s.hasRun()
			s.ails(test.ails)
			_, err := s.run(t.Context())
			var exit *tool.ExitError
			if !errors.As(err, &exit) || exit.Code != test.want.Code || exit.Signal != test.want.Signal {
				t.Errorf("the tool ends with %v, want code %d, signal %v", err, test.want.Code, test.want.Signal)
			}
			if s.hasRun() != test.runs {
				t.Errorf("the tool got to its end: %t, want %t", !test.runs, test.runs)
			}
			if err := errors.Join(cure(ailment(s.path)), cure(ailment(s.path))); err != nil {
				t.Error(err)
			}
			s.works()
		})
	}
}

// TestToolHangs: a tool does nothing while it hangs, is killed at its deadline, and goes on when that is over.
func TestToolHangs(t *testing.T) {
	s := newStanding(t)
	s.ails(toolHangs)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.run(ctx); !errors.Is(err, cairn.ErrTimeout) || s.hasRun() {
		t.Errorf("a tool that hangs: %v", err)
	}
	hanging, err := tool.Start(tool.Spec{Name: s.path})
	if err != nil {
		t.Fatal(err)
	}
	err = local.Await(t.Context(), "a tool that hangs", func(context.Context) (bool, error) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", hanging.Pid()))
		return strings.Contains(string(text), ") S "), err
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.hasRun() {
		t.Error("a tool that hangs has run")
	}
	if err := cure(ailment(s.path)); err != nil {
		t.Fatal(err)
	}
	if err := hanging.Wait(); err != nil || !s.hasRun() {
		t.Errorf("a tool that hung went on with %v", err)
	}
	s.works()
}

// TestToolDies: it dies on its way, and when it has done everything.
func TestToolDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ailment")
	seen := map[string]bool{}
	for seed := range uint64(20) {
		if err := toolDies(path, rand.New(rand.NewPCG(seed, 1))); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		how, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		seen[how] = true
	}
	if len(seen) != 2 || !seen["dies"] || !seen["done"] {
		t.Errorf("it dies in these ways: %v", seen)
	}
}
