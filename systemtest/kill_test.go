package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

const (
	// kills is how many processes are killed at least.
	kills = 24
	// convergence is how long everything may take to be in order again.
	convergence = 30 * time.Second
)

// randomSeed is from the clock, unless CAIRN_SEED repeats an earlier run.
func randomSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAIRN_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CAIRN_SEED: %v", err)
		}
	}
	t.Logf("CAIRN_SEED=%d", seed)
	return seed
}

// TestKills kills servers with SIGKILL at random moments while clients create, resize, snapshot and delete shares and write
// files. Afterwards everything converges, every acknowledged file is there, and the pools hold what the state says and nothing
// else.
func TestKills(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	seed := randomSeed(t)
	docs := c.makeShare("docs", "1GiB")
	l := startLoad(c, docs, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	killed := 0
	for killed < kills {
		l.flow(random.IntN(20))
		pause(t.Context(), time.Duration(random.IntN(20_000))*time.Microsecond)
		victims := slices.Clone(c.Servers())
		random.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
		victims = victims[:[]int{1, 1, 1, 1, 2, 3}[random.IntN(6)]]
		for _, s := range victims {
			c.check(s.Kill())
			killed++
		}
		pause(t.Context(), time.Duration(random.IntN(500))*time.Millisecond)
		for _, s := range victims {
			c.check(s.Start())
		}
		if random.IntN(2) == 0 { // the other half is killed again while it starts
			for _, s := range victims {
				c.check(c.AwaitUp(t.Context(), s))
			}
		}
	}
	files := l.end()
	began := time.Now()
	c.await(convergence, "order after the kills", c.inOrder)
	t.Logf("%d kills, %s; all in order again after %s", killed, l, time.Since(began).Round(time.Millisecond))
	for name, content := range files {
		got, err := read(t.Context(), docs.files, name)
		if err != nil || string(got) != content {
			t.Errorf("%s was acknowledged and now reads %q (%v), want %q", name, got, err, content)
		}
	}
	c.agree()
}

// pause lets a random time pass: here it is the moment of the kill that is to be random, nothing is waited for.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// inOrder reports whether all servers are up and in the same state, every share and snapshot is available and healthy, no task
// runs, and each pool holds exactly the replicas and snapshots that the state has there.
func (c *cluster) inOrder(ctx context.Context) (bool, error) {
	for _, s := range c.Servers() {
		node, err := c.Node(ctx, s, s.Name)
		if err != nil || node.GetState() != "up" {
			return false, fmt.Errorf("%s is %q: %w", s.Name, node.GetState(), err)
		}
	}
	want, err := c.wantedObjects(ctx)
	if err != nil {
		return false, err
	}
	for _, s := range c.Servers() {
		got, err := s.Everything()
		if err != nil {
			return false, err
		}
		slices.Sort(want[s.Name])
		if !slices.Equal(got, want[s.Name]) {
			return false, fmt.Errorf("the pool of %s holds\n  %v\nand the state has there\n  %v", s.Name, got, want[s.Name])
		}
	}
	state, err := c.Agree(ctx)
	return state.Index > 0, err
}
