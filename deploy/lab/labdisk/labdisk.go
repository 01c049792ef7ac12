//go:build lab

// Package labdisk gives the lab's tests disks in memory, which the emulator has nothing to do for.
package labdisk

import (
	"os"
	"path/filepath"
	"testing"
)

// New makes a file of that size, full of zeros and in a directory of its own, which are there until the test ends. It is for
// zpools and loop devices; a zpool on it must be destroyed before. What a test proves of durability it proves without a
// power failure, so it proves the same here.
func New(t testing.TB, size int64) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "disk")
	if err != nil {
		t.Fatalf("disk: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("disk: %v", err)
		}
	})
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatalf("disk: %v", err)
	}
	if err := os.Truncate(disk, size); err != nil {
		t.Fatalf("disk: %v", err)
	}
	return disk
}
