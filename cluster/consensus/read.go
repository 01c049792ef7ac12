package consensus

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/guard"
)

// readTimeout bounds one round of proof; the callers' own deadlines may be shorter.
const readTimeout = 2 * time.Second

var errUnproven = fmt.Errorf("leader: could not prove in time that it still leads: %w", cairn.ErrUnavailable)

// ReadIndex returns a log index that contains everything that was acknowledged anywhere before the call, and that this
// node's state has reached. Concurrent callers share a round of proof, but only one that began after they asked.
func (e *Engine) ReadIndex(ctx context.Context) (uint64, error) { return e.reads.Do(ctx) }

// readRound is thesis 6.4 with the proof from the ledger: Raft's own VerifyLeader also counts answers to what was sent
// before it was asked.
func (e *Engine) readRound(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
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

// proveLeader returns once a majority has acknowledged, in this term, what was sent after the call began. One request makes Raft
// send heartbeats; it is the ledger that says when the right ones were answered, which is before Raft has counted them.
func (e *Engine) proveLeader(ctx context.Context, i *instance, term uint64) error {
	asked := i.ledger.Mark()
	lost := make(chan error, 1)
	go func() { // a main loop that hangs on its disk never answers
		if err := i.await(i.VerifyLeader()); err != nil {
			lost <- err
		}
	}()
	for {
		heard := i.ledger.Heard()
		if i.CurrentTerm() != term {
			return ErrNotLeader
		}
		if proof, ok := e.proof(i, term); ok && proof.Since(asked) {
			return nil
		}
		select {
		case <-heard:
		case <-lost:
			return ErrNotLeader
		case <-ctx.Done():
			return errUnproven
		}
	}
}

// await waits for the answer, or until the instance has stopped: what is in Raft's queue then is never answered. Raft's futures have a channel for
// that, and VerifyLeader (1.7.3) does not set it.
func (i *instance) await(f raft.Future) error {
	if stopped := reflect.Indirect(reflect.ValueOf(f)).FieldByName("ShutdownCh"); stopped.IsValid() {
		stopped.Set(reflect.ValueOf(i.done))
	}
	return f.Error()
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
