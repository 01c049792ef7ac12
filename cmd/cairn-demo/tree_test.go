package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompare: every way in which a share can differ from what was written must be seen, in both directions.
func TestCompare(t *testing.T) {
	want := manifest{"a": {1}, "d/b": {2}, "d/c": {3}}
	cases := map[string]struct {
		got  manifest
		want string
	}{
		"the same":             {manifest{"a": {1}, "d/b": {2}, "d/c": {3}}, ""},
		"one byte":             {manifest{"a": {1}, "d/b": {2, 1}, "d/c": {3}}, `1 files have another content, the first is "d/b"`},
		"one missing":          {manifest{"a": {1}, "d/c": {3}}, `1 files are missing, the first is "d/b"`},
		"one too many":         {manifest{"a": {1}, "d/b": {2}, "d/c": {3}, "d/d": {3}}, `1 files should not be there, the first is "d/d"`},
		"two exchanged":        {manifest{"a": {2}, "d/b": {1}, "d/c": {3}}, "2 files have another content"},
		"everything is absent": {manifest{}, "3 files are missing"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := want.compare(c.got).err()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
			if same := want.digest() == c.got.digest(); same != (c.want == "") {
				t.Errorf("digests are the same: %v", same)
			}
		})
	}
}

func TestRename(t *testing.T) {
	m := manifest{"d/b": {1}, "d/e/f": {2}, "dx": {3}}
	m.rename("d", "new")
	want := manifest{"new/b": {1}, "new/e/f": {2}, "dx": {3}}
	if err := want.compare(m).err(); err != nil {
		t.Errorf("%v: %v", m, err)
	}
}

// TestFindTreeRefusesSmallOnes: a demonstration with a handful of files would prove little.
func TestFindTreeRefusesSmallOnes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "only"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := findTree(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "has 1 files") {
		t.Errorf("error = %v, want one that says how few files there are", err)
	}
}
