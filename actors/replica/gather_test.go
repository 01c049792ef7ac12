package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// slowLog takes a while for every command, refuses what is about the replica "stale", and remembers the commands' sizes.
type slowLog struct {
	mu    sync.Mutex
	sizes []int
	other int
	fail  error
}

func (l *slowLog) Apply(_ context.Context, _ fsm.Meta, c fsm.Command) (fsm.Result, error) {
	time.Sleep(5 * time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	reports, ok := c.(*fsm.ReportReplicas)
	if !ok {
		l.other++
		return fsm.Result{ID: "other"}, nil
	}
	l.sizes = append(l.sizes, len(reports.Reports))
	result := fsm.Result{Index: uint64(len(l.sizes))}
	for _, r := range reports.Reports {
		var refused error
		if r.Replica == "stale" {
			refused = cairn.ErrStale
		}
		result.Each = append(result.Each, refused)
	}
	return result, l.fail
}

func reportOf(id string) *fsm.ReportReplica {
	return &fsm.ReportReplica{Node: node1, Replica: cairn.ReplicaID(id)}
}

// The first report goes at once; those that come while it is on its way, or in the pause after it, go together; everybody
// gets the answer to its own.
func TestGatherer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{}
		g := NewGatherer(log)
		var callers sync.WaitGroup
		call := func(id string, refused error) {
			callers.Go(func() {
				result, err := g.Apply(t.Context(), fsm.Meta{}, reportOf(id))
				if err != nil || !errors.Is(result.Err, refused) || result.ID != id {
					t.Errorf("report of %s: %+v, %v; want refused: %v", id, result, err, refused)
				}
			})
		}
		start := time.Now()
		call("first", nil)
		callers.Wait()
		if waited := time.Since(start); waited != 5*time.Millisecond {
			t.Errorf("the first report took %s", waited)
		}
		for i := range gatherMost {
			call(fmt.Sprint("r", i), nil)
		}
		synctest.Wait()
		call("stale", cairn.ErrStale)
		callers.Wait()
		time.Sleep(time.Second) // the gatherer rests
		call("last", nil)
		callers.Wait()
		if got := fmt.Sprint(log.sizes); got != fmt.Sprint([]int{1, gatherMost, 1, 1}) {
			t.Errorf("commands with %s reports", got)
		}
		if result, err := g.Apply(t.Context(), fsm.Meta{}, &fsm.DeleteShare{}); err != nil || result.ID != "other" || log.other != 1 {
			t.Errorf("another command: %+v, %v", result, err)
		}
		time.Sleep(time.Second) // no goroutine may be left
	})
}

func TestGathererPassesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGatherer(&slowLog{fail: cairn.ErrUnavailable})
		if _, err := g.Apply(t.Context(), fsm.Meta{}, reportOf("r1")); !errors.Is(err, cairn.ErrUnavailable) {
			t.Errorf("report without a leader: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := g.Apply(ctx, fsm.Meta{}, reportOf("r1")); !errors.Is(err, cairn.ErrUnknownOutcome) {
			t.Errorf("report that nobody waits for: %v", err)
		}
		time.Sleep(time.Second)
	})
}
