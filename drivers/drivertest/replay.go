package drivertest

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Verbose makes a test binary say what Replay understands.
const Verbose = "-test.v=test2json"

// Replay makes what another process said of this test the test's own: each subtest with its verdict and its words, so that a clause that
// was skipped there is seen here, and counted, with its reason. The process ran this test alone, with Verbose, and ended as err says.
func Replay(t *testing.T, out []byte, err error) {
	t.Helper()
	all := heard(string(out))
	own := all[t.Name()]
	switch {
	case own != nil && own.verdict == skipped:
		t.Skip(own.words())
	case err != nil || own == nil || own.verdict != passed:
		t.Fatalf("in a process of its own: %v\n%s", err, strings.ReplaceAll(string(out), mark, ""))
	}
	if words := own.words(); words != "" {
		t.Log(words)
	}
	all.replay(t)
}

// account is what a process said of one test.
type account struct {
	name, parent string
	verdict      string
	said         strings.Builder
}

func (a *account) words() string { return strings.TrimSpace(a.said.String()) }

type accounts map[string]*account

const (
	mark    = "\x16" // comes before every line of the testing package
	passed  = "PASS"
	skipped = "SKIP"
)

// heard reads the output of a test binary. What a test prints may lack its newline.
func heard(out string) accounts {
	all, current := make(accounts), &account{}
	for _, row := range strings.Split(strings.ReplaceAll(out, mark, "\n"+mark), "\n") {
		line, framed := strings.CutPrefix(row, mark)
		if !framed {
			current.said.WriteString(row + "\n")
			continue
		}
		what, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
		verb, name, _ := strings.Cut(rest, " ")
		name, _, _ = strings.Cut(strings.TrimLeft(name, " "), " ") // a verdict is followed by a time
		switch {
		case what == "===" && name == "":
			current = &account{}
		case what == "===":
			current = all.of(name)
		case what == "---":
			all.of(name).verdict = strings.TrimSuffix(verb, ":")
		}
	}
	return all
}

// of finds the account of a test, which is a child of the nearest test above it: a name may have slashes of its own.
func (all accounts) of(name string) *account {
	if a := all[name]; a != nil {
		return a
	}
	a := &account{name: name}
	for above := name; a.parent == ""; {
		i := strings.LastIndexByte(above, '/')
		if i < 0 {
			break
		}
		if above = above[:i]; all[above] != nil {
			a.parent = above
		}
	}
	all[name] = a
	return a
}

// below lists the subtests of a test, in order of name.
func (all accounts) below(parent string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].parent == parent {
			names = append(names, name)
		}
	}
	return names
}

// replay runs the subtests of t.
func (all accounts) replay(t *testing.T) {
	for _, name := range all.below(t.Name()) {
		t.Run(strings.TrimPrefix(name, t.Name()+"/"), func(t *testing.T) {
			a := all[name]
			all.replay(t)
			switch words := a.words(); {
			case a.verdict == skipped:
				t.Skip(words)
			case a.verdict != passed:
				t.Errorf("%s\n%s", a.verdict, words)
			case words != "":
				t.Log(words)
			}
		})
	}
}
