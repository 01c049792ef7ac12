package btrfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// mountTest names the test that this process was started for, with a mount namespace of its own.
const mountTest = "CAIRN_TEST_MOUNT"

// withDisks runs body as root with new file systems of btrfs that nobody else sees.
func withDisks(t *testing.T, n int, body func(t *testing.T, disks ...disk)) {
	t.Helper()
	if inNamespace(t) {
		body(t, newDisks(t, n)...)
		return
	}
	out, err := startAgain(t, "-test.run=^"+t.Name()+"$", drivertest.Verbose)
	drivertest.Replay(t, out, err)
}

// inNamespace reports whether this process was started again with a mount namespace of its own. What is mounted there the kernel
// takes away when the process ends, however it ends, at the latest with the one that started it.
func inNamespace(t testing.TB) bool {
	t.Helper()
	if os.Getenv(mountTest) != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatalf("private mounts: %v", err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: run as root")
	}
	return false
}

// startAgain runs this test binary with args in a mount namespace of its own.
func startAgain(t testing.TB, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(args, "-test.timeout=0")...)
	cmd.Env = append(os.Environ(), mountTest+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd.CombinedOutput()
}

// newDisks makes and mounts file systems.
func newDisks(t testing.TB, n int) []disk {
	t.Helper()
	var disks []disk
	for range n {
		d := newDisk(t)
		d.mount(t)
		disks = append(disks, d)
	}
	return disks
}

// disk is a file that has a btrfs file system in it, and where to mount it.
type disk struct{ image, dir string }

// newDisk keeps the file in memory if the machine lets us: what is durable is not what these tests can tell.
func newDisk(t testing.TB) disk {
	t.Helper()
	base := "/dev/shm"
	if unix.Access(base, unix.W_OK) != nil {
		base = t.TempDir()
	}
	parent, err := os.MkdirTemp(base, "cairn-btrfs-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(parent)) })
	d := disk{image: filepath.Join(parent, "image"), dir: filepath.Join(parent, "mnt")}
	must(t, os.Mkdir(d.dir, 0o755))
	must(t, os.WriteFile(d.image, nil, 0o600))
	must(t, os.Truncate(d.image, 2*gib))
	for _, command := range [][]string{{"mkfs.btrfs", "-q", d.image}, {"btrfs", "--version"}} {
		if err := execute(command...); err != nil {
			t.Skipf("cannot make a btrfs file system: %v", err)
		}
	}
	return d
}

// mount mounts it on a loop device until unmount is called or the test ends. If this machine cannot do that the test is
// skipped.
func (d disk) mount(t testing.TB) (unmount func()) {
	t.Helper()
	if err := execute("mount", "-o", "loop", d.image, d.dir); err != nil {
		t.Skipf("cannot mount a btrfs file system: %v", err)
	}
	unmount = sync.OnceFunc(func() {
		if err := syscall.Unmount(d.dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	t.Cleanup(unmount)
	return unmount
}

func execute(command ...string) error {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
