package nfs

import (
	"strings"
	"testing"
)

// FuzzExportfs: of what exportfs prints nothing is taken for ours that is not below our root, and what is taken needs no change.
func FuzzExportfs(f *testing.F) {
	f.Add("/cairn/a  10.0.0.0/8(sync,wdelay,fsid=1,rw)\n/srv  *(ro)\n/cairn/a  fd00::/64(ro)\n")
	f.Add("/cairn/a b(c\n")
	f.Fuzz(func(t *testing.T, out string) {
		table, err := parse([]byte(out), "/cairn")
		if err != nil {
			return
		}
		for g := range table {
			if !strings.HasPrefix(g.path, "/cairn/") {
				t.Errorf("%q was taken for ours", g.path)
			}
		}
		if list := changes(table, table); len(list) != 0 {
			t.Errorf("%v to stay as it is", list)
		}
	})
}

// FuzzMounts: every mount point is read, or nothing.
func FuzzMounts(f *testing.F) {
	f.Add("29 1 253:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n36 29 0:31 / /tank/a\\040b rw - zfs tank/a rw\n")
	f.Add("1 2 3:4 \\04 \\400 x")
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMounts(text)
		if err != nil {
			return
		}
		if lines := strings.Count(strings.TrimSpace(text), "\n") + 1; len(mounts) > lines || len(mounts) == 0 {
			t.Errorf("%d mounts of %d lines", len(mounts), lines)
		}
	})
}
