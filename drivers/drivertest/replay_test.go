package drivertest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestReplay starts itself, and that process once more, whose subtests the one between has to make its own.
func TestReplay(t *testing.T) {
	const stage = "CAIRN_TEST_REPLAY"
	again := func(next, verbose string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReplay$", verbose)
		cmd.Env = append(os.Environ(), stage+"="+next)
		return cmd.CombinedOutput()
	}
	inner, between := strings.CutPrefix(os.Getenv(stage), "between ")
	switch {
	case between:
		out, err := again(inner, Verbose)
		Replay(t, out, err)
		return
	case inner != "":
		replayed(t, inner)
		return
	}
	for _, tc := range []struct {
		inner string
		want  []string
		fails bool
	}{
		{"passes", []string{
			"--- PASS: TestReplay (", "--- PASS: TestReplay/a_b (", "--- PASS: TestReplay/a_b/c/d (", "--- SKIP: TestReplay/a_b/skipped (",
			"the pool cannot", "--- SKIP: TestReplay/parallel/0 (", "--- SKIP: TestReplay/parallel/1 (", "no reason 1", "prints no newline",
		}, false},
		{"skips", []string{"--- SKIP: TestReplay (", "not on this machine"}, false},
		{"fails", []string{"--- FAIL: TestReplay (", "it is broken"}, true},
		{"dies", []string{"--- FAIL: TestReplay (", "exit status 7"}, true},
	} {
		t.Run(tc.inner, func(t *testing.T) {
			out, err := again("between "+tc.inner, "-test.v")
			for _, text := range tc.want {
				if !strings.Contains(string(out), text) {
					t.Errorf("%q is missing", text)
				}
			}
			if (err != nil) != tc.fails || t.Failed() {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// replayed is the innermost test.
func replayed(t *testing.T, as string) {
	t.Log("begins")
	t.Run("a b", func(t *testing.T) {
		t.Run("c/d", func(*testing.T) { os.Stdout.WriteString("prints no newline") })
		t.Run("skipped", func(t *testing.T) { t.Skip("skipped clause: the pool cannot") })
		t.Run("broken", func(t *testing.T) {
			if as == "fails" {
				t.Error("it is broken")
			}
		})
	})
	t.Run("parallel", func(t *testing.T) {
		for _, name := range []string{"0", "1"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				t.Skip("no reason " + name)
			})
		}
	})
	switch as {
	case "skips":
		t.Skip("not on this machine")
	case "dies":
		os.Exit(7)
	}
}
