package consensus

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/guard"
)

var errUnproven = fmt.Errorf("leader: could not prove in time that it still leads: %w", cairn.ErrUnavailable)

// ReadIndex returns a log index that contains everything that was acknowledged anywhere before the call, and that this
// node's state has reached. Concurrent callers share a round of proof, but only one that began after they asked.
func (e *Engine) ReadIndex(ctx context.Context) (uint64, error) { return e.reads.Do(ctx) }

// readRound is thesis 6.4 with the proof from the ledger.
func (e *Engine) readRound(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, e.config.Timing.Read)
	defer cancel()
	if !e.Leading() {
		return 0, ErrNotLeader
	}
	i, term := e.instance.Load(), e.ready.Load()
	commit := i.CommitIndex()
	if err := e.proveLeader(ctx, i, term); err != nil {
		return 0, err
	}
	if err := e.WaitApplied(ctx, commit); err != nil {
		return 0, err
	}
	// A command's index: entries that are none never reach the machines of other nodes.
	_, command := e.machine.position()
	return command, nil
}

// proveLeader returns once a majority has acknowledged, in this term, what was sent after the call began. Raft's own VerifyLeader goes by
// its main loop, which may hang on a disk, and counts answers to what was sent before.
func (e *Engine) proveLeader(ctx context.Context, i *instance, term uint64) error {
	asked := i.ledger.Mark()
	for _, server := range e.Servers() {
		if server.Suffrage == raft.Voter && server.ID != e.config.ID {
			i.transport.Heartbeat(server, e.config.ID, term)
		}
	}
	for {
		heard, changed := i.ledger.Heard(), e.LeaderChanged()
		if !i.leads(term) {
			return ErrNotLeader
		}
		if proof, ok := e.proof(i, term); ok && proof.Since(asked) {
			return nil
		}
		select {
		case <-heard:
		case <-changed:
		case <-ctx.Done():
			return errUnproven
		}
	}
}

func (e *Engine) proof(i *instance, term uint64) (guard.Mark, bool) {
	return i.ledger.Proof(term, e.Voters(), e.config.ID)
}

// ProofAge is how long ago this node was certainly the only leader; ok is false if it does not lead. What it grants is
// good from that moment and not from now.
func (e *Engine) ProofAge() (age time.Duration, ok bool) {
	if !e.Leading() {
		return 0, false
	}
	now := e.config.Clock()
	proof, ok := e.proof(e.instance.Load(), e.ready.Load())
	return max(0, now-proof.At), ok
}

// WaitApplied waits until this node's state contains the log entry of index.
func (e *Engine) WaitApplied(ctx context.Context, index uint64) error {
	if err := e.machine.wait(ctx, index); err != nil {
		applied, _ := e.machine.position()
		return fmt.Errorf("state: is at log entry %d, and entry %d did not arrive in time: %w: %w", applied, index, err, cairn.ErrUnavailable)
	}
	return nil
}
