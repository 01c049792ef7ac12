package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// engines is members of one cluster.
type engines []*Engine

// openAll starts n voters.
func openAll(t *testing.T, n int) engines {
	t.Helper()
	found := &raft.Configuration{}
	for i := range n {
		found.Servers = append(found.Servers, raft.Server{ID: raft.ServerID(fmt.Sprintf("n%d", i+1)), Address: raft.ServerAddress(address(t))})
	}
	var all engines
	for _, s := range found.Servers {
		all = append(all, open(t, string(s.ID), t.TempDir(), string(s.Address), found))
	}
	return all
}

// leader waits for one.
func (all engines) leader(t *testing.T) (leader *Engine) {
	t.Helper()
	waitFor(t, "a leader", func() bool {
		for _, e := range all {
			if e.Leading() {
				leader = e
			}
		}
		return leader != nil
	})
	return leader
}

// apply asks until a leader has decided. The command has a token, so it is done once.
func (all engines) apply(ctx context.Context, token string, c fsm.Command) (fsm.Result, error) {
	data, err := fsm.Encode(fsm.Meta{At: 1, Actor: "user/test", Token: token}, c)
	if err != nil {
		return fsm.Result{}, err
	}
	for {
		for _, e := range all {
			if result, err := e.Apply(ctx, data); err == nil {
				return result, nil
			}
		}
		select {
		case <-ctx.Done():
			return fsm.Result{}, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// errants has many clients send commands of all kinds at the same time, and returns how many got an answer that was not to
// their own.
func (all engines) errants(t *testing.T) int64 {
	t.Helper()
	const clients, each = 64, 12
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := all.apply(ctx, "first", typed("taken")); err != nil {
		t.Fatal(err)
	}
	var errants atomic.Int64
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			for n := range each {
				name := fmt.Sprintf("t-%d-%d", client, n)
				var c fsm.Command = typed(name)
				var want error
				switch (client + n) % 3 {
				case 1:
					other := typed("taken")
					other.Type.Format = cairn.FormatBlock
					c, want = other, cairn.ErrExists
				case 2:
					c, want = &fsm.DeleteType{Name: name}, cairn.ErrNotFound
				}
				result, err := all.apply(ctx, name, c)
				switch {
				case err != nil:
					t.Errorf("%s: %v", name, err)
				case want == nil && (result.Err != nil || result.ID != name), want != nil && !errors.Is(result.Err, want):
					errants.Add(1)
				}
			}
		})
	}
	group.Wait()
	return errants.Load()
}

func typed(name string) *fsm.CreateType {
	return &fsm.CreateType{Type: cairn.ShareType{Name: name, Format: cairn.FormatFiles}}
}

// TestBundledCommandsAnswerTheirCallers: of commands that share entries, each caller gets the answer to its own, and all
// members have the same state, also one that gets the entries later.
func TestBundledCommandsAnswerTheirCallers(t *testing.T) {
	all := openAll(t, 3)
	var entries, commands atomic.Int64
	for _, e := range all {
		propose := e.queue.propose
		e.queue.propose = func(batch [][]byte, deadline time.Time) ([]fsm.Result, error) {
			entries.Add(1)
			commands.Add(int64(len(batch)))
			return propose(batch, deadline)
		}
	}
	all.leader(t)
	if n := all.errants(t); n != 0 {
		t.Errorf("%d callers got another's answer", n)
	}
	if entries.Load() == commands.Load() {
		t.Errorf("%d entries for %d commands: nothing was bundled", entries.Load(), commands.Load())
	}
	at := address(t)
	late := open(t, "late", t.TempDir(), at, nil)
	waitFor(t, "the late member is one", func() bool {
		return all.leader(t).Raft().AddNonvoter("late", raft.ServerAddress(at), 0, 5*time.Second).Error() == nil
	})
	if result, err := all.apply(t.Context(), "last", typed("last")); err != nil || result.Err != nil {
		t.Fatal(result.Err, err)
	}
	members := append(engines{late}, all...)
	waitFor(t, "all members have the same state", func() bool {
		want := all[0].machine.View()
		for _, e := range members {
			if v := e.machine.View(); v.Type("last") == nil || v.Index() != want.Index() || v.Digest() != want.Digest() {
				return false
			}
		}
		return true
	})
}

// TestSwappedAnswersAreNoticed is the control of the test above.
func TestSwappedAnswersAreNoticed(t *testing.T) {
	all := openAll(t, 1)
	propose := all[0].queue.propose
	all[0].queue.propose = func(batch [][]byte, deadline time.Time) ([]fsm.Result, error) {
		results, err := propose(batch, deadline)
		if last := len(results) - 1; last > 0 {
			results[0], results[last] = results[last], results[0]
		}
		return results, err
	}
	all.leader(t)
	if all.errants(t) == 0 {
		t.Error("the answers of bundled commands have traded places, and nobody noticed")
	}
}

// TestStoppedRaftLeavesNobodyWaiting: Raft forgets entries that were committed and not yet applied when it is stopped. Their
// callers are answered all the same, and nothing keeps the place of such an entry.
func TestStoppedRaftLeavesNobodyWaiting(t *testing.T) {
	e := openAll(t, 1)[0]
	applying, release := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	e.machine.Subscribe(func([]fsm.Change) {
		if armed.CompareAndSwap(true, false) {
			close(applying)
			<-release
		}
	})
	for round := range 6 {
		waitFor(t, "it leads", e.Leading)
		apply(t, e, fmt.Sprintf("before-%d", round))
		old := e.instance.Load()
		answers := make(chan error, maxEntries)
		ask := func(name string) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err := e.Apply(ctx, command(t, name))
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			answers <- err
		}
		applying, release = make(chan struct{}), make(chan struct{})
		armed.Store(true)
		go ask(fmt.Sprintf("first-%d", round))
		<-applying
		committed := old.CommitIndex()
		go ask(fmt.Sprintf("second-%d", round))
		waitFor(t, "the second is committed, and waits behind the first", func() bool { return old.CommitIndex() > committed })
		e.restarts <- "test"
		waitFor(t, "Raft is being stopped", func() bool { return old.State() == raft.Shutdown })
		close(release)
		for range maxEntries {
			if err := <-answers; errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("round %d: a caller waited until its deadline", round)
			}
		}
		waitFor(t, "a new instance", func() bool { return e.instance.Load() != old })
	}
}

// TestRestartUnderLoad restarts Raft in place while commands are in the queue and on their way. Every caller is answered, and
// what it is told is true: what was done is there, and what was certainly not done is not.
func TestRestartUnderLoad(t *testing.T) {
	e := openAll(t, 1)[0]
	waitFor(t, "it leads", e.Leading)
	const clients = 32
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	done, undone, unknown := []string{}, []string{}, 0
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("t-%d-%d", client, n)
				call, cancel := context.WithTimeout(context.Background(), time.Minute)
				result, err := e.Apply(call, command(t, name))
				cancel()
				mu.Lock()
				switch {
				case err == nil && result.Err == nil:
					done = append(done, name)
				case errors.Is(err, ErrNotLeader), errors.Is(err, cairn.ErrUnavailable):
					undone = append(undone, name)
				case errors.Is(err, cairn.ErrUnknownOutcome):
					unknown++
				default:
					t.Errorf("%s: %v, %v", name, result.Err, err)
				}
				mu.Unlock()
				if err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(time.Millisecond):
					}
				}
			}
		})
	}
	for range 3 {
		before := e.instance.Load()
		e.restarts <- "test"
		waitFor(t, "a new instance leads", func() bool { return e.instance.Load() != before && e.Leading() })
		mu.Lock()
		was := len(done)
		mu.Unlock()
		waitFor(t, "commands are done again", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(done) > was
		})
	}
	stop()
	group.Wait()
	if _, err := e.ReadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := e.machine.View()
	for _, name := range done {
		if v.Type(name) == nil {
			t.Errorf("%s was done, and is gone", name)
		}
	}
	for _, name := range undone {
		if v.Type(name) != nil {
			t.Errorf("%s was certainly not done, and is there", name)
		}
	}
	t.Logf("%d done, %d not done, %d unknown", len(done), len(undone), unknown)
}
