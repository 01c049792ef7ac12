package failover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn/fsm"
)

// TestWatchAfterARestore: what was between is not known, so a node that is down may have been up, and a promotion that runs may
// be a new one.
func TestWatchAfterARestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2)
		f.share("a", "manual", 1, 2)
		f.must(&fsm.PromoteShare{Share: "a", Replica: "a-2", Task: "task-1"})
		f.must(&fsm.DrainNode{Node: "n2", Draining: true})
		w := newWatch(f, DefaultTiming())
		w.changed(nil)
		f.must(&fsm.StopTask{Share: "a", Task: f.View().Task("a").ID})
		f.must(&fsm.PromoteShare{Share: "a", Replica: "a-2", Task: "task-2"})
		f.down(1)
		w.changed([]fsm.Change{{Table: fsm.TableNodes, Key: "n1"}})
		after(promotionTimeout)
		if since := time.Since(w.lastWrite("n1")); since != promotionTimeout {
			t.Errorf("n1 has not written for %s, want %s", since, promotionTimeout)
		}
		w.changed(nil)
		if since := time.Since(w.lastWrite("n1")); since != 0 {
			t.Errorf("n1 is believed to have been silent for %s", since)
		}
		if n, overdue := w.running(); n != 1 || len(overdue) != 0 {
			t.Errorf("%d promotions run, %d of them overdue", n, len(overdue))
		}
		if !w.busy() {
			t.Error("nothing is waited for")
		}
	})
}
