package fsm

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairn-storage/cairn"
)

// TestStories runs the commands in testdata/stories and compares results, events and rows with the text there. Each file is
// one machine. Only commit a rewritten file (-rewrite) if you understand every line of the difference.
func TestStories(t *testing.T) {
	told := make(map[Op]bool)
	datadriven.Walk(t, filepath.Join("testdata", "stories"), func(t *testing.T, path string) {
		s := &story{t: t, m: New(), told: told}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			return s.run(d)
		})
		checkState(t, s.m)
	})
	for op := range ops {
		if !told[op] {
			t.Errorf("no story has a %T", ops[op]())
		}
	}
}

// story turns lines such as "create-share backups size=10GiB" into commands.
type story struct {
	t     *testing.T
	m     *Machine
	told  map[Op]bool
	tasks int
	rules int
	at    int64
}

const second = int64(1e9)

// run handles the directives: "do" shows what every command did, "bundle" what they did as one entry, "setup" only that it
// succeeded, "show" lists rows.
func (s *story) run(d *datadriven.TestData) string {
	switch d.Cmd {
	case "do":
		return s.each(d, s.do)
	case "setup":
		return s.each(d, func(line string) string {
			if out := s.do(line); strings.Contains(out, " refused: ") {
				return out
			}
			return ""
		})
	case "bundle":
		return s.bundle(d)
	case "try":
		return s.each(d, func(line string) string {
			meta, c := s.command(line)
			before := s.m.View()
			result := s.m.DryRun(meta, c)
			if s.m.View() != before {
				return "  a dry run changed the state\n"
			}
			return "  would be " + answer(result) + "\n"
		})
	case "show":
		return s.show(d)
	}
	return s.special(d)
}

func (s *story) each(d *datadriven.TestData, do func(line string) string) string {
	var out strings.Builder
	for line := range strings.SplitSeq(d.Input, "\n") {
		result := do(line)
		if result != "" {
			fmt.Fprintf(&out, "%s\n%s", line, result)
		}
	}
	if out.Len() == 0 {
		return "ok\n"
	}
	return out.String()
}

// do applies one command and tells what came of it.
func (s *story) do(line string) string {
	meta, c := s.command(line)
	s.told[c.op()] = true
	data, err := Encode(meta, c)
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	before := s.m.View()
	var changes []Change
	cancel := s.m.Subscribe(func(more []Change) { changes = append(changes, more...) })
	result := s.m.Apply(before.Index()+1, data)
	cancel()
	after := s.m.View()
	if result.Err != nil && (before.Digest() != after.Digest() || len(changes) > 0) {
		s.t.Fatalf("%s: was refused, but left a trace: %v", line, changes)
	}
	return "  " + answer(result) + "\n" + renderChanges(before, after, changes)
}

func answer(r Result) string {
	switch {
	case r.Err != nil:
		return "refused: " + r.Err.Error()
	case r.Replayed:
		return "ok " + r.ID + " (as before)"
	case r.ID == "":
		return "ok"
	}
	var parts strings.Builder
	for i, err := range r.Each {
		if err != nil {
			fmt.Fprintf(&parts, "\n  part %d refused: %v", i+1, err)
		}
	}
	return "ok " + r.ID + parts.String()
}

func (s *story) command(line string) (Meta, Command) {
	a := parseArgs(s.t, line)
	build, ok := verbs[a.verb]
	if !ok {
		s.t.Fatalf("no such verb: %s", line)
	}
	s.at += second
	meta := Meta{Token: a.value("token", ""), At: s.at, Actor: a.value("actor", "user/alice")}
	if at := a.number("at"); at != 0 {
		meta.At = at * second
	}
	c := build(s, a)
	if rest := slices.Sorted(maps.Keys(a.named)); len(rest) > 0 {
		s.t.Fatalf("%s: unused arguments %v", line, rest)
	}
	return meta, c
}

// args is a line such as: verb one two key=value "quoted text" key="quoted text".
type args struct {
	t     *testing.T
	verb  string
	pos   []string
	named map[string]string
}

func parseArgs(t *testing.T, line string) *args {
	a := &args{t: t, named: map[string]string{}}
	for _, word := range splitWords(line) {
		key, value, isNamed := strings.Cut(word, "=")
		if !isNamed {
			key, value = "", word
		}
		if strings.HasPrefix(value, `"`) {
			var err error
			if value, err = strconv.Unquote(value); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		switch {
		case isNamed:
			a.named[key] = value
		case a.verb == "":
			a.verb = value
		default:
			a.pos = append(a.pos, value)
		}
	}
	return a
}

// splitWords splits at spaces outside of quotes.
func splitWords(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
}

func (a *args) at(i int) string {
	if i >= len(a.pos) {
		a.t.Fatalf("%s: argument %d is missing", a.verb, i+1)
	}
	return a.pos[i]
}

func (a *args) value(key, otherwise string) string {
	if v, ok := a.named[key]; ok {
		delete(a.named, key)
		return v
	}
	return otherwise
}

func (a *args) flag(name string) bool { return slices.Contains(a.pos, name) }

func (a *args) number(key string) int64 {
	n, err := strconv.ParseInt(a.value(key, "0"), 10, 64)
	if err != nil {
		a.t.Fatalf("%s: %s: %v", a.verb, key, err)
	}
	return n
}

// size reads bytes without checking them, since wrong sizes are a subject of the stories.
func (a *args) size(text string) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	n, err := cairn.ParseSize(text)
	if err != nil {
		a.t.Fatalf("%s: %v", a.verb, err)
	}
	return n
}

// under collects "prefix.key=value" arguments.
func (a *args) under(prefix string) map[string]string {
	var m map[string]string
	for key, value := range a.named {
		if rest, ok := strings.CutPrefix(key, prefix+"."); ok {
			if m == nil {
				m = map[string]string{}
			}
			m[rest] = value
			delete(a.named, key)
		}
	}
	return m
}

func hashOf(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}
