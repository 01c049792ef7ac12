package systemtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/failpoint"
	"github.com/cairn-storage/cairn/chaos/local"
)

// failpointKills says how many points are killed at: a number, "all" of them, or those that have it in their name. `make
// failpoints` sets it, and builds what the test runs.
const failpointKills = "CAIRN_FAILPOINT_KILLS"

// The binary with failpoints and their list, as `make failpoints` leaves them.
const (
	failpointBinary = "../bin/cairn-failpoints"
	failpointList   = "../bin/failpoints.txt"
)

// history is what servers do while one of them is killed: the same from the beginning to the end every time, so that it
// reaches the same points.
type history interface {
	// run does everything once. When a server has been killed its context ends.
	run(ctx context.Context) error
	// check starts what is dead again, and demands that everything converges and nothing is lost.
	check()
}

// TestFailpoints kills with SIGKILL, at every failpoint, a process that makes a cluster or joins one, one server, and one of
// three servers. Afterwards what was acknowledged is there, everything converges, no object is without a row and no row
// without its object, and the servers agree. A point that nothing of this reaches fails the test.
func TestFailpoints(t *testing.T) {
	kills := os.Getenv(failpointKills)
	if kills == "" {
		t.Skip("needs a binary of its own: make failpoints")
	}
	p := newPoints(t)
	seed := randomSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	var all []killing
	missing := slices.Clone(p.all)
	for _, kind := range []struct {
		name  string
		begin func(t *testing.T) history
	}{
		{"birth", func(t *testing.T) history { return &birth{t: t, points: p} }},
		{"join", func(t *testing.T) history { return &birth{t: t, points: p, late: true} }},
		{"one", func(t *testing.T) history { return newLife(t, p, 1) }},
		{"three", func(t *testing.T) history { return newLife(t, p, 3) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			h := kind.begin(t)
			reached := p.profile(t, h)
			t.Logf("%d of %d failpoints reached", len(reached), len(p.all))
			missing = slices.DeleteFunc(missing, func(name string) bool { return slices.Contains(reached, name) })
			for _, name := range p.sample(random, kills, reached) {
				p.kill(t, h, name)
				all = append(all, killing{kind.name, name})
			}
		})
	}
	if len(missing) > 0 && !t.Failed() {
		t.Errorf("%d failpoints were not reached: %s", len(missing), strings.Join(missing, " "))
	}
	t.Logf("killed at %d points, of %d failpoints", len(all), len(p.all))
}

type killing struct{ history, point string }

// points are the failpoints of the test binary, and the directory through which they are used.
type points struct {
	dir string
	all []string
}

func newPoints(t *testing.T) *points {
	t.Helper()
	text, err := os.ReadFile(failpointList)
	if err == nil {
		_, err = os.Stat(failpointBinary)
	}
	if err != nil {
		t.Fatalf("%v: run make failpoints", err)
	}
	p := &points{t.TempDir(), strings.Fields(string(text))}
	t.Setenv(failpoint.Variable, p.dir)
	return p
}

// sample chooses points: an equal part of the kills for each of the four histories.
func (p *points) sample(random *rand.Rand, kills string, reached []string) []string {
	random.Shuffle(len(reached), func(i, j int) { reached[i], reached[j] = reached[j], reached[i] })
	if n, err := strconv.Atoi(kills); err == nil {
		return reached[:min(len(reached), (n+3)/4)]
	}
	slices.Sort(reached)
	return slices.DeleteFunc(reached, func(name string) bool { return kills != "all" && !strings.Contains(name, kills) })
}

// profile runs a history without a kill, and returns the points that it reaches.
func (p *points) profile(t *testing.T, h history) []string {
	t.Helper()
	file := filepath.Join(p.dir, failpoint.Reached)
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	if err := h.run(t.Context()); err != nil {
		t.Fatalf("without a kill: %v", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h.check()
	reached := strings.Fields(string(text))
	slices.Sort(reached)
	reached = slices.Compact(reached)
	for _, name := range reached {
		if !slices.Contains(p.all, name) {
			t.Errorf("point %s was reached and is not in the list; add its value to the comment", name)
		}
	}
	return reached
}

// errKilled ends what was going on when a process was killed at the point that was armed.
var errKilled = errors.New("killed at a failpoint")

// errAfter is an error of what was done again after the kill.
var errAfter = errors.New("after the kill")

// kill has a history reach the point, where the first process dies that does.
func (p *points) kill(t *testing.T, h history, name string) {
	t.Helper()
	began := time.Now()
	if err := os.WriteFile(filepath.Join(p.dir, failpoint.Armed), []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for p.killed() == 0 && ctx.Err() == nil {
			pause(ctx, 5*time.Millisecond)
		}
		cancel(errKilled)
	}()
	err := h.run(ctx)
	if p.killed() == 0 && err == nil {
		pause(t.Context(), time.Second) // it may be reached by what goes on behind the last answer
	}
	cancel(nil)
	<-watched
	if errors.Is(err, errAfter) {
		t.Fatalf("%s: %v", name, err)
	}
	if p.killed() == 0 {
		t.Fatalf("%s: was not reached this time: %v", name, err)
	}
	h.check()
	if err := os.Remove(p.killedFile()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s", name, time.Since(began).Round(100*time.Millisecond))
	if t.Failed() {
		t.Fatalf("%s: this was the last kill", name)
	}
}

// hold keeps a point from being armed, and what is reached from being counted, until it is released.
func (p *points) hold(late bool) (release func() error, err error) {
	armed, reached := filepath.Join(p.dir, failpoint.Armed), filepath.Join(p.dir, failpoint.Reached)
	if !late {
		return func() error { return nil }, nil
	}
	if err := os.Rename(armed, armed+".held"); errors.Is(err, os.ErrNotExist) {
		return func() error { return os.RemoveAll(reached) }, nil
	} else if err != nil {
		return nil, err
	}
	return func() error { return os.Rename(armed+".held", armed) }, nil
}

func (p *points) killedFile() string {
	found, _ := filepath.Glob(filepath.Join(p.dir, failpoint.Killed+"*")) // the pattern is good
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// killed is the number of the process that has died of the point that was armed; 0 if none has.
func (p *points) killed() int {
	_, number, _ := strings.Cut(filepath.Base(p.killedFile()), failpoint.Killed)
	pid, _ := strconv.Atoi(number) // "" is 0
	return pid
}

// revive starts every server again that does not run, once the one that is being killed is dead.
func (p *points) revive(c *cluster) {
	c.t.Helper()
	c.await(30*time.Second, "the end of the process", func(context.Context) (bool, error) {
		return !slices.ContainsFunc(c.Servers(), func(s *local.Server) bool { return s.Started() && s.Pid() == p.killed() && s.Running() }), nil
	})
	var dead []*local.Server
	for _, s := range c.Servers() {
		if s.Started() && !s.Running() {
			c.check(s.Start())
			dead = append(dead, s)
		}
	}
	for _, s := range dead {
		c.check(c.AwaitUp(c.t.Context(), s))
	}
}

// birth is a cluster that is made with one server and joined by a second one. Each run makes another one.
type birth struct {
	t      *testing.T
	points *points
	late   bool // only the second server is killed, or the first one when it answers that one
	c      *cluster
}

func (b *birth) run(context.Context) error {
	if b.c != nil {
		if err := b.c.Close(); err != nil {
			return err
		}
	}
	dir := b.t.TempDir()
	inner, err := local.New(local.Config{Dir: dir, Executable: failpointBinary, PoolSize: "10GiB"})
	if err != nil {
		return err
	}
	b.t.Cleanup(func() {
		if err := inner.Close(); err != nil {
			b.t.Error(err)
		}
	})
	b.c = &cluster{inner, b.t}
	release, err := b.points.hold(b.late)
	if err != nil {
		return err
	}
	b.t.Cleanup(func() {
		if b.t.Failed() && b.c.Cluster == inner {
			b.c.showLogs()
		}
	})
	first, err := b.c.Prepare()
	if err != nil {
		return err
	}
	ctx := b.t.Context() // a kill does not end this history: whoever was killed is started again
	if err := b.again(func() error {
		return b.c.Tool(ctx, nil, "cluster", "init", "--config", first.File, "--out", filepath.Join(dir, "admin.toml"))
	}); err != nil {
		return err
	}
	if err := b.again(func() error { return b.started(first) }); err != nil {
		return err
	}
	second, err := b.c.Prepare()
	if err != nil {
		return err
	}
	var token string
	if err := b.again(func() (err error) { token, err = b.c.Token(ctx, second.Name); return err }); err != nil {
		return err
	}
	if err := release(); err != nil {
		return err
	}
	if err := b.again(func() error { return b.c.Enrol(ctx, second, token) }); err != nil {
		return err
	}
	if err := b.again(func() error { return b.started(second) }); err != nil {
		return err
	}
	return b.again(func() error { return b.c.AwaitVoters(ctx, 2) })
}

func (b *birth) started(s *local.Server) error {
	if !s.Running() {
		if err := s.Start(); err != nil {
			return err
		}
	}
	return b.c.AwaitUp(b.t.Context(), s)
}

// again does it a second time if a process was killed the first time: an operator has nothing else to do.
func (b *birth) again(do func() error) error {
	before := b.points.killed()
	err := do()
	if err == nil || b.points.killed() == before {
		return err
	}
	b.points.revive(b.c)
	if err := do(); err != nil {
		return fmt.Errorf("%w: %w", errAfter, err)
	}
	return nil
}

func (b *birth) check() {
	b.t.Helper()
	b.points.revive(b.c)
	b.c.check(b.c.AwaitVoters(b.t.Context(), 2))
	b.c.await(convergence, "order after the kill", b.c.wholeNow)
	dir := filepath.Dir(b.c.Servers()[0].Dir)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if entry.Name() == "snapshots" && strings.HasSuffix(filepath.Dir(path), "raft") {
			return filepath.SkipDir // one may be under way
		}
		if err == nil && strings.HasSuffix(path, ".tmp") {
			b.t.Errorf("%s was left behind", path)
		}
		return err
	})
	b.c.check(err)
}
