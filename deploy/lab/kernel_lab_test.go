//go:build lab

// Package lab_test holds the lab against its promise: the kernel and the programs that the other packages' lab tests need.
package lab_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/deploy/lab/labdisk"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// TestLabKernel asks each part of the kernel for something that only it can do.
func TestLabKernel(t *testing.T) {
	for _, test := range []struct {
		module string
		shows  func(t *testing.T)
	}{
		{"zfs", func(t *testing.T) {
			run(t, "zpool", "create", "-m", "none", "labkernel", labdisk.New(t, 128<<20))
			run(t, "zpool", "destroy", "labkernel")
		}},
		{"nfsd", func(t *testing.T) { wantIn(t, read(t, "/proc/filesystems"), "nfsd") }},
		{"nfs", func(t *testing.T) { wantIn(t, read(t, "/proc/filesystems"), "nfs4") }},
		{"dm_thin_pool", func(t *testing.T) { wantIn(t, run(t, "dmsetup", "targets"), "thin-pool") }},
		{"target_core_mod", func(t *testing.T) { wantIn(t, read(t, "/sys/kernel/config/target/version"), "Target Engine") }},
		{"iscsi_target_mod", func(t *testing.T) {
			const fabric = "/sys/kernel/config/target/iscsi"
			if err := os.Mkdir(fabric, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(fabric); err != nil {
				t.Fatal(err)
			}
		}},
		{"nbd", func(t *testing.T) {
			if _, err := os.Stat("/sys/block/nbd0"); err != nil {
				t.Fatal(err)
			}
		}},
		{"sch_netem", func(t *testing.T) {
			run(t, "ip", "link", "add", "labkernel", "type", "dummy")
			defer run(t, "ip", "link", "delete", "labkernel")
			run(t, "tc", "qdisc", "add", "dev", "labkernel", "root", "netem", "delay", "1ms")
		}},
		{"xfs", func(t *testing.T) { wantIn(t, read(t, "/proc/filesystems"), "xfs") }},
		{"btrfs", func(t *testing.T) { wantIn(t, read(t, "/proc/filesystems"), "btrfs") }},
	} {
		t.Run(test.module, func(t *testing.T) {
			run(t, "modprobe", test.module)
			test.shows(t)
		})
	}
}

// TestLabPrograms fails on a recipe that has lost a package.
func TestLabPrograms(t *testing.T) {
	for _, program := range []string{
		"cairn", "zfs", "zpool", "exportfs", "rpc.mountd", "rpc.nfsd", "rpcbind", "mount.nfs", "ganesha.nfsd", "lvcreate", "thin_check",
		"iscsiadm", "tgtd", "tgtadm", "ip", "tc", "nft", "arping", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "quotacheck", "xfs_quota",
		"fio", "strace", "fuser", "curl",
	} {
		run(t, "which", program)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	result, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: name, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return string(result.Stdout)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

func wantIn(t *testing.T, text, word string) {
	t.Helper()
	if !strings.Contains(text, word) {
		t.Errorf("no %q in:\n%s", word, text)
	}
}
