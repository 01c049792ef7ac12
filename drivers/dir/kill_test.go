package dir_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// killedActions is how long the life is that the children live through, until one of them reaches its end.
const killedActions = 60

// TestKill kills real processes with -9 at random moments in the middle of their work on a real disk, until one of them
// gets to the end of a random life of replicas. After every kill the next one repeats the action that was interrupted. What
// is on the disk in the end has to be what a life without a kill leaves.
func TestKill(t *testing.T) {
	if path := os.Getenv("CAIRN_TEST_KILL"); path != "" {
		liveOn(t, path)
		return
	}
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { testKill(t, seed) })
	}
}

func testKill(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	base := t.TempDir()
	killed, remove := newStorage(t, base)
	defer remove()
	next, kills := 0, 0
	for next < killedActions {
		var completed int
		completed, err := killedChild(t, killed.(storage).path, seed, next, r.IntN(12), time.Duration(r.IntN(6_000))*time.Microsecond)
		if err != nil {
			t.Fatalf("seed %d: child that began at action %d: %v", seed, next, err)
		}
		next += completed
		if next < killedActions {
			kills++
		}
	}
	reference, removeReference := newStorage(t, memory(t))
	defer removeReference()
	for i, action := range drivertest.RandomActions(seed, killedActions)[:killedActions] {
		if err := perform(t.Context(), reference, action); err != nil {
			t.Fatalf("seed %d: action %d without a kill: %v", seed, i, err)
		}
	}
	got, want := observe(t, killed), observe(t, reference)
	if got.String() != want.String() || len(got.Debris) > 0 {
		t.Errorf("seed %d: after %d kills:\n%s\nwithout a kill:\n%s", seed, kills, got, want)
	}
	t.Logf("%d actions, %d kills, %d replicas in the end", killedActions, kills, len(got.Objects))
}

// killedChild lets a child begin at an action, kills it some time after it has said that it has completed so many, and
// returns how many it has completed when it dies.
func killedChild(t *testing.T, path string, seed uint64, next, actions int, after time.Duration) (completed int, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKill$")
	child.Env = append(os.Environ(), "CAIRN_TEST_KILL="+path, fmt.Sprint("CAIRN_TEST_SEED=", seed), fmt.Sprint("CAIRN_TEST_NEXT=", next))
	out, err := child.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := child.Start(); err != nil {
		return 0, err
	}
	var trouble []string
	var kill *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		switch line := lines.Text(); line {
		case "open", "PASS":
		case "done":
			completed++
		default:
			trouble = append(trouble, line)
		}
		if kill == nil && completed == actions {
			kill = time.AfterFunc(after, func() { _ = child.Process.Kill() }) // it may have ended: then Wait says so
		}
	}
	_, _ = io.Copy(io.Discard, out)
	err = child.Wait()
	if kill != nil {
		kill.Stop()
	}
	if len(trouble) > 0 {
		return completed, errors.New(strings.Join(trouble, "\n"))
	}
	if err != nil && child.ProcessState.ExitCode() != -1 { // -1: killed, as it should be
		return completed, err
	}
	return completed, nil
}

// liveOn is the child: it performs one action after the other and says so on stdout.
func liveOn(t *testing.T, path string) {
	seed, err := strconv.ParseUint(os.Getenv("CAIRN_TEST_SEED"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	next, err := strconv.Atoi(os.Getenv("CAIRN_TEST_NEXT"))
	if err != nil {
		t.Fatal(err)
	}
	s := storage{path}
	p, err := s.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("open")
	for i, action := range drivertest.RandomActions(seed, killedActions)[next:killedActions] {
		if err := action.Do(t.Context(), p, s, drivertest.Tree{}); err != nil {
			t.Fatalf("action %d, %s: %v", next+i, action.Name, err)
		}
		fmt.Println("done")
	}
	if err := s.Close(p); err != nil {
		t.Fatal(err)
	}
}

// perform opens the pool for one action.
func perform(ctx context.Context, s drivertest.Storage, action drivertest.Action) error {
	p, err := s.Open(ctx, nil)
	if err != nil {
		return err
	}
	return errors.Join(action.Do(ctx, p, s, drivertest.Tree{}), s.Close(p))
}

func observe(t *testing.T, s drivertest.Storage) drivertest.Observation {
	t.Helper()
	p, err := s.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := drivertest.Observe(t.Context(), p, s, drivertest.Tree{})
	if err := errors.Join(err, s.Close(p)); err != nil {
		t.Fatal(err)
	}
	return seen
}
