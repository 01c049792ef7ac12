package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

const (
	// gatherPause is between two commands of reports from one node: at most fifty a second, however many replicas change.
	// Each is a log entry that other commands wait behind. The first report after a pause does not wait.
	gatherPause = 20 * time.Millisecond
	// gatherMost bounds a command; its entry stays well below what Raft sends in one message.
	gatherMost = 256
)

// Gatherer is an Applier that sends reports which come at about the same time as one command. Every caller gets the answer
// to its own report. All other commands pass.
type Gatherer struct {
	// Timeout bounds a proposal, which outlives the callers that wait for it.
	Timeout time.Duration

	applier Applier

	mu      sync.Mutex
	busy    bool
	waiting []*gathered
}

type gathered struct {
	meta   fsm.Meta
	report *fsm.ReportReplica
	done   chan struct{} // closed when result and err are there
	result fsm.Result
	err    error
}

// NewGatherer gathers reports in front of an applier.
func NewGatherer(applier Applier) *Gatherer {
	return &Gatherer{Timeout: 10 * time.Second, applier: applier}
}

// Apply implements Applier.
func (g *Gatherer) Apply(ctx context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error) {
	report, ok := c.(*fsm.ReportReplica)
	if !ok {
		return g.applier.Apply(ctx, meta, c)
	}
	mine := &gathered{meta: meta, report: report, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, mine)
	if !g.busy {
		g.busy = true
		go g.run()
	}
	g.mu.Unlock()
	select {
	case <-mine.done:
		return mine.result, mine.err
	case <-ctx.Done():
		return fsm.Result{}, fmt.Errorf("report: %w: %w", ctx.Err(), cairn.ErrUnknownOutcome)
	}
}

// run sends until nothing waits any more. It is the only one that does.
func (g *Gatherer) run() {
	for {
		g.mu.Lock()
		batch := g.waiting
		if len(batch) > gatherMost {
			batch = batch[:gatherMost]
		}
		g.waiting = g.waiting[len(batch):]
		g.busy = len(batch) > 0
		g.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		g.send(batch)
		time.Sleep(gatherPause)
	}
}

// send proposes one command for all of the batch, and answers.
func (g *Gatherer) send(batch []*gathered) {
	ctx, cancel := context.WithTimeout(context.Background(), g.Timeout)
	defer cancel()
	c := &fsm.ReportReplicas{Node: batch[0].report.Node, Reports: make([]fsm.ReportReplica, len(batch))}
	for i, one := range batch {
		c.Reports[i] = *one.report
	}
	result, err := g.applier.Apply(ctx, batch[len(batch)-1].meta, c)
	if err == nil && result.Err == nil && len(result.Each) != len(batch) {
		err = fmt.Errorf("reports: %d answers for %d: %w", len(result.Each), len(batch), cairn.ErrUnknownOutcome)
	}
	for i, one := range batch {
		one.result, one.err = fsm.Result{ID: string(one.report.Replica), Index: result.Index, Err: result.Err}, err
		if err == nil && result.Err == nil {
			one.result.Err = result.Each[i]
		}
		close(one.done)
	}
}
