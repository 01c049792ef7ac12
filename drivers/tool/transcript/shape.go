package transcript

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// Shape is what a command asks of a tool without what it asks it about: the words, with NAME for one or several paths, datasets,
// snapshots and the like, and with every setting apart, since settings come in many combinations. So
//
//	zfs create -o refquota=1G -o cairn:id=r1 tank/r1
//
// has the shapes "zfs create NAME", "zfs create -o refquota=" and "zfs create -o cairn:id=".
func Shape(argv []string) []string {
	var base, settings []string
	for i := 0; i < len(argv); i++ {
		word := argv[i]
		if word == "-o" && i+1 < len(argv) && strings.Contains(argv[i+1], "=") {
			i++
			settings = append(settings, "-o "+valueless(argv[i]))
			continue
		}
		if isName(word) {
			word = "NAME"
		}
		switch {
		case !strings.HasPrefix(word, "-") && strings.Contains(word, "="):
			settings = append(settings, valueless(word))
		case word != "NAME" || base[len(base)-1] != "NAME":
			base = append(base, word)
		}
	}
	shapes := []string{strings.Join(base, " ")}
	for _, setting := range settings {
		shapes = append(shapes, strings.Join(base[:min(2, len(base))], " ")+" "+setting)
	}
	return shapes
}

// isName reports whether a word names something that may be another thing in another command. A program that is started by its
// path is none, nor is a word of letters only: that may be a zpool, and may be part of the command.
func isName(word string) bool {
	return !strings.HasPrefix(word, "-") && !strings.Contains(word, "=") && strings.ContainsAny(word, "/@#") || strings.HasPrefix(word, "1-")
}

// valueless keeps the names of a list of settings.
func valueless(settings string) string {
	list := strings.Split(settings, ",")
	for i, setting := range list {
		if name, _, ok := strings.Cut(setting, "="); ok {
			list[i] = name + "="
		}
	}
	return strings.Join(list, ",")
}

// Shapes are those of all commands of some transcripts.
type Shapes map[string]bool

// ReadShapes reads the shapes of the transcripts that match a pattern of package filepath.
func ReadShapes(t testing.TB, pattern string) Shapes {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts at %s: %v", pattern, err)
	}
	s := make(Shapes)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := Parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, x := range tr.Exchanges {
			for _, shape := range Shape(x.Argv) {
				s[shape] = true
			}
		}
	}
	return s
}

// Recorded is a Tools that passes every command on, and fails the test for each shape that stands in no transcript: nobody has
// seen what the real tool says to it.
type Recorded struct {
	Tools
	Shapes Shapes
	T      testing.TB

	mu   sync.Mutex
	said []string
}

// Run implements tool.Runner.
func (r *Recorded) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	r.check(c)
	return r.Tools.Run(ctx, c)
}

// Stream implements tool.Streamer.
func (r *Recorded) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (tool.Result, error) {
	r.check(c)
	return r.Tools.Stream(ctx, c, stdin, stdout)
}

func (r *Recorded) check(c tool.Cmd) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, shape := range Shape(append([]string{c.Name}, c.Args...)) {
		if !r.Shapes[shape] && !slices.Contains(r.said, shape) {
			r.said = append(r.said, shape)
			r.T.Errorf("no transcript has %q, of %s; record it: make record", shape, c)
		}
	}
}
