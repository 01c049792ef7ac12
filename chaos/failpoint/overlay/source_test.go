package main

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

const before = `// Package x is a test.
package x

import "os"

func f(op string) error {
	// failpoint: writing
	err := os.Remove("x")
	// failpoint: after(op) create take_away
	// failpoint: set op = "x"
	return err
}
`

// TestRewrite: comments become calls on the same lines, and the file is still Go.
func TestRewrite(t *testing.T) {
	s, err := rewrite("a/x/x.go", before)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a/x.writing", "a/x.after-create", "a/x.after-take-away"}; !slices.Equal(s.points, want) {
		t.Errorf("points %v, want %v", s.points, want)
	}
	lines := strings.Split(string(s.text), "\n")
	for number, want := range map[int]string{
		7: `	failpoint.At("a/x.writing")`, 8: `	err := os.Remove("x")`, 9: `	failpoint.In("a/x.after", op)`, 10: `	op = "x"`, 11: "	return err",
	} {
		if got := lines[number-1]; got != want {
			t.Errorf("line %d is %q, want %q", number, got, want)
		}
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "x.go", s.text, parser.SkipObjectResolution); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	for _, what := range []string{"", "Upper", "two words", "name(op)", "name(op, x) a"} {
		if _, err := rewrite("x.go", "package x\n\n// failpoint: "+what+"\n"); err == nil {
			t.Errorf("failpoint %q was taken", what)
		}
	}
	if _, err := list([]source{{points: []string{"a.b"}}, {points: []string{"a.b"}}}); err == nil {
		t.Error("a name that is there twice was taken")
	}
}

// TestThisModule: its comments can all be turned into calls, and there are as many points as the tests of them promise.
func TestThisModule(t *testing.T) {
	sources, err := find("../../..")
	if err != nil {
		t.Fatal(err)
	}
	points, err := list(sources)
	if err != nil {
		t.Fatal(err)
	}
	if len(points) < 60 {
		t.Errorf("%d failpoints, want at least 60", len(points))
	}
}
