package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cairn-storage/cairn/chaos/failpoint"
)

// Points stand alone on their lines, in one of these forms:
//
//	// failpoint: NAME                         a point, named FOLDER.NAME
//	// failpoint: NAME(EXPRESSION) VALUE ...   one point for each value, named FOLDER.NAME-VALUE, with - for _
//	// failpoint: set STATEMENT                a statement of the test binary: what would take too long to reach otherwise
var (
	comment = regexp.MustCompile(`^(\s*)// failpoint: (.*)$`)
	single  = regexp.MustCompile(`^[a-z][a-z-]*$`)
	several = regexp.MustCompile(`^([a-z][a-z-]*)\((\S+)\)((?: \S+)+)$`)
)

const runtime = `; import "github.com/cairn-storage/cairn/chaos/failpoint"`

// source is a Go file with points.
type source struct {
	path   string // relative to the root of the module
	points []string
	text   []byte // with calls instead of comments, on the same lines
}

// find reads all sources below root that have points.
func find(root string) ([]source, error) {
	var found []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "chaos"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(text, []byte("// failpoint: ")) {
			return err
		}
		inside, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		s, err := rewrite(filepath.ToSlash(inside), string(text))
		found = append(found, s)
		return err
	})
	return found, err
}

// rewrite turns comments into calls. Every line stays where it is, so that what the test binary logs fits the source.
func rewrite(name, text string) (source, error) {
	s := source{path: name}
	lines, calls := strings.Split(text, "\n"), 0
	for i, line := range lines {
		match := comment.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		statement, points, err := statement(path.Dir(name), match[2])
		if err != nil {
			return s, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
		lines[i] = match[1] + statement
		s.points = append(s.points, points...)
		calls += min(1, len(points))
	}
	if calls > 0 {
		for i, line := range lines {
			if strings.HasPrefix(line, "package ") {
				lines[i] += runtime
				break
			}
		}
	}
	s.text = []byte(strings.Join(lines, "\n"))
	return s, nil
}

func statement(folder, what string) (statement string, points []string, err error) {
	if set, ok := strings.CutPrefix(what, "set "); ok {
		return set, nil, nil
	}
	if single.MatchString(what) {
		name := folder + "." + what
		return fmt.Sprintf("failpoint.At(%q)", name), []string{name}, nil
	}
	match := several.FindStringSubmatch(what)
	if match == nil {
		return "", nil, fmt.Errorf("failpoint %q: is neither a name nor a name with values", what)
	}
	name := folder + "." + match[1]
	for value := range strings.FieldsSeq(match[3]) {
		points = append(points, name+"-"+failpoint.Spell(strings.ReplaceAll(value, "_", " ")))
	}
	return fmt.Sprintf("failpoint.In(%q, %s)", name, match[2]), points, nil
}
