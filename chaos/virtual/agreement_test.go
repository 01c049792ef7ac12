package virtual

import (
	"bytes"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/fsm"
)

// agreement is what nodes must agree on, whoever comes first: which state the entries up to an index lead to, by the entries themselves or
// by a snapshot; and which entry it is that has an index and a term, committed or not. Whoever writes another one under the same term takes
// himself for its leader, and is not.
type agreement struct {
	mu      sync.Mutex
	states  map[uint64]state
	entries map[[2]uint64]entry
}

type state struct {
	digest uint64
	node   string
}

type entry struct {
	kind raft.LogType
	data []byte
	node string
}

func newAgreement() *agreement {
	return &agreement{states: make(map[uint64]state), entries: make(map[[2]uint64]entry)}
}

// watch compares every state that the process comes to with those of all others.
func (p *process) watch() {
	machine := p.member.Machine()
	look := func([]fsm.Change) {
		v, a := machine.View(), p.world.agreement
		a.mu.Lock()
		first, known := a.states[v.Index()]
		if !known {
			first = state{v.Digest(), p.name}
			a.states[v.Index()] = first
		}
		a.mu.Unlock()
		if first.digest != v.Digest() {
			p.world.history.accuse("states differ: after entry %d that of %s is %016x, and that of %s was %016x", v.Index(), p.name, v.Digest(), first.node, first.digest)
		}
	}
	look(nil)
	machine.Subscribe(look)
}

// stored compares entries that the process has written with those of all others.
func (p *process) stored(logs []*raft.Log) {
	a := p.world.agreement
	for _, log := range logs {
		at, e := [2]uint64{log.Index, log.Term}, entry{log.Type, log.Data, p.name}
		a.mu.Lock()
		first, known := a.entries[at]
		if !known {
			a.entries[at] = e
		}
		a.mu.Unlock()
		if known && (first.kind != e.kind || !bytes.Equal(first.data, e.data)) {
			p.world.history.accuse("two leaders in term %d: entry %d of %s is not that of %s (%s, %d bytes; %s, %d bytes)",
				log.Term, log.Index, e.node, first.node, e.kind, len(e.data), first.kind, len(first.data))
		}
	}
}
