package guard

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Ledger is a leader's proof that it leads: for each peer, when the newest request was sent that the peer has acknowledged
// in the leader's term. A majority that acknowledged what was sent after some moment had elected nobody else at that
// moment, however long the answers were under way.
type Ledger struct {
	clock func() time.Duration

	mu    sync.Mutex
	sends uint64
	peers map[raft.ServerID]acknowledgement
	heard chan struct{} // closed by the next acknowledgement
}

// Mark is a moment: by order, which is exact, and by clock, which counts sleep.
type Mark struct {
	order uint64
	At    time.Duration
}

// Since reports whether m is not before other.
func (m Mark) Since(other Mark) bool { return m.order >= other.order }

type acknowledgement struct {
	term uint64
	mark Mark
}

// NewLedger returns an empty ledger.
func NewLedger(clock func() time.Duration) *Ledger {
	return &Ledger{clock: clock, peers: make(map[raft.ServerID]acknowledgement), heard: make(chan struct{})}
}

// Mark returns the present moment; every call is after all calls before it.
func (l *Ledger) Mark() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sends++
	return Mark{order: l.sends, At: l.clock()}
}

func (l *Ledger) acknowledge(id raft.ServerID, term uint64, mark Mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.peers[id]; term > old.term || term == old.term && mark.order > old.mark.order {
		l.peers[id] = acknowledgement{term, mark}
		close(l.heard)
		l.heard = make(chan struct{})
	}
}

// Heard returns a channel that is closed at the next acknowledgement. Look at Proof after this, and then receive.
func (l *Ledger) Heard() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard
}

// Proof returns the newest moment at which a majority of the voters certainly had no leader later than term, the local
// node counting as one of them if it votes. There may be none yet.
func (l *Ledger) Proof(term uint64, voters []raft.ServerID, self raft.ServerID) (Mark, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	need := len(voters)/2 + 1
	marks := make([]Mark, 0, len(voters))
	for _, id := range voters {
		if id == self {
			need--
		} else if peer := l.peers[id]; peer.term == term {
			marks = append(marks, peer.mark)
		}
	}
	if need <= 0 {
		l.sends++
		return Mark{order: l.sends, At: l.clock()}, true
	}
	if len(marks) < need {
		return Mark{}, false
	}
	slices.SortFunc(marks, func(a, b Mark) int {
		if a.order > b.order {
			return -1
		}
		return 1
	})
	return marks[need-1], true
}
