package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cairn-storage/cairn/chaos/local"
)

// killNFS ends a server's Ganesha. That there is none just now is no error: the server starts one again later and later.
func killNFS(_ context.Context, _ *World, target *local.Server, _ *rand.Rand) (Heal, error) {
	_, err := signalNFS(target, syscall.SIGKILL)
	return none, err
}

// pauseNFS stops a server's Ganesha for a while.
func pauseNFS(_ context.Context, _ *World, target *local.Server, _ *rand.Rand) (Heal, error) {
	pid, err := signalNFS(target, syscall.SIGSTOP)
	return func(context.Context) error {
		if pid == 0 || !isGanesha(target, pid) {
			return nil // it has ended meanwhile
		}
		return ignoreEnded(syscall.Kill(pid, syscall.SIGCONT))
	}, err
}

// signalNFS sends a signal to a server's Ganesha, and returns the number of the process; 0 if there is none.
func signalNFS(target *local.Server, signal syscall.Signal) (pid int, err error) {
	text, err := os.ReadFile(filepath.Join(target.DataDir(), "ganesha", "ganesha.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("ganesha of %s: %w", target.Name, err)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !isGanesha(target, pid) {
		return 0, nil // it is starting, or has ended and its number may be somebody else's
	}
	return pid, ignoreEnded(syscall.Kill(pid, signal))
}

// isGanesha reports whether a process is that server's Ganesha.
func isGanesha(s *local.Server, pid int) bool {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(command), filepath.Join(s.DataDir(), "ganesha"))
}

func ignoreEnded(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
