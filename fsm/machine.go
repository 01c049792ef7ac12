package fsm

import (
	"fmt"
	"slices"
	"sync"
)

// Result is the answer to a command. It is the same on every node that applies the same log.
type Result struct {
	ID       string // of the object that the command made or was about
	Index    uint64
	Replayed bool  // the idempotency token was known: the first answer, nothing was done again
	Err      error // the command was refused and changed nothing; wraps a sentinel of package cairn
	// Each answers for the parts of a command that has some, in their order: nil if the part was taken. What is refused has
	// changed nothing.
	Each []error
	// Bundle answers for the commands of a bundle, in their order. Then everything else but Index is empty. It is nil if the
	// entry is one command.
	Bundle []Result
}

// Machine holds the newest state. Apply and Restore are called by one goroutine, that of the log; everything else is safe
// from any.
type Machine struct {
	mu          sync.Mutex
	live        *View
	frozen      *View // of live; nil after a change
	codec       *rowCodec
	checkpoints checkpoints
	subscribers []*subscriber
}

type subscriber struct{ notify func([]Change) }

// New returns a machine without any rows.
func New() *Machine { return &Machine{live: newView(), codec: newRowCodec()} }

// Apply decodes one log entry and applies it: a command, or a bundle of them. It panics on an entry that it cannot decode,
// and on an index that does not rise: going on would let this node's state differ from the others'.
func (m *Machine) Apply(index uint64, entry []byte) Result {
	commands, err := decodeEntry(entry)
	if err != nil {
		panic(fmt.Errorf("fsm: log entry %d: %w", index, err))
	}
	results, changes, subscribers := m.apply(index, commands)
	if len(changes) > 0 {
		for _, s := range subscribers {
			s.notify(changes)
		}
	}
	if len(results) == 1 {
		return results[0]
	}
	return Result{Index: index, Bundle: results}
}

// apply holds the lock from the first command to the last: an index stands for one state.
func (m *Machine) apply(index uint64, commands []stamped) ([]Result, []Change, []*subscriber) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.live.index {
		panic(fmt.Errorf("fsm: log entry %d comes after entry %d", index, m.live.index))
	}
	m.live.index = index
	m.frozen = nil
	results := make([]Result, len(commands))
	var changes []Change
	checked := false
	for i, c := range commands {
		tx := newTx(m.live, c.Meta, m.codec)
		results[i] = tx.run(c.Command)
		changes = append(changes, tx.changes...)
		if check, ok := c.Command.(*Checkpoint); ok && results[i].Err == nil {
			checked = true
			if m.checkpoints.differ(check) {
				changes = append(changes, Change{TableDivergence, numberKey(check.PrevIndex)})
			}
		}
	}
	if checked {
		m.checkpoints.pass(index, m.live.digest)
	}
	return results, changes, m.subscribers
}

// DryRun answers what Apply would answer now, by the same code, and keeps nothing.
func (m *Machine) DryRun(meta Meta, c Command) Result {
	data, err := Encode(meta, c)
	if err == nil {
		meta, c, err = Decode(data) // rows never share memory with the caller's command
	}
	if err != nil {
		return Result{Err: err}
	}
	m.mu.Lock()
	scratch := m.live.clone()
	m.mu.Unlock()
	scratch.index++
	return newTx(scratch, meta, newRowCodec()).run(c)
}

// View returns the newest state, frozen. It is cheap and made once per change.
func (m *Machine) View() *View {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.frozen == nil {
		m.frozen = m.live.clone()
	}
	return m.frozen
}

// Subscribe has notify called after every entry that changed rows, in the order of the log, and once with nil after a
// restore: everything may have changed. It runs on the goroutine of the log, so it must not block and must not call Apply;
// it may call View. A call that has begun may still be running when cancel returns.
func (m *Machine) Subscribe(notify func(changes []Change)) (cancel func()) {
	s := &subscriber{notify}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subscribers = append(slices.Clip(m.subscribers), s)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.subscribers = slices.DeleteFunc(slices.Clone(m.subscribers), func(other *subscriber) bool { return other == s })
	}
}

// Divergence returns the log index of the first checkpoint at which this node's state was found to differ from the
// leader's. It is cleared by Restore, which replaces the state.
func (m *Machine) Divergence() (index uint64, diverged bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkpoints.divergedAt, m.checkpoints.divergedAt != 0
}
