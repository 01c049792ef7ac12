package bugs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// root is the directory of the module.
const root = "../.."

func bugs(t *testing.T) (all []*bug) {
	t.Helper()
	paths, err := filepath.Glob("*.patch")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, err := readBug(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// TestEveryBugApplies: patches apply to the sources of today, the README has a row for each, and each names a test that exists.
func TestEveryBugApplies(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bugs(t) {
		t.Run(b.name, func(t *testing.T) {
			if b.what == "" || b.pkg == "" || b.run == "" || b.finds == nil {
				t.Error("the header lacks Bug, Search or Finds")
			}
			if row := fmt.Sprintf("| `%s` | %s |", b.name, b.what); !strings.Contains(string(readme), row) {
				t.Errorf("README.md has no row %q", row)
			}
			for name, text := range b.planted(t) {
				if _, err := parser.ParseFile(token.NewFileSet(), name, text, 0); err != nil {
					t.Error(err)
				}
			}
			sources, err := filepath.Glob(filepath.Join(root, b.pkg, "*_test.go"))
			if err != nil || len(sources) == 0 {
				t.Fatalf("%s has no tests: %v", b.pkg, err)
			}
			for _, test := range strings.Split(b.run, "|") {
				if !slices.ContainsFunc(sources, func(file string) bool {
					text, err := os.ReadFile(file)
					return err == nil && bytes.Contains(text, []byte("\nfunc "+test+"("))
				}) {
					t.Errorf("%s has no %s", b.pkg, test)
				}
			}
		})
	}
}

// TestEveryBugCompiles is the other half of that: a bug that does not compile proves nothing.
func TestEveryBugCompiles(t *testing.T) {
	if os.Getenv("CAIRN_BUGS") == "" {
		t.Skip("compiles a good part of the project once for every bug: make bugs")
	}
	for _, b := range bugs(t) {
		t.Run(b.name, func(t *testing.T) {
			packages := map[string]bool{}
			for _, file := range b.files {
				packages["./"+path.Dir(file.path)] = true
			}
			args := append([]string{"build", "-overlay", b.overlay(t)}, slices.Sorted(maps.Keys(packages))...)
			if out, err := command(t.Context(), root, nil, "go", args...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestRepro plants the bugs that CAIRN_BUGS names, or those whose turn it is ("today"), and searches.
func TestRepro(t *testing.T) {
	which := os.Getenv("CAIRN_BUGS")
	if which == "" {
		t.Skip("every bug takes its time: make repro-NAME or make bugs")
	}
	all := bugs(t)
	budget := 10 * time.Minute
	if which == "today" {
		all = rotated(t, all)
	} else {
		all = slices.DeleteFunc(all, func(b *bug) bool { return !slices.Contains(strings.Split(which, ","), b.name) })
		if len(all) == 0 {
			t.Fatalf("no bug is called %s", which)
		}
	}
	for _, b := range all {
		t.Run(b.name, func(t *testing.T) { b.mustBeFound(t, budget) })
	}
}

// rotated returns the bugs whose turn it is, of those that are known to be found: a few every day, all of them within eight days.
func rotated(t *testing.T, all []*bug) []*bug {
	t.Helper()
	all = slices.DeleteFunc(all, func(b *bug) bool { return b.found == "" })
	const days = 8
	day := int(time.Now().Unix() / 86400)
	if text := os.Getenv("CAIRN_BUGS_DAY"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		day = n
	}
	var some []*bug
	for i, b := range all {
		if i%days == day%days {
			some = append(some, b)
		}
	}
	t.Logf("day %d: %d of %d bugs (CAIRN_BUGS_DAY=%d repeats the choice)", day, len(some), len(all), day)
	return some
}

// mustBeFound runs the search, again and again if it is a short one, until it fails as it should.
func (b *bug) mustBeFound(t *testing.T, budget time.Duration) {
	search := filepath.Join(t.TempDir(), "search")
	if out, err := command(t.Context(), root, nil, "go", "test", "-c", "-overlay", b.overlay(t), "-o", search, "./"+b.pkg); err != nil {
		t.Fatalf("the search does not compile: %v\n%s", err, out)
	}
	// rapid keeps what fails beside the test, which here is no failure of these sources.
	kept := filepath.Join(root, b.pkg, "testdata", "rapid")
	if _, err := os.Stat(kept); errors.Is(err, fs.ErrNotExist) {
		t.Cleanup(func() { _ = os.RemoveAll(kept) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), budget)
	defer cancel()
	began := time.Now()
	for tries := 1; ; tries++ {
		out, err := command(ctx, filepath.Join(root, b.pkg), b.env, search, "-test.v", "-test.count=1", "-test.timeout=10m", "-test.run=^("+b.run+")$")
		var failed *exec.ExitError
		switch {
		case ctx.Err() != nil:
			t.Fatalf("%s: not found in %s, %d tries\n%s", b.what, budget, tries, tail(out))
		case err == nil && !bytes.Contains(out, []byte("--- PASS")):
			t.Fatalf("the search has run nothing:\n%s", tail(out))
		case err == nil:
			continue
		case !errors.As(err, &failed):
			t.Fatal(err)
		case bytes.Contains(out, []byte("test timed out")):
			t.Fatalf("the search does not end:\n%s", tail(out))
		case !b.finds.Match(out):
			t.Fatalf("the search fails, but finds something else than %q:\n%s", b.finds, out)
		}
		t.Logf("%s: found in %s, try %d: %s", b.what, time.Since(began).Round(100*time.Millisecond), tries, line(out, b.finds.FindIndex(out)))
		return
	}
}

// planted are the patched texts, by the name of the file that each stands for.
func (b *bug) planted(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, file := range b.files {
		text, ok := texts[file.path]
		if !ok {
			data, err := os.ReadFile(filepath.Join(root, file.path))
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		patched, err := file.apply(text)
		if err != nil {
			t.Fatal(err)
		}
		texts[file.path] = patched
	}
	return texts
}

// overlay writes the patched files and what go build -overlay wants to know, and returns its name.
func (b *bug) overlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	replace := make(map[string]string)
	for name, text := range b.planted(t) {
		original, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, strconv.Itoa(len(replace))+"-"+path.Base(name))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[original] = copied
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// command runs a program and returns what it says.
func command(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	c.WaitDelay = 5 * time.Second
	return c.CombinedOutput()
}

func tail(out []byte) string {
	return string(out[max(0, len(out)-4000):])
}

// line is the line around a place.
func line(out []byte, at []int) string {
	from, to := bytes.LastIndexByte(out[:at[0]], '\n')+1, bytes.IndexByte(out[at[1]:], '\n')
	if to < 0 {
		return string(out[from:])
	}
	return strings.TrimSpace(string(out[from : at[1]+to]))
}
