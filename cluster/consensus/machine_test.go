package consensus

import (
	"bytes"
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/fsm"
)

// What is known of a barrier counts for the state that was there when it was proposed. A node that led, and got an older snapshot from its
// successor before it heard of its barrier, must not leave out what comes between them: its state would differ from everybody's.
func TestBarrierOfAnotherState(t *testing.T) {
	m := &machine{Machine: fsm.New()}
	types := func(from, to uint64) {
		for index := from; index <= to; index++ {
			m.ApplyBatch([]*raft.Log{{Index: index, Type: raft.LogCommand, Data: command(t, string(rune('a'+index)))}})
		}
	}
	there := func() (n int) {
		for range m.View().Types() {
			n++
		}
		return n
	}
	types(1, 2)
	var older bytes.Buffer
	if _, err := m.Machine.Snapshot().WriteTo(&older); err != nil {
		t.Fatal(err)
	}
	types(3, 4)
	state := m.state()
	m.passed(5, state)
	if applied, command := m.position(); applied != 5 || command != 4 {
		t.Errorf("after a barrier at 5 the position is %d, of commands %d", applied, command)
	}
	if err := m.Restore(io.NopCloser(&older)); err != nil {
		t.Fatal(err)
	}
	if n := there(); n != 2 {
		t.Fatalf("the older snapshot has %d types, want 2", n)
	}
	m.passed(5, state) // heard of late
	types(3, 4)
	if n := there(); n != 4 {
		t.Errorf("%d types after all entries, want 4: some were left out", n)
	}
}
