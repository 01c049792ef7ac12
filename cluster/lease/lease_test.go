package lease_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/lease"
)

var terms = lease.Terms{TTL: 2 * time.Second, Margin: 500 * time.Millisecond}

// clock is a clock that the test moves.
type clock struct{ now time.Duration }

func (c *clock) read() time.Duration { return c.now }

func TestHolder(t *testing.T) {
	const ttl = 2 * time.Second
	for _, test := range []struct {
		name  string
		steps func(h *lease.Holder)
		now   time.Duration
		left  time.Duration
	}{
		{"nothing granted", func(*lease.Holder) {}, 0, 0},
		{"counted from before sending", func(h *lease.Holder) { h.Grant(time.Second, 0, ttl) }, 2500 * time.Millisecond, 500 * time.Millisecond},
		{"less the age of the proof", func(h *lease.Holder) { h.Grant(time.Second, 300*time.Millisecond, ttl) }, time.Second, 1700 * time.Millisecond},
		{"an answer that took longer than the lease", func(h *lease.Holder) { h.Grant(time.Second, 0, ttl) }, 4 * time.Second, -time.Second},
		{"a late answer does not shorten", func(h *lease.Holder) {
			h.Grant(2*time.Second, 0, ttl)
			h.Grant(time.Second, 0, ttl)
		}, 3 * time.Second, time.Second},
		{"revoked", func(h *lease.Holder) {
			h.Grant(time.Second, 0, ttl)
			h.Revoke()
		}, time.Second, 0},
		{"granted again after it was revoked", func(h *lease.Holder) {
			h.Grant(9*time.Second, 0, ttl)
			h.Revoke()
			h.Grant(time.Second, 0, ttl)
		}, time.Second, ttl},
	} {
		t.Run(test.name, func(t *testing.T) {
			var h lease.Holder
			test.steps(&h)
			if got := h.Left(test.now); got != test.left {
				t.Errorf("left %s, want %s", got, test.left)
			}
		})
	}
}

func TestANewTermGivesEveryoneAFullLease(t *testing.T) {
	c := &clock{now: time.Hour}
	table := lease.NewTable(terms, c.read, 0)
	c.now += terms.TTL + terms.Margin
	if table.Condemn("n1") {
		t.Error("condemned before a lease of the earlier leader was certainly over")
	}
	c.now++
	if !table.Condemn("n1") {
		t.Error("not condemned after that")
	}
}

func TestCondemnedGetsNoLeaseUntilItIsSettled(t *testing.T) {
	c := &clock{}
	table := lease.NewTable(terms, c.read, 7)
	c.now = time.Second
	if grant, condemned := table.Heard("n1", 6); grant || condemned {
		t.Errorf("a node that does not know of everything before the term: granted %v, condemned %v", grant, condemned)
	}
	if grant, _ := table.Heard("n1", 7); !grant {
		t.Fatal("refused a node that is well")
	}
	c.now += terms.TTL + terms.Margin + 1
	if !table.Condemn("n1") {
		t.Fatal("a silent node was not condemned")
	}
	if grant, condemned := table.Heard("n1", 8); grant || !condemned {
		t.Error("granted between the decision and its commit")
	}
	if !table.Back("n1") {
		t.Error("heard again, and not noticed")
	}
	if grant, _ := table.Heard("n1", 8); grant {
		t.Error("granted before its return was committed")
	}
	table.Settle("n1", true, 9)
	if grant, _ := table.Heard("n1", 8); grant {
		t.Error("granted to a node that does not know that it was down")
	}
	if grant, _ := table.Heard("n1", 9); !grant {
		t.Error("refused after its return was committed")
	}
}

func TestWithheldGetsNoLeaseUntilItKnows(t *testing.T) {
	c := &clock{}
	table := lease.NewTable(terms, c.read, 7)
	for range 2 {
		if !table.Withhold("n1") {
			t.Error("said that a node which is up holds no lease")
		}
	}
	if grant, condemned := table.Heard("n1", 8); grant || condemned {
		t.Errorf("withheld twice: granted %v, condemned %v", grant, condemned)
	}
	table.Release("n1", 9)
	if grant, _ := table.Heard("n1", 9); grant {
		t.Error("granted while it is withheld by another one")
	}
	table.Release("n1", 0)
	if grant, _ := table.Heard("n1", 8); grant {
		t.Error("granted to a node that does not know what was decided meanwhile")
	}
	if grant, _ := table.Heard("n1", 9); !grant {
		t.Error("refused after it knew")
	}
	c.now += terms.TTL + terms.Margin + 1
	table.Condemn("n1")
	if table.Withhold("n1") {
		t.Error("said that a condemned node may hold a lease")
	}
	table.Forget("n1")
	table.Release("n1", 10)
	if grant, _ := table.Heard("n1", 9); !grant {
		t.Error("a node that was forgotten is still withheld, or not granted its lease")
	}
}

func TestADownNodeOfAnEarlierTermIsNotBackUntilHeard(t *testing.T) {
	c := &clock{now: time.Hour}
	table := lease.NewTable(terms, c.read, 0)
	c.now += time.Second
	if table.Back("n1") {
		t.Error("the beginning of a term was taken for a heartbeat")
	}
	if grant, _ := table.Heard("n1", 9); grant {
		t.Error("a node that is down was granted a lease")
	}
}

// TestNoLeaseOutlivesItsNodesDownState plays random delays, pauses, lost messages and changes of leader against the rule
// that everything else rests on: when a leader commits that a node is down, the node holds no lease.
func TestNoLeaseOutlivesItsNodesDownState(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range uint64(200) {
		playLeases(t, rand.New(rand.NewPCG(seed, round)))
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

// leader is a leader as the node sees it. Until a successor is elected its proof is fresh; after that it stays what it was.
type leader struct {
	table *lease.Table
	proof time.Duration
}

type answer struct {
	arrives, sent, age time.Duration
	granted            bool
}

func playLeases(t *testing.T, random *rand.Rand) {
	const node = cairn.NodeID("n1")
	c := &clock{now: time.Hour}
	log, applied, up := uint64(0), uint64(0), uint64(0) // newest entry; newest one that the node knows; when it was last put up
	current := &leader{table: lease.NewTable(terms, c.read, log)}
	old := current // may go on answering: it does not know yet that it was replaced
	var holder lease.Holder
	var answers []answer
	down := false
	for range 400 {
		c.now += time.Duration(random.Int64N(int64(200 * time.Millisecond)))
		current.proof = c.now
		switch random.IntN(20) {
		case 0: // a successor is elected
			old, current = current, &leader{table: lease.NewTable(terms, c.read, log), proof: c.now}
		case 1: // everything stands still
			c.now += time.Duration(random.Int64N(int64(4 * time.Second)))
		}
		if random.IntN(3) > 0 { // a heartbeat reaches one of them
			to := current
			if random.IntN(4) == 0 {
				to = old
			}
			sent := c.now - time.Duration(random.Int64N(int64(50*time.Millisecond)))
			granted, _ := to.table.Heard(node, applied)
			granted = granted && (to != current || !down)
			answers = append(answers, answer{
				arrives: c.now + time.Duration(random.Int64N(int64(3*time.Second))), sent: sent, age: c.now - to.proof, granted: granted,
			})
		}
		answers = slices.DeleteFunc(answers, func(a answer) bool {
			if a.granted && a.arrives <= c.now {
				holder.Grant(a.sent, a.age, terms.TTL)
			}
			return !a.granted || a.arrives <= c.now
		})
		if random.IntN(3) == 0 { // the node gets some of the log
			applied += random.Uint64N(log - applied + 1)
		}
		switch {
		case !down && current.table.Condemn(node):
			down = true
			log++
			if left := holder.Left(c.now); left > 0 {
				t.Errorf("declared down while it held a lease for another %s", left)
			}
		case down && current.table.Back(node):
			log++
			up = log
			current.table.Settle(node, true, up)
			down = false
		}
		if holder.Left(c.now) > 0 && applied < up {
			t.Error("holds a lease and does not know that it was down: another may have what it had")
		}
		if down && holder.Left(c.now) > 0 {
			t.Error("holds a lease while it is down")
		}
	}
}
