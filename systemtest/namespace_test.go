package systemtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// namespaceTest names the test that this process was started for, with a mount namespace of its own.
const namespaceTest = "CAIRN_SYSTEMTEST_NAMESPACE"

func inNamespace() bool { return os.Getenv(namespaceTest) != "" }

// withMounts runs body in a process that has a mount namespace of its own: what it mounts nobody else sees, and the kernel
// takes away when the process ends, however it ends. Without root that takes a user namespace, too. Where the kernel permits
// neither, the test is skipped.
func withMounts(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	withNamespaces(t, syscall.CLONE_NEWNS, body)
}

// withNamespaces is withMounts with what flags say besides.
func withNamespaces(t *testing.T, flags uintptr, body func(t *testing.T)) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts server processes: run without -short")
	}
	if inNamespace() {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatalf("private mounts: %v", err)
		}
		body(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), namespaceTest+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no namespaces: %v; run as root", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
			t.Skipf("%s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("in namespaces of its own:\n%s", out)
}

// mountSmall puts a file system of that many bytes on dir: ext4 on a loop device where this process may have one, because
// that is what real disks carry, else tmpfs.
func mountSmall(t *testing.T, dir string, size int64) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size))
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if err == nil {
			err = execute(command...)
		}
	}
	what := "ext4 on a loop device"
	if err == nil {
		err = os.Remove(filepath.Join(dir, "lost+found"))
		if err != nil {
			t.Fatal(err)
		}
	} else {
		what = fmt.Sprintf("tmpfs, since ext4 cannot be mounted (%v)", err)
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	}
	if err != nil {
		t.Skipf("no small file system: %v", err)
	}
	t.Logf("%s: %d MiB of %s", filepath.Base(dir), size>>20, what)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func execute(command ...string) error {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// fill writes a file that takes all the space of its file system but so many bytes.
func fill(t *testing.T, path string, but int64) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v, want a full disk", path, err)
	}
	info, err := file.Stat()
	if err == nil {
		err = errors.Join(file.Truncate(max(0, info.Size()-but)), file.Sync())
	}
	if err != nil {
		t.Fatal(err)
	}
}
