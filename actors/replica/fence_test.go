package replica

import (
	"errors"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
)

// What the guard refuses is sealed and taken away; what it allows again is woken, and served again by the actor.
func TestFencer(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.wait()
	m := f.nodes["node-1"]
	var woken []actors.Key
	fencer := &Fencer{
		Actor: m.actor, Protocols: []cairn.Protocol{cairn.ProtocolWebDAV}, Wake: func(key actors.Key) { woken = append(woken, key) },
		Guard: &Guard{Node: m.id, Viewer: f.state, LeaseValid: func() bool { return !m.cut }},
	}
	fencer.look(t.Context())
	if f.served() != m {
		t.Fatal("fenced although it holds a lease")
	}
	m.cut = true
	for range 2 {
		fencer.look(t.Context())
	}
	if len(m.exporter.specs) != 0 || !m.disk.objects["r1"].Sealed || len(woken) != 0 {
		t.Errorf("without a lease: %d exports, sealed %t, woken %v", len(m.exporter.specs), m.disk.objects["r1"].Sealed, woken)
	}
	m.cut = false
	fencer.look(t.Context())
	if len(woken) != 1 || woken[0].ID != "r1" {
		t.Errorf("woken %v", woken)
	}
	f.settle()
	if f.served() != m {
		t.Error("not served again")
	}
}

// A pool that does not answer any more does not keep the share from being taken away.
func TestFencerWithoutThePool(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.wait()
	m := f.nodes["node-1"]
	m.disk.broken = true
	fencer := &Fencer{Actor: m.actor, Protocols: []cairn.Protocol{cairn.ProtocolWebDAV}, Wake: func(actors.Key) {}, Guard: refusing{}}
	fencer.look(t.Context())
	if len(m.exporter.specs) != 0 {
		t.Error("still served")
	}
}

type refusing struct{}

func (refusing) Check(cairn.ReplicaID, uint64) error { return errors.New("no") }
