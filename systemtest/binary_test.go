//go:build !lab

package systemtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// withBinary builds cairn and puts it first in PATH.
func withBinary(run func() int) int {
	dir, err := os.MkdirTemp("", "cairn-systemtest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, binary), "../cmd/cairn")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := errors.Join(build.Run(), os.Setenv("PATH", dir+":"+os.Getenv("PATH"))); err != nil {
		fmt.Fprintln(os.Stderr, "build of cairn:", err)
		return 1
	}
	return run()
}
