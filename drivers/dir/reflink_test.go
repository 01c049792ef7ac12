package dir_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// TestReflink has the pool on file systems that share blocks between files, which the directory for temporary files is
// seldom on. It takes root and a loop device.
func TestReflink(t *testing.T) {
	for name, mkfs := range map[string][]string{"xfs": {"mkfs.xfs", "-q"}, "btrfs": {"mkfs.btrfs", "-q"}} {
		t.Run(name, func(t *testing.T) {
			withMounts(t, func(t *testing.T) {
				disk := newLoopDisk(t, t.TempDir(), mkfs...)
				disk.mount(t, "rw")
				t.Run("conformance", func(t *testing.T) { drivertest.Conformance(t, harness(disk.dir)) })
				t.Run("blocks are shared", func(t *testing.T) { testBlocksAreShared(t, disk.dir) })
			})
		})
	}
}

// testBlocksAreShared: a snapshot, a clone of it and a revert to it of a large file together take much less than the file.
func testBlocksAreShared(t *testing.T, mnt string) {
	const size = 64 << 20
	p, err := dir.Open(t.Context(), dir.Config{Path: filepath.Join(mnt, "pool"), PoolID: poolID})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	info, err := p.Info(t.Context())
	must(t, err)
	if slices.ContainsFunc(info.Notes, func(note string) bool { return strings.Contains(note, "reflink") }) {
		t.Errorf("Notes: %q; want none about reflinks", info.Notes)
	}
	data := make([]byte, size)
	_, err = rand.Read(data) // never fails; no file system can compress it
	must(t, err)
	must(t, os.WriteFile(filepath.Join(create(t, p, "r1").Root, "large"), data, 0o644))
	before := free(t, mnt)
	_, err = p.CreateSnapshot(t.Context(), "r1", 1, "s1")
	must(t, err)
	_, err = p.Clone(t.Context(), drivers.CreateSpec{ID: "r2", Epoch: 1, Size: gib}, "r1", "s1")
	must(t, err)
	must(t, p.Revert(t.Context(), "r1", 1, "s1"))
	if took := before - free(t, mnt); took > size/8 {
		t.Errorf("snapshot, clone and revert of a file of %d bytes took %d", size, took)
	}
}

// free is what statfs says when everything is on the disk.
func free(t *testing.T, mnt string) int64 {
	t.Helper()
	f, err := os.Open(mnt)
	must(t, err)
	defer f.Close()
	must(t, unix.Syncfs(int(f.Fd())))
	var st unix.Statfs_t
	must(t, unix.Fstatfs(int(f.Fd()), &st))
	return int64(st.Bfree) * st.Bsize
}
