package replica

import (
	"errors"
	"testing"

	"github.com/cairn-storage/cairn"
)

func TestGuard(t *testing.T) {
	s := newState(t, []cairn.Capability{cairn.CapClone, cairn.CapResize, cairn.CapRevert, cairn.CapSnapshot})
	s.must(t, createShare("a"))
	lease := false
	guard := &Guard{Node: node1, Viewer: s, LeaseValid: func() bool { return lease }}
	other := &Guard{Node: "node-2", Viewer: s, LeaseValid: func() bool { return true }}
	epoch := s.View().Replica("r-a").Epoch
	for _, tc := range []struct {
		name  string
		guard *Guard
		id    cairn.ReplicaID
		epoch uint64
		want  error
	}{
		{"one replica needs no lease", guard, "r-a", epoch, nil},
		{"older epoch", guard, "r-a", epoch - 1, cairn.ErrStale},
		{"newer epoch", guard, "r-a", epoch + 1, cairn.ErrStale},
		{"no row", guard, "r-x", epoch, cairn.ErrStale},
		{"another node", other, "r-a", epoch, cairn.ErrStale},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.guard.Check(tc.id, tc.epoch); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

func TestSecondWriter(t *testing.T) {
	for _, tc := range []struct {
		name     string
		replicas int
		policy   cairn.FailoverPolicy
		want     bool
	}{
		{"one replica", 1, cairn.FailoverAuto, false},
		{"two, automatic", 2, cairn.FailoverAuto, true},
		{"two, manual", 2, cairn.FailoverManual, false},
		{"two, no policy", 2, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := secondWriter(tc.replicas, &cairn.ShareType{Failover: tc.policy}); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
	if !secondWriter(2, nil) {
		t.Error("two replicas and an unknown type: want the careful answer")
	}
}
