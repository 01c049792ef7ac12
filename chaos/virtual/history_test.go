package virtual

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/validate"
)

// history is what users did and were told. It is judged while it grows, and at the end.
type history struct {
	world *world

	mu        sync.Mutex
	registers map[string][]operation
	asked     map[string]map[int64]time.Time // when each value was first asked to be written
	lines     map[cairn.ShareID][]line
	cuts      map[cairn.SnapshotID]string // contents of snapshots that were acknowledged; of the judging goroutine alone
	wrong     []string
}

// operation is a write or a read of a register, which has one writer, and one write under way at a time.
type operation struct {
	write      bool
	value      int64 // of a read: what was found
	began, end time.Time
	known      bool // of a write: it was acknowledged
	where      string
}

// line is a write to a share that was acknowledged.
type line struct {
	text  string
	epoch uint64
	node  cairn.NodeID
	at    time.Time
}

// blame notes a violation, once if it goes on.
func (h *history) blame(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(h.wrong, text) {
		h.wrong = append(h.wrong, text)
	}
}

// accuse blames somebody from outside.
func (h *history) accuse(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blame(format, args...)
}

// ask notes that a write begins.
func (h *history) ask(register string, value int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked == nil {
		h.asked = make(map[string]map[int64]time.Time)
	}
	if h.asked[register] == nil {
		h.asked[register] = make(map[int64]time.Time)
	}
	h.asked[register][value] = time.Now()
}

// add takes an operation that has ended.
func (h *history) add(register string, o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.registers == nil {
		h.registers = make(map[string][]operation)
	}
	h.registers[register] = append(h.registers[register], o)
}

// wrote judges an acknowledged write to a share at the moment at which it is acknowledged: nobody else may let clients write then.
func (h *history) wrote(l line, share cairn.ShareID, others []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lines == nil {
		h.lines = make(map[cairn.ShareID][]line)
	}
	for _, other := range others {
		h.blame("two writers: share %s takes writes on node %s in epoch %d, and on %s", share, l.node, l.epoch, other)
	}
	h.lines[share] = append(h.lines[share], l)
}

// twoWriters notes that a share is writable on more than one node.
func (h *history) twoWriters(share cairn.ShareID, serving []*process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, p := range serving {
		names = append(names, p.name)
	}
	h.blame("two writers: share %s may be written to on %s", share, strings.Join(names, " and "))
}

// acknowledged lists the writes to a share that were acknowledged up to now.
func (h *history) acknowledged(share cairn.ShareID) []line {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines[share])
}

// oneWriter judges all acknowledged writes by what the copies themselves said: each epoch has one node, and none comes back.
func (h *history) oneWriter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	var acks []model.Ack
	for share, lines := range h.lines {
		for i, l := range lines {
			at := h.clock(l.at)
			acks = append(acks, model.Ack{
				Share: string(share), Path: l.text, Record: uint64(i + 1), Sum: l.text, Node: string(l.node), Epoch: l.epoch, Call: at, Return: at,
			})
		}
	}
	for _, violation := range validate.OneWriter(acks) {
		h.blame("two writers: %s", violation)
	}
}

// linearizable judges the registers. A read must find a value whose write began before the read ended, and no value that an
// acknowledged write, or what an earlier read has found, had replaced before the read began.
func (h *history) linearizable() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, operations := range h.registers {
		slices.SortFunc(operations, func(a, b operation) int { return a.end.Compare(b.end) })
		began := h.asked[name]
		newest := make([]operation, len(operations)) // of those that ended up to each, the one with the highest value
		for i, o := range operations {
			if i > 0 {
				newest[i] = newest[i-1]
			}
			if (!o.write || o.known) && o.value > newest[i].value {
				newest[i] = o
			}
		}
		for _, read := range operations {
			if read.write {
				continue
			}
			if read.value != 0 && (began[read.value].IsZero() || began[read.value].After(read.end)) {
				h.blame("not linearizable: %s: a read on %s found %d, which nobody had written", name, read.where, read.value)
			}
			earlier, _ := slices.BinarySearchFunc(operations, read.began, func(o operation, t time.Time) int { return o.end.Compare(t) })
			if earlier == 0 {
				continue
			}
			if before := newest[earlier-1]; before.value > read.value {
				h.blame("not linearizable: %s: a read on %s from %s to %s found %d, after %d was acknowledged or read on %s at %s", name, read.where,
					h.clock(read.began), h.clock(read.end), read.value, before.value, before.where, h.clock(before.end))
			}
		}
	}
}

func (h *history) clock(t time.Time) time.Duration { return t.Sub(h.world.began) }

// violations empties the list of what went wrong.
func (h *history) violations() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	wrong := h.wrong
	h.wrong = nil
	return wrong
}
