package btrfs

import (
	"strings"
	"testing"
)

// FuzzFindNew: the size of a stream is never less than nothing.
func FuzzFindNew(f *testing.F) {
	f.Add("inode 257 file offset 0 len 3 disk start 0 offset 0 gen 18 flags INLINE name\ntransid marker was 41\n")
	f.Add("inode 1 file offset 0 len 9223372036854775807 x\ninode 1 file offset 0 len 9223372036854775807 x\n")
	f.Fuzz(func(t *testing.T, out string) {
		e := &extents{}
		for line := range strings.Lines(out) {
			if e.add(line) != nil {
				break
			}
		}
		if e.bytes < 0 {
			t.Errorf("%d bytes", e.bytes)
		}
	})
}
