package zfs

import (
	"strings"
	"testing"
)

// FuzzRows: what zfs list prints is read as whole lines with all their columns, or not at all.
func FuzzRows(f *testing.F) {
	f.Add(strings.Join(columns, "\t") + "\n")
	f.Add(strings.Repeat("-\t", len(columns)-1) + "-\n")
	f.Add("tank/cairn\n")
	f.Fuzz(func(t *testing.T, out string) {
		rows, err := parseRows(out)
		if err != nil {
			return
		}
		if lines := strings.Count(strings.TrimSuffix(out, "\n"), "\n") + 1; out != "" && len(rows) != lines {
			t.Errorf("%d rows of %d lines", len(rows), lines)
		}
		for _, r := range rows {
			if snap := r.snapshotName(); snap != "" && !strings.HasSuffix(r["name"], "@"+snap) {
				t.Errorf("%q is a snapshot named %q", r["name"], snap)
			}
		}
	})
}
