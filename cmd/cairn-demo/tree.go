package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// leastFiles is how many files make a demonstration.
const leastFiles = 10_000

// tree is a directory of real files on this machine. Only regular files and directories count.
type tree struct {
	root  string
	files []string // slash-separated, sorted
	dirs  []string // parents before children
	bytes int64
}

// findTree reads the tree at root; "" is the source of the Go distribution.
func findTree(ctx context.Context, root string) (tree, error) {
	if root == "" {
		out, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: "go", Args: []string{"env", "GOROOT"}})
		if err != nil {
			return tree{}, fmt.Errorf("source of the Go distribution: %w; give another tree with --source", err)
		}
		root = filepath.Join(strings.TrimSpace(string(out.Stdout)), "src")
	}
	root, err := filepath.EvalSymlinks(root) // packaged distributions link to their source
	if err != nil {
		return tree{}, fmt.Errorf("source tree: %w", err)
	}
	t := tree{root: root}
	if err := filepath.WalkDir(root, t.enter); err != nil {
		return tree{}, fmt.Errorf("source tree: %w", err)
	}
	if len(t.files) < leastFiles {
		return tree{}, fmt.Errorf("source tree %s: has %d files, and the demonstration wants %d; give a larger one with --source", root, len(t.files), leastFiles)
	}
	return t, nil
}

func (t *tree) enter(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	name, err := filepath.Rel(t.root, path)
	if err != nil || name == "." {
		return err
	}
	name = filepath.ToSlash(name)
	switch {
	case entry.IsDir():
		t.dirs = append(t.dirs, name)
	case entry.Type().IsRegular():
		info, err := entry.Info()
		if err != nil {
			return err
		}
		t.files = append(t.files, name)
		t.bytes += info.Size()
	}
	return nil
}

// sum is the SHA-256 of a file.
type sum [sha256.Size]byte

func sumOf(text string) sum { return sha256.Sum256([]byte(text)) }

// manifest is what a share holds: the sum of every file by its path.
type manifest map[string]sum

// digest is one checksum over all names and sums, in order of name: the same for the same content only.
func (m manifest) digest() string {
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(m)) {
		sum := m[name]
		fmt.Fprintf(hash, "%s  %q\n", hex.EncodeToString(sum[:]), name)
	}
	return hex.EncodeToString(hash.Sum(nil))[:16]
}

// rename moves everything below a directory.
func (m manifest) rename(from, to string) {
	for name, sum := range maps.Clone(m) {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			delete(m, name)
			m[to+"/"+rest] = sum
		}
	}
}

// difference counts how two manifests differ.
type difference struct{ missing, extra, changed []string }

func (m manifest) compare(other manifest) difference {
	var d difference
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch sum, ok := other[name]; {
		case !ok:
			d.missing = append(d.missing, name)
		case sum != m[name]:
			d.changed = append(d.changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		if _, ok := m[name]; !ok {
			d.extra = append(d.extra, name)
		}
	}
	return d
}

// err names the first thing that is not the same, if there is one.
func (d difference) err() error {
	switch {
	case len(d.changed) > 0:
		return fmt.Errorf("mismatch: %d files have another content, the first is %q", len(d.changed), d.changed[0])
	case len(d.missing) > 0:
		return fmt.Errorf("mismatch: %d files are missing, the first is %q", len(d.missing), d.missing[0])
	case len(d.extra) > 0:
		return fmt.Errorf("mismatch: %d files should not be there, the first is %q", len(d.extra), d.extra[0])
	}
	return nil
}

func (d difference) String() string {
	return fmt.Sprintf("%d files changed, %d gone, %d new", len(d.changed), len(d.missing), len(d.extra))
}
