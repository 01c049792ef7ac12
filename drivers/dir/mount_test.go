package dir_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// mountTest names the test that this process was started for, with a mount namespace of its own.
const mountTest = "CAIRN_TEST_MOUNT"

// withMounts runs body as root in a process that has a mount namespace of its own: what it mounts nobody else sees, and the
// kernel takes away when the process ends, however it ends, at the latest with this one. wrapper is a command that starts it.
func withMounts(t *testing.T, body func(t *testing.T), wrapper ...string) {
	t.Helper()
	if os.Getenv(mountTest) != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatalf("private mounts: %v", err)
		}
		body(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: run as root")
	}
	args := append(wrapper, os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", drivertest.Verbose, "-test.timeout=0")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), mountTest+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	drivertest.Replay(t, out, err)
}

// loopDisk is a file that has a file system in it, and where to mount it.
type loopDisk struct{ image, dir string }

// newLoopDisk makes the file system with the given command, in a file below base.
func newLoopDisk(t *testing.T, base string, mkfs ...string) loopDisk {
	t.Helper()
	parent, err := os.MkdirTemp(base, "cairn-loop-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(parent)) })
	d := loopDisk{image: filepath.Join(parent, "image"), dir: filepath.Join(parent, "mnt")}
	must(t, os.Mkdir(d.dir, 0o755))
	must(t, os.WriteFile(d.image, nil, 0o600))
	must(t, os.Truncate(d.image, gib))
	if err := execute(append(mkfs, d.image)...); err != nil {
		t.Skipf("cannot make such a file system: %v", err)
	}
	return d
}

// mount mounts it on a loop device until unmount is called or the test ends. If this machine cannot do that the test is
// skipped.
func (d loopDisk) mount(t *testing.T, options string) (unmount func()) {
	t.Helper()
	if err := execute("mount", "-o", "loop,"+options, d.image, d.dir); err != nil {
		t.Skipf("cannot mount such a file system: %v", err)
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
		return fmt.Errorf("%s: %w: %s", command[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
