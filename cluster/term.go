package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/consensus"
	"github.com/cairn-storage/cairn/cluster/lease"
	"github.com/cairn-storage/cairn/fsm"
)

// term is what a leader does while it leads: leases, membership, voters, checkpoints, old tokens. It is made when the term
// begins, and nothing of it survives: what matters is in the log.
type term struct {
	node    *Node
	raft    *raft.Raft
	leases  *lease.Table
	reports *reports
	pilot   *autopilot.Autopilot
	wake    chan struct{} // membership may have to be reconciled
	// liveness orders everything that commits or acts on whether a node is up: a lease is granted, or a node condemned,
	// but not both. It is held while the log decides, so nobody may wait for it without an end: whoever holds it has put
	// something in.
	liveness chan struct{}
}

// lead follows this node's leadership. A term that was lost is ended, all of it, before the next one begins.
func (n *Node) lead() {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case leads := <-n.engine.Terms():
			stop()
			stop = func() {}
			if leads {
				stop = n.beginTerm()
			}
		case err := <-n.engine.Failed():
			n.life.fail(err)
		case <-n.life.ctx.Done():
			return
		}
	}
}

// beginTerm starts a term's goroutines and returns what ends and awaits them.
func (n *Node) beginTerm() (stop func()) {
	ctx, cancel := context.WithCancel(n.life.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.runTerm(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (n *Node) runTerm(ctx context.Context) {
	if !n.retry(ctx, "leader: begin its term", n.engine.Begin) || !n.retry(ctx, "leader: initialise the cluster", n.found) {
		return
	}
	n.config.Logger.Info("leader: this node leads the cluster", "node", n.identity.Name)
	t := &term{
		node: n, raft: n.engine.Raft(), leases: lease.NewTable(n.config.Timing.Lease, n.config.Clock, n.View().Index()),
		reports: newReports(n.config.Clock), wake: make(chan struct{}, 1), liveness: make(chan struct{}, 1),
	}
	t.pilot = t.newPilot()
	n.term.Store(t)
	var running sync.WaitGroup
	running.Go(func() { every(ctx, n.config.Timing.Heartbeat, func() { t.judgeAll(ctx) }) })
	running.Go(func() { t.keepMembers(ctx) })
	running.Go(func() { t.keepCheckpoints(ctx) })
	running.Go(func() { every(ctx, time.Minute, func() { t.deleteTokens(ctx) }) })
	for _, duty := range n.config.Duties {
		running.Go(func() { duty(ctx) })
	}
	t.pilot.Start(ctx)
	<-ctx.Done()
	n.term.Store(nil)
	running.Wait()
	<-t.pilot.Stop()
	n.config.Logger.Info("leader: this node no longer leads", "node", n.identity.Name)
}

// retry calls until it succeeds or leadership is lost. Nothing that it calls does harm when it is done twice.
func (n *Node) retry(ctx context.Context, what string, call func(context.Context) error) bool {
	for {
		attempt, cancel := context.WithTimeout(ctx, n.config.Timing.Call)
		err := call(attempt)
		cancel()
		switch {
		case err == nil:
			return true
		case errors.Is(err, consensus.ErrNotLeader) || ctx.Err() != nil:
			return false
		}
		n.config.Logger.Warn(what, "error", err)
		select {
		case <-time.After(n.config.Timing.Raft.Heartbeat):
		case <-ctx.Done():
			return false
		}
	}
}

// every calls at intervals until the context ends.
func every(ctx context.Context, interval time.Duration, call func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			call()
		case <-ctx.Done():
			return
		}
	}
}

// found writes the first command of a new cluster, on the node that made it. A state of another cluster ends the node: its
// data directory was put together from two.
func (n *Node) found(ctx context.Context) error {
	cluster := n.View().Cluster()
	if cluster == nil && n.identity.Founder != nil {
		// failpoint: founding
		_, err := n.applyHere(ctx, &fsm.InitCluster{Cluster: n.identity.Cluster, Admin: *n.identity.Founder})
		// failpoint: founded
		return err
	}
	if cluster != nil && cluster.ID != n.identity.Cluster.ID {
		n.life.fail(fmt.Errorf("data directory %s: its state is of cluster %s, its identity of cluster %s: %w",
			n.config.DataDir, cluster.Name, n.identity.Cluster.Name, cairn.ErrCorrupt))
		return consensus.ErrNotLeader
	}
	return nil
}

// keepCheckpoints lets all nodes compare their states, from time to time and after many entries, if there were any.
func (t *term) keepCheckpoints(ctx context.Context) {
	timing := t.node.config.Timing
	var last uint64
	due := time.Now().Add(timing.Checkpoint)
	every(ctx, min(time.Second, timing.Checkpoint), func() {
		index := t.node.View().Index()
		if index == last || time.Now().Before(due) && index-last < timing.CheckpointEntries {
			return
		}
		previous, digest := t.node.machine.LastCheckpoint()
		data, err := fsm.Encode(t.node.meta(), &fsm.Checkpoint{PrevIndex: previous, PrevDigest: digest})
		if err != nil {
			t.node.config.Logger.Error("checkpoint", "error", err)
			return
		}
		result, err := t.node.engine.Apply(ctx, data)
		if err != nil {
			return // the next one compares as much
		}
		last, due = result.Index, time.Now().Add(timing.Checkpoint)
	})
}

// tokenGrace is how long a token that was used is kept after its expiry: the machine that used it may not have started yet,
// and is admitted because of it.
const tokenGrace = 24 * time.Hour

// deleteTokens removes tokens that nobody can use any more.
func (t *term) deleteTokens(ctx context.Context) {
	view, now := t.node.View(), t.node.config.Now()
	for token := range view.Tokens() {
		over := now.Sub(time.Unix(0, token.ExpiresAt))
		if len(token.UsedBy) > 0 && view.Node(token.Node) == nil {
			over -= tokenGrace
		}
		if over <= 0 {
			continue
		}
		if _, err := t.node.applyHere(ctx, &fsm.DeleteJoinToken{ID: token.ID}); err != nil {
			t.node.config.Logger.Warn("join token: delete after its expiry", "node", token.Name, "error", err)
		}
	}
}
