package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// TestOlderSnapshot: Raft's library installs whatever it is sent. Had a state gone back, and Raft then started in place at a newer snapshot, what
// comes between the two would be left out, and the state differ from everybody's.
func TestOlderSnapshot(t *testing.T) {
	m := &machine{Machine: fsm.New()}
	types := func(from, to uint64) {
		for index := from; index <= to; index++ {
			m.ApplyBatch([]*raft.Log{{Index: index, Type: raft.LogCommand, Data: command(t, string(rune('a'+index)))}})
		}
	}
	types(1, 2)
	var older bytes.Buffer
	if _, err := m.Machine.Snapshot().WriteTo(&older); err != nil {
		t.Fatal(err)
	}
	types(3, 4)
	before := m.View()
	if err := m.Restore(io.NopCloser(&older)); !errors.Is(err, cairn.ErrPrecondition) {
		t.Errorf("an older snapshot: %v", err)
	}
	if applied, command := m.position(); m.View() != before || applied != 4 || command != 4 {
		t.Errorf("the position is %d, of commands %d; it is another state: %v", applied, command, m.View() != before)
	}
}

// replay is a machine, and what Raft knows of it.
type replay struct {
	*machine
	applied   uint64 // by the instance of Raft
	handed    uint64 // the index that Raft would give a snapshot; 0 if it would take none yet
	snapshots []kept
	late      []uint64 // barriers that were proposed here and have not been heard of
}

// kept is a snapshot under the index that Raft gives it, which may be before that of the state in it.
type kept struct {
	index, of uint64
	state     []byte
}

// newest is what Raft begins with: the list of snapshots is in the order of their index.
func (r *replay) newest() (newest kept) {
	for _, s := range r.snapshots {
		if s.index >= newest.index {
			newest = s
		}
	}
	return newest
}

// TestAnyReplay plays what Raft may do to state machines: it applies in batches, starts in place and begins again at its last
// snapshot, takes snapshots then, starts anew from disk, gets what others have, which may be older, installs it or is stopped before that, and
// hears of barriers late.
// Whatever comes of it, a state is that of its index, and in the end all are that of the log.
func TestAnyReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const entries = 60
		kinds := []raft.LogType{raft.LogCommand, raft.LogCommand, raft.LogCommand, raft.LogNoop, raft.LogBarrier, raft.LogConfiguration}
		var log []*raft.Log
		digests, reference := map[uint64]uint64{0: fsm.New().View().Digest()}, fsm.New()
		for index := uint64(1); index <= entries; index++ {
			entry := &raft.Log{Index: index, Type: rapid.SampledFrom(kinds).Draw(t, "type")}
			if entry.Type == raft.LogCommand {
				if entry.Data = encoded(t, fmt.Sprint("t", index)); rapid.Bool().Draw(t, "bundle") {
					entry.Data = fsm.Bundle([][]byte{entry.Data, encoded(t, fmt.Sprint("u", index))})
				}
				reference.Apply(index, entry.Data)
				digests[index] = reference.View().Digest()
			}
			log = append(log, entry)
		}
		nodes := []*replay{{machine: &machine{Machine: fsm.New()}}, {machine: &machine{Machine: fsm.New()}}}
		check := func(n *replay) {
			v := n.View()
			if want, ok := digests[v.Index()]; !ok || v.Digest() != want {
				t.Fatalf("after entry %d the state is %016x, want %016x", v.Index(), v.Digest(), want)
			}
			if applied, command := n.position(); command != v.Index() || applied < command {
				t.Fatalf("the position is %d, of commands %d, and the state is that of entry %d", applied, command, v.Index())
			}
		}
		forward := func(n *replay, to uint64) {
			var batch []*raft.Log
			for ; n.applied < to; n.applied++ {
				if entry := log[n.applied]; entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
					batch = append(batch, entry)
				}
				if log[n.applied].Type != raft.LogNoop {
					n.handed = n.applied + 1
				}
			}
			if len(batch) > 0 {
				n.ApplyBatch(batch)
			}
			if to > 0 && log[to-1].Type == raft.LogBarrier {
				n.late = append(n.late, to)
			}
		}
		restore := func(n *replay, s kept) {
			err := n.Restore(io.NopCloser(bytes.NewReader(s.state)))
			if older := s.of < n.View().Index(); older != errors.Is(err, cairn.ErrPrecondition) || !older && err != nil {
				t.Fatalf("a snapshot of entry %d, after entry %d: %v", s.of, n.View().Index(), err)
			}
			if err == nil {
				n.applied, n.handed = s.index, s.index
			}
		}
		start := func(n *replay) {
			n.applied, n.handed = 0, 0
			if len(n.snapshots) == 0 {
				return
			}
			newest := n.newest()
			if applied, _ := n.position(); newest.index > applied { // as Engine.start does
				restore(n, newest)
			}
			n.applied, n.handed = newest.index, 0
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			n := nodes[rapid.IntRange(0, 1).Draw(t, "node")]
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1, 2:
				forward(n, min(entries, n.applied+uint64(rapid.IntRange(1, 12).Draw(t, "batch"))))
			case 3: // a snapshot
				if n.handed > 0 {
					var state bytes.Buffer
					if _, err := n.Machine.Snapshot().WriteTo(&state); err != nil {
						t.Fatal(err)
					}
					n.snapshots = append(n.snapshots, kept{n.handed, n.View().Index(), state.Bytes()})
				}
			case 4: // a start in place
				start(n)
			case 5: // a start from disk
				n.machine, n.late = &machine{Machine: fsm.New()}, nil
				start(n)
			case 6: // another one's snapshot
				if other := nodes[rapid.IntRange(0, 1).Draw(t, "from")]; other != n && len(other.snapshots) > 0 {
					s := rapid.SampledFrom(other.snapshots).Draw(t, "snapshot")
					n.snapshots = append(n.snapshots, s)
					if rapid.Bool().Draw(t, "in time") {
						restore(n, s)
					} else {
						start(n)
					}
				}
			case 7: // what was waiting for barriers gets to run
				for _, barrier := range n.late {
					n.advance(barrier, 0)
				}
				n.late = nil
			}
			check(n)
		}
		for _, n := range nodes {
			forward(n, entries)
			if check(n); n.View().Digest() != reference.View().Digest() {
				t.Fatalf("at the end the state is %016x, want %016x", n.View().Digest(), reference.View().Digest())
			}
		}
	})
}

func encoded(t *rapid.T, name string) []byte {
	data, err := fsm.Encode(fsm.Meta{At: 1, Actor: "user/test"}, &fsm.CreateType{Type: cairn.ShareType{Name: name, Format: cairn.FormatFiles}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}
