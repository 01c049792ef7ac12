//go:build lab

package zfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/deploy/lab/labdisk"
	"github.com/cairn-storage/cairn/drivers/tool"
)

func TestLabDefects(t *testing.T) { defects(t, lab(t)) }

func TestLabAdoption(t *testing.T) { adoption(newFixture(t, lab(t), nil)) }

func TestLabAside(t *testing.T) { asides(t, lab(t)) }

func TestLabBadLuck(t *testing.T) {
	m := lab(t)
	badLuck(t, m)
	t.Run("hanging", func(t *testing.T) {
		f := newFixture(t, m, nil)
		f.create("r1", nil)
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "zfs"), []byte("#!/bin/sh\nsleep 1000\n"), 0o755))
		path := os.Getenv("PATH")
		must(t, os.Setenv("PATH", dir+":"+path))
		f.hangs()
		must(t, os.Setenv("PATH", path))
		f.stat("r1")
	})
}

// The disk of a zpool fails under it: every write fails, and ZFS suspends the pool.
func TestLabSuspended(t *testing.T) {
	dir := t.TempDir()
	disk := labdisk.New(t, 256<<20)
	m := machine{Runner: tool.NewMachine(), zpool: "bad", patience: 10 * time.Minute, serial: new(atomic.Int64)}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := m.run(name, args...)
		must(t, err)
		return strings.TrimSpace(out)
	}
	loop := run("losetup", "-f", "--show", disk)
	defer run("losetup", "-d", loop)
	sectors := run("blockdev", "--getsz", loop)
	linear, broken := fmt.Sprintf("0 %s linear %s 0", sectors, loop), fmt.Sprintf("0 %s error", sectors)
	run("dmsetup", "create", "cairnbad", "--table", linear)
	defer run("dmsetup", "remove", "--retry", "cairnbad")
	run("zpool", "create", "-O", "mountpoint="+filepath.Join(dir, "bad"), "bad", "/dev/mapper/cairnbad")
	defer run("zpool", "destroy", "bad")
	table := func(table string) {
		t.Helper()
		run("dmsetup", "suspend", "--noflush", "--nolockfs", "cairnbad")
		run("dmsetup", "load", "cairnbad", "--table", table)
		run("dmsetup", "resume", "cairnbad")
	}
	// With failmode=continue the pool's health is that of its disks, and only what zfs says of it tells.
	for failmode, text := range map[string]string{"wait": "is SUSPENDED", "continue": "is currently suspended"} {
		t.Run(failmode, func(t *testing.T) {
			run("zpool", "set", "failmode="+failmode, "bad")
			f := newFixture(t, m, nil)
			file := filepath.Join(f.create("r1", nil).Root, "file")
			table(broken)
			must(t, os.WriteFile(file, []byte("one"), 0o644))
			flushed := make(chan error, 1)
			go func() { _, err := m.run("zpool", "sync", "bad"); flushed <- err }() // which hangs until the disk is back
			for deadline := time.Now().Add(time.Minute); ; {
				_, err := m.run("zfs", "list", "bad")
				if err != nil && strings.Contains(err.Error(), "suspended") {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the pool is not suspended although its disk fails")
				}
			}
			f.answersNothing(text, cairn.ErrUnavailable)
			table(linear)
			run("zpool", "clear", "bad")
			must(t, <-flushed)
			f.holds(f.stat("r1").Root, "one")
			f.write("r1", "two")
		})
	}
}
