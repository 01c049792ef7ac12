package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
)

// TestGolden holds what commands print, send and return. Each command runs against a new lab:
//
//	cairn [tty=(stdin,stdout,stderr)] [stdin=y] [fail=Method:sentinel] [held=docs] [stuck]
//	share list
//	----
//	what stdout got
//	! what stderr got
//	> requests that changed something, or failed to
//	? exit code, unless 0
//
// Run with -rewrite to accept what is printed now.
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/golden", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			l := newLab(t)
			r := run{args: words(t, l.expand(d.Input))}
			for _, arg := range d.CmdArgs {
				l.arrange(t, &r, arg)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			return l.report(l.cairn(ctx, r))
		})
	})
}

func (l *lab) arrange(t *testing.T, r *run, arg datadriven.CmdArg) {
	t.Helper()
	switch arg.Key {
	case "tty":
		r.terminals = strings.Join(arg.Vals, " ")
	case "stdin":
		r.stdin = arg.Vals[0] + "\n"
	case "stuck":
		l.stuck = true
	case "held":
		l.held = arg.Vals
	case "fail":
		method, name, _ := strings.Cut(arg.Vals[0], ":")
		for _, sentinel := range cairn.Sentinels() {
			if strings.ReplaceAll(sentinel.Error(), " ", "_") == name {
				l.fail[method] = fmt.Errorf("share docs: a reason: %w", sentinel)
				return
			}
		}
		t.Fatalf("no sentinel %q", name)
	default:
		t.Fatalf("what is %q?", arg.Key)
	}
}

// expand and shown hide what differs from run to run.
func (l *lab) expand(text string) string {
	return strings.ReplaceAll(text, "$DIR", filepath.Dir(l.config))
}

func (l *lab) shown(text string) string {
	return strings.NewReplacer(filepath.Dir(l.config), "$DIR", l.address, "$ADDRESS").Replace(text)
}

func (l *lab) report(o outcome) string {
	var report strings.Builder
	report.WriteString(l.shown(o.stdout))
	if o.stdout != "" && !strings.HasSuffix(o.stdout, "\n") {
		report.WriteString("<no newline>\n")
	}
	for _, line := range strings.SplitAfter(l.shown(o.stderr), "\n") {
		if line != "" {
			fmt.Fprintf(&report, "! %s\n", strings.TrimSuffix(strings.ReplaceAll(line, clearLine, "<clear>"), "\n"))
		}
	}
	for _, request := range l.asked() {
		if method, _, _ := strings.Cut(request, " "); !strings.HasPrefix(method, "Get") && !strings.HasPrefix(method, "List") {
			fmt.Fprintf(&report, "> %s\n", request)
		}
	}
	if o.code != 0 {
		fmt.Fprintf(&report, "? %d\n", o.code)
	}
	return report.String()
}

// words splits a command line; single quotes keep spaces, and a word "…" in double quotes is one of Go.
func words(t *testing.T, line string) []string {
	t.Helper()
	var all []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		switch line[0] {
		case '\'':
			word, rest, _ := strings.Cut(line[1:], "'")
			all, line = append(all, word), rest
		case '"':
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				t.Fatal(err)
			}
			word, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(err)
			}
			all, line = append(all, word), line[len(quoted):]
		default:
			word, rest, _ := strings.Cut(line, " ")
			all, line = append(all, word), rest
		}
	}
	return all
}

// TestHelp holds the help of every command, in one file for each command of the first level.
func TestHelp(t *testing.T) {
	datadriven.Walk(t, "testdata/help", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var all strings.Builder
			for _, cmd := range commands(t, d.CmdArgs[0].Key) {
				args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
				o := cairnCommand(t.Context(), run{args: args})
				fmt.Fprintf(&all, "=== %s (exit %d)\n%s%s\n", cmd.CommandPath(), o.code, o.stdout, o.stderr)
			}
			return strings.TrimSuffix(all.String(), "\n")
		})
	})
}

// TestHelpIsComplete fails for a command of the first level whose help nobody has looked at.
func TestHelpIsComplete(t *testing.T) {
	for _, cmd := range (&App{}).root().Commands() {
		matches, err := filepath.Glob(filepath.Join("testdata", "help", cmd.Name()+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		if len(matches) != 1 && cmd.Name() != "help" {
			t.Errorf("testdata/help/%s.txt: is missing", cmd.Name())
		}
	}
}

// commands is a command of the first level, or the root, with those below it.
func commands(t *testing.T, name string) []*cobra.Command {
	t.Helper()
	root := (&App{}).root()
	if name == "cairn" {
		return []*cobra.Command{root}
	}
	top, rest, err := root.Find([]string{name})
	if err != nil || len(rest) > 0 {
		t.Fatalf("no command %q", name)
	}
	all := []*cobra.Command{top}
	for i := 0; i < len(all); i++ {
		all = append(all, all[i].Commands()...)
	}
	return all
}
