package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/lease"
)

// parseElectors reads "1L 2v 3V 4s 5n": leader, voter, failed voter (capital V), stable and new non-voter.
func parseElectors(text string) []elector {
	var servers []elector
	for _, word := range strings.Fields(text) {
		s := elector{id: raft.ServerID(word[:1])}
		switch word[1] {
		case 'L':
			s.votes, s.leads, s.healthy = true, true, true
		case 'v':
			s.votes, s.healthy = true, true
		case 'V':
			s.votes = true
		case 's':
			s.healthy, s.stable = true, true
		case 'n':
			s.healthy = true
		case 'x': // a non-voter that failed
		}
		servers = append(servers, s)
	}
	return servers
}

func TestVoters(t *testing.T) {
	for _, test := range []struct{ name, servers, promote, demote string }{
		{"alone", "1L", "", ""},
		{"the second votes, so that what is acknowledged is on two disks", "1L 2s", "2", ""},
		{"a new node waits", "1L 2n", "", ""},
		{"three", "1L 2v 3s", "3", ""},
		{"two at once", "1L 2s 3s", "2 3", ""},
		{"a fourth stands by", "1L 2v 3v 4s", "", ""},
		{"five", "1L 2v 3v 4s 5s", "4 5", ""},
		{"a sixth and a seventh stand by", "1L 2v 3v 4v 5v 6s 7s", "", ""},
		{"a failed voter is replaced", "1L 2V 3v 4v 5v 6s 7s", "6", "2"},
		{"two failed voters are replaced", "1L 2V 3V 4v 5v 6s 7s", "6 7", "2 3"},
		{"of three, by the standby", "1L 2v 3V 4s", "4", "3"},
		{"not by a new node", "1L 2v 3V 4n", "", ""},
		{"not by one that failed too", "1L 2v 3V 4x", "", ""},
		{"a failed voter without a replacement stays", "1L 2v 3V", "", ""},
		{"also if a majority has failed", "1L 2V 3V", "", ""},
		{"four voters are one too many", "1L 2v 3v 4v", "", "2"},
		{"the failed one of four", "1L 2v 3v 4V", "", "4"},
		{"six voters, as an operator may have made them", "1L 2v 3v 4v 5v 6v", "", "2"},
		{"a leader that does not hear itself stays", "1L 2v 3v", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			promote, demote := voters(parseElectors(test.servers))
			got, want := fmt.Sprint(promote, demote), fmt.Sprint(strings.Fields(test.promote), strings.Fields(test.demote))
			if got != want {
				t.Errorf("%s: got %s, want %s", test.servers, got, want)
			}
		})
	}
}

// TestVotersSettle plays random clusters against what must always hold, and that repeating the choice comes to rest.
func TestVotersSettle(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		servers := parseElectors("0L")
		for i := range random.IntN(9) {
			servers = append(servers, parseElectors(fmt.Sprintf("%d%c", i+1, "vVsnx"[random.IntN(5)]))...)
		}
		for round := 0; ; round++ {
			promote, demote := voters(slices.Clone(servers))
			if len(promote)+len(demote) == 0 {
				break
			}
			if round > 3 {
				t.Fatalf("does not come to rest: %+v", servers)
			}
			healthyBefore, healthyAfter := 0, 0
			for i := range servers {
				s := &servers[i]
				if s.votes && s.healthy {
					healthyBefore++
				}
				if slices.Contains(promote, s.id) {
					if s.votes || !s.stable {
						t.Fatalf("promotes %+v", *s)
					}
					s.votes = true
				}
				if slices.Contains(demote, s.id) {
					if !s.votes || s.leads {
						t.Fatalf("demotes %+v", *s)
					}
					s.votes = false
				}
				if s.votes && s.healthy {
					healthyAfter++
				}
			}
			if healthyAfter < healthyBefore && healthyAfter < 3 {
				t.Fatalf("leaves %d healthy voters of %d: %+v", healthyAfter, healthyBefore, servers)
			}
		}
	}
}

func TestReconcile(t *testing.T) {
	node := func(id, address string) *cairn.Node {
		return &cairn.Node{ID: cairn.NodeID(id), Address: address}
	}
	server := func(id, address string, suffrage raft.ServerSuffrage) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Address: raftAddress(cairn.NodeID(id), address), Suffrage: suffrage}
	}
	founder := server("a", "h:1", raft.Voter)
	for _, test := range []struct {
		name    string
		servers []raft.Server
		nodes   []*cairn.Node
		want    []change
	}{
		{"not initialised", []raft.Server{founder}, nil, nil},
		{"in line", []raft.Server{founder}, []*cairn.Node{node("a", "h:1")}, nil},
		{"a row that Raft does not know", []raft.Server{founder}, []*cairn.Node{node("a", "h:1"), node("b", "h:2")},
			[]change{{changePlace, "b", "b@h:2"}}},
		{"moved", []raft.Server{founder, server("b", "h:2", raft.Nonvoter)}, []*cairn.Node{node("a", "h:1"), node("b", "h:9")},
			[]change{{changePlace, "b", "b@h:9"}}},
		{"removed", []raft.Server{founder, server("b", "h:2", raft.Voter)}, []*cairn.Node{node("a", "h:1")},
			[]change{{kind: changeRemove, id: "b"}}},
		{"the leader itself was removed", []raft.Server{founder, server("b", "h:2", raft.Voter)}, []*cairn.Node{node("b", "h:2")},
			[]change{{kind: changeHandOver, id: "a"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := reconcile("a", test.servers, test.nodes); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestFailuresKeepTheirSentinel(t *testing.T) {
	for _, sentinel := range cairn.Sentinels() {
		err := failureError(failure(fmt.Errorf("share x: %w", sentinel)))
		if got := fmt.Sprint(err); got != "share x: "+sentinel.Error() {
			t.Errorf("got %q", got)
		}
		if unwrapped := err.(*remote).Unwrap(); unwrapped != sentinel {
			t.Errorf("%v became %v", sentinel, unwrapped)
		}
	}
	if failureError(failure(nil)) != nil {
		t.Error("no failure became one")
	}
}

func TestClock(t *testing.T) {
	now := time.Unix(1000, 0)
	n := &Node{identity: &Identity{Name: "n1"}, config: Config{Now: func() time.Time { return now }}}
	for _, test := range []struct {
		skew time.Duration
		want string
	}{
		{0, ""}, {60 * time.Second, ""}, {-60 * time.Second, ""},
		{61 * time.Second, "1m1s ahead of"}, {-2 * time.Hour, "2h0m0s behind"},
	} {
		err := n.checkClock(now.Add(test.skew).UnixNano())
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.skew, err)
		}
	}
}

// TestPatience: what a lease must outlast keeps its proportion to the lease.
func TestPatience(t *testing.T) {
	usual := DefaultTiming()
	if usual.times(0) != usual || usual.times(1) != usual {
		t.Error("a cluster that says nothing of patience has not the usual timing")
	}
	patient := usual.times(6)
	if patient.Lease != (lease.Terms{TTL: 12 * time.Second, Margin: 3 * time.Second}) || patient.Heartbeat != 1500*time.Millisecond ||
		patient.Raft.Heartbeat != 1800*time.Millisecond || patient.Raft.Commit != 60*time.Millisecond {
		t.Errorf("six times the patience is %+v", patient)
	}
}
