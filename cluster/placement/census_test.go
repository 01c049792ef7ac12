package placement

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// TestCandidates reads pools, promises and leaders from a real state machine, and counts the leaders not for every call.
func TestCandidates(t *testing.T) {
	m, index := fsm.New(), uint64(0)
	apply := func(c fsm.Command) {
		t.Helper()
		index++
		data, err := fsm.Encode(fsm.Meta{At: int64(index)}, c)
		if err != nil {
			t.Fatal(err)
		}
		if result := m.Apply(index, data); result.Err != nil {
			t.Fatal(result.Err)
		}
	}
	apply(&fsm.InitCluster{
		Cluster: cairn.Cluster{ID: "c1", Name: "test", CAFingerprint: strings.Repeat("0", 64)},
		Admin:   cairn.User{Name: "admin", Role: cairn.UserAdmin, Serial: "01"},
	})
	apply(&fsm.RegisterNode{Node: cairn.Node{ID: "id-n1", Name: "n1", Address: "127.0.0.1:1", CommandVersion: 1}})
	apply(&fsm.CreateType{Type: cairn.ShareType{Name: "plain", Format: cairn.FormatFiles}})
	apply(&fsm.RegisterPools{Node: "id-n1", Pools: []cairn.Pool{*pool("n1", "data").Pool}})
	var census Census
	leaders := func() int {
		return Candidates(m.View(), func(cairn.PoolID) int64 { return 5 }, census.Leaders(m.View()))[0].Leaders
	}
	create := func(n int) {
		apply(&fsm.CreateShare{
			Share: cairn.Share{
				ID: cairn.ShareID(fmt.Sprint("s", n)), Project: "default", Name: fmt.Sprint("share", n), Format: cairn.FormatFiles,
				Protocol: cairn.ProtocolWebDAV, Type: "plain", Size: gib,
			},
			Replicas: []fsm.Placement{{ID: cairn.ReplicaID(fmt.Sprint("r", n)), Pool: "id-n1/data"}},
		})
	}
	create(0)
	if got := leaders(); got != 1 {
		t.Errorf("%d leaders, want 1", got)
	}
	create(1)
	if got := leaders(); got != 1 {
		t.Errorf("%d leaders one entry later, want the old count", got)
	}
	for n := 2; n < 2+censusMin; n++ {
		create(n)
	}
	if got := leaders(); got != 2+censusMin {
		t.Errorf("%d leaders after %d entries, want a new count", got, censusMin)
	}
	c := Candidates(m.View(), func(cairn.PoolID) int64 { return 5 }, nil)[0]
	if c.Provisioned != (2+censusMin)*gib || c.Free != 5 || c.Node.Name != "n1" || c.Pool.Name != "data" {
		t.Errorf("candidate %+v", c)
	}
}
