package fsm

// Checkpoint compares states. Every node remembers its own digest after this entry (all of it, if it is a bundle), and
// compares the one that it remembers of entry PrevIndex with PrevDigest, which is the leader's. The first checkpoint of a
// leader has PrevIndex 0.
type Checkpoint struct {
	PrevIndex  uint64
	PrevDigest uint64
}

func (*Checkpoint) op() Op                    { return OpCheckpoint }
func (*Checkpoint) target() string            { return "cluster" }
func (*Checkpoint) apply(*Tx) (string, error) { return "", nil }

// checkpointsKept is how many digests a node remembers of its own.
const checkpointsKept = 16

// checkpoints is what this node remembers of checkpoints. It is not part of the replicated state: its whole purpose is to
// differ when the state differs.
type checkpoints struct {
	passed     []checkpoint // oldest first
	divergedAt uint64
}

type checkpoint struct{ index, digest uint64 }

// differ reports whether the check shows, for the first time, that states differ.
func (p *checkpoints) differ(c *Checkpoint) bool {
	for _, old := range p.passed {
		if old.index == c.PrevIndex && old.digest != c.PrevDigest && p.divergedAt == 0 {
			p.divergedAt = c.PrevIndex
			return true
		}
	}
	return false
}

// pass remembers the digest after the entry of index.
func (p *checkpoints) pass(index, digest uint64) {
	p.passed = append(p.passed, checkpoint{index, digest})
	if len(p.passed) > checkpointsKept {
		p.passed = p.passed[1:]
	}
}

// LastCheckpoint returns the newest checkpoint that this machine passed and its own digest there: what a leader puts into
// the next one. Both are 0 if there was none since the machine was made or restored.
func (m *Machine) LastCheckpoint() (index, digest uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.checkpoints.passed); n > 0 {
		return m.checkpoints.passed[n-1].index, m.checkpoints.passed[n-1].digest
	}
	return 0, 0
}
