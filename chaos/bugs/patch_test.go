package bugs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// bug is one patch file.
type bug struct {
	name  string
	what  string         // is wrong
	pkg   string         // of the search, as a path from the root of the repository
	run   string         // which tests of it
	env   []string       // what the search is told
	finds *regexp.Regexp // in the output of the search
	found string         // how long that took, when it was measured; "" never
	files []filePatch
}

type filePatch struct {
	path  string // from the root of the repository
	hunks []hunk
}

// hunk is a place of a file: what is there, and what the bug makes of it.
type hunk struct {
	line          int // of the first one, as the patch has it
	before, after []string
}

// readBug reads a patch file: lines "Key: value", then the output of git diff.
func readBug(path string) (*bug, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b := &bug{name: strings.TrimSuffix(filepath.Base(path), ".patch")}
	head, diff, ok := strings.Cut(string(data), "\ndiff --git ")
	if !ok {
		return nil, fmt.Errorf("%s: has no diff", path)
	}
	for _, line := range strings.Split(head, "\n") {
		if err := b.header(line); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, one := range strings.Split(diff, "\ndiff --git ") {
		file, err := readFilePatch(one)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		b.files = append(b.files, file)
	}
	return b, nil
}

func (b *bug) header(line string) (err error) {
	key, value, _ := strings.Cut(line, ": ")
	switch key {
	case "Bug":
		b.what = value
	case "Search":
		b.pkg, b.run, _ = strings.Cut(value, " ")
	case "Env":
		b.env = append(b.env, value)
	case "Found":
		b.found = value
	case "Finds":
		b.finds, err = regexp.Compile(value)
	default:
		err = fmt.Errorf("line %q: want Bug, Search, Env, Finds or Found", line)
	}
	return err
}

var hunkHead = regexp.MustCompile(`^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@`)

func readFilePatch(diff string) (filePatch, error) {
	var p filePatch
	for _, line := range strings.Split(strings.TrimSuffix(diff, "\n"), "\n") {
		switch head := hunkHead.FindStringSubmatch(line); {
		case head != nil:
			n, err := strconv.Atoi(head[1])
			if err != nil {
				return p, err
			}
			p.hunks = append(p.hunks, hunk{line: n})
		case strings.HasPrefix(line, "--- a/"):
			p.path = strings.TrimPrefix(line, "--- a/")
		case len(p.hunks) > 0:
			if err := p.hunks[len(p.hunks)-1].add(line); err != nil {
				return p, fmt.Errorf("%s: %w", p.path, err)
			}
		}
	}
	if p.path == "" || len(p.hunks) == 0 {
		return p, fmt.Errorf("a diff of nothing: %.40q", diff)
	}
	return p, nil
}

func (h *hunk) add(line string) error {
	if line == "" {
		line = " " // an editor took it away
	}
	switch text := line[1:]; line[0] {
	case ' ':
		h.before, h.after = append(h.before, text), append(h.after, text)
	case '-':
		h.before = append(h.before, text)
	case '+':
		h.after = append(h.after, text)
	default:
		return fmt.Errorf("line %q is none of a diff", line)
	}
	return nil
}

// apply returns the text with the bug. A place may have moved, but it must be there once.
func (p *filePatch) apply(text string) (string, error) {
	lines := strings.Split(text, "\n")
	for _, h := range p.hunks {
		at := -1
		for i := 0; i+len(h.before) <= len(lines); i++ {
			if !slices.Equal(lines[i:i+len(h.before)], h.before) {
				continue
			}
			if at >= 0 {
				return "", fmt.Errorf("%s: the hunk of line %d fits at lines %d and %d: give it more context", p.path, h.line, at+1, i+1)
			}
			at = i
		}
		if at < 0 {
			return "", fmt.Errorf("%s: the hunk of line %d does not apply any more: make the patch anew", p.path, h.line)
		}
		lines = slices.Replace(lines, at, at+len(h.before), h.after...)
	}
	return strings.Join(lines, "\n"), nil
}
