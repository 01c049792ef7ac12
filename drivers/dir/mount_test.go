package dir_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mountTest names the test that this process was started for, with a mount namespace of its own.
const mountTest = "CAIRN_TEST_MOUNT"

// withMounts runs body as root in a process that has a mount namespace of its own: what it mounts nobody else sees, and the
// kernel takes away when the process ends, however it ends. wrapper is a command that starts that process.
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
	args := append(wrapper, os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=10m")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), mountTest+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" "):
		t.Skipf("%s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("in a mount namespace of its own:\n%s", out)
}

// mountLoop makes a file system on a loop device, as mkfs says, and mounts it with the given options until the test ends. If
// this machine cannot do that the test is skipped.
func mountLoop(t *testing.T, options string, mkfs ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	image := filepath.Join(t.TempDir(), "image")
	for _, err := range []error{os.Mkdir(dir, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, gib)} {
		must(t, err)
	}
	for _, command := range [][]string{append(mkfs, image), {"mount", "-o", "loop" + options, image, dir}} {
		if err := execute(command...); err != nil {
			t.Skipf("cannot mount such a file system: %v", err)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func execute(command ...string) error {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
