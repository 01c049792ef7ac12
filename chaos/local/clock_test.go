package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClock: a server that is started with another clock has it, is the process that it would be without, and goes back when it is told to.
func TestClock(t *testing.T) {
	if err := CheckClocks(t.Context()); err != nil {
		t.Skipf("no clocks of their own: %v", err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	script := "#!/bin/sh\ncat /proc/uptime\necho $$\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Server{Name: "n1", Dir: dir, Log: filepath.Join(dir, "log"), executable: program}
	for _, ahead := range []time.Duration{0, 90 * time.Minute, time.Minute, 0} {
		before := uptimeHere(t)
		s.SetClock(ahead)
		if err := os.WriteFile(s.Log, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(s.Log)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Fields(string(text)); lines[len(lines)-1] != fmt.Sprint(s.Pid()) {
			t.Errorf("the program is process %s, the server %d", lines[len(lines)-1], s.Pid())
		}
		there, err := uptime(text)
		if after := uptimeHere(t); err != nil || there-ahead < before || there-ahead > after {
			t.Errorf("%s ahead of %s to %s it is %s, %v", ahead, before, after, there, err)
		}
	}
}

func uptimeHere(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	d, err := uptime(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
