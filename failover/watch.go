package failover

import (
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// watch is what a leader sees happen in its term. It counts time itself, on the monotonic clock: rows carry wall clock times
// of other leaders. That clock may stop while the machine sleeps, but a leader that slept has lost its term.
//
// It looks at the state after every entry that changes a node or a task, on the goroutine of the log, so a node that was up
// for a moment is never taken for one that was down all the time.
type watch struct {
	viewer Viewer
	timing Timing
	wake   chan struct{}

	mu         sync.Mutex
	down       map[cairn.NodeID]time.Time // since when it is known as down
	draining   bool                       // some node
	promotions map[cairn.ShareID]promotion
	rests      map[cairn.ShareID]rest
}

// promotion is a planned one that runs.
type promotion struct {
	task cairn.Task
	seen time.Time
}

// rest is what a share gets after a promotion that was called off.
type rest struct {
	replica cairn.ReplicaID // that was to be promoted
	since   time.Time
}

func newWatch(viewer Viewer, timing Timing) *watch {
	return &watch{
		viewer: viewer, timing: timing, wake: make(chan struct{}, 1), down: make(map[cairn.NodeID]time.Time),
		promotions: make(map[cairn.ShareID]promotion), rests: make(map[cairn.ShareID]rest),
	}
}

// changed is the subscriber. nil means that everything may have changed.
func (w *watch) changed(changes []fsm.Change) {
	var tasks []cairn.ShareID
	nodes := changes == nil
	for _, change := range changes {
		switch change.Table {
		case fsm.TableNodes:
			nodes = true
		case fsm.TableTasks:
			tasks = append(tasks, cairn.ShareID(change.Key))
		}
	}
	if !nodes && len(tasks) == 0 {
		return
	}
	w.mu.Lock()
	view := w.viewer.View()
	if changes == nil {
		tasks, w.down = w.allTasks(view), nil // nobody knows what was between
	}
	if nodes {
		w.seeNodes(view)
	}
	for _, share := range tasks {
		w.seeTask(share, view.Task(share))
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // a wake is waiting: it will see this change, too
	}
}

func (w *watch) allTasks(view *fsm.View) (shares []cairn.ShareID) {
	for share := range w.promotions {
		shares = append(shares, share)
	}
	for task := range view.Tasks("") {
		shares = append(shares, task.Share)
	}
	return shares
}

func (w *watch) seeNodes(view *fsm.View) {
	before := w.down
	w.down, w.draining = make(map[cairn.NodeID]time.Time), false
	for node := range view.Nodes() {
		w.draining = w.draining || node.Draining
		if node.State != cairn.NodeDown {
			continue
		}
		since, known := before[node.ID]
		if !known {
			since = time.Now()
		}
		w.down[node.ID] = since
	}
}

func (w *watch) seeTask(share cairn.ShareID, task *cairn.Task) {
	old, known := w.promotions[share]
	switch {
	case task.Running() && task.Kind == cairn.TaskPromote:
		if !known || old.task.ID != task.ID {
			w.promotions[share] = promotion{*task, time.Now()}
		}
	case known:
		delete(w.promotions, share)
		if task == nil {
			delete(w.rests, share)
		} else if task.ID == old.task.ID && task.State == cairn.TaskCancelled {
			w.rests[share] = rest{task.Replica, time.Now()}
		}
	}
}

// busy reports whether anything may wait for a decision.
func (w *watch) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.down) > 0 || w.draining || len(w.promotions) > 0
}

// lastWrite is the latest moment at which a node can have written. The lease of one that is down had ended before it was
// committed as down, and this leader has seen that commit or one of a later moment.
func (w *watch) lastWrite(node cairn.NodeID) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since, down := w.down[node]; down {
		return since
	}
	return time.Now()
}

// running returns how many planned promotions run, and those that have run for too long.
func (w *watch) running() (n int, overdue []promotion) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.promotions {
		if time.Since(p.seen) >= w.timing.Promotion {
			overdue = append(overdue, p)
		}
	}
	return len(w.promotions), overdue
}

// restOf returns the replica that a promotion of the share was to make active when it was called off, and for how much
// longer the share is left alone; not positive means that it may be tried again.
func (w *watch) restOf(share cairn.ShareID) (cairn.ReplicaID, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, known := w.rests[share]
	if !known {
		return "", 0
	}
	return r.replica, w.timing.Rest - time.Since(r.since)
}
