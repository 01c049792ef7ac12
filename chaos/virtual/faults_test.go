package virtual

import (
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// trouble is what goes wrong, one thing after the other, some of it at the same time.
type trouble struct {
	*users
}

// happen lets one thing go wrong, or end.
func (t *trouble) happen() {
	m := t.machines[t.pick(len(t.machines))]
	switch t.pick(15) {
	case 0, 1:
		t.partition(m)
	case 2, 3, 4:
		t.heal()
	case 5:
		t.crash(m)
	case 6, 7:
		t.start()
	case 8:
		t.stop(m)
	case 9:
		t.spoilDisk(m)
	case 10:
		skew := t.some(100*time.Second) - 50*time.Second
		t.note("clock", "the wall clock of %s jumps by %s", m.name, skew)
		m.skew.Add(int64(skew))
		m.skew.Store(min(max(m.skew.Load(), int64(-50*time.Second)), int64(50*time.Second)))
	case 11:
		t.network.change(func() {
			t.network.slow, t.network.loss = 2*time.Millisecond, 0
			if t.chance(50) {
				t.network.slow, t.network.loss = t.some(scale*time.Second)+time.Millisecond, t.pick(30)
			}
		})
		t.note("delay", "messages take up to %s, %d%% of packets are lost", t.network.slow, t.network.loss)
	case 12:
		t.cut(t.shares[t.pick(len(t.shares))])
	case 13:
		t.move()
	case 14:
		t.decay(m)
	}
}

// partition cuts a machine off from some of the others, in one direction or in both.
func (t *trouble) partition(m *machine) {
	to, from := t.chance(80), t.chance(80)
	var others []string
	for _, other := range t.machines {
		if other != m && t.chance(80) {
			others = append(others, other.name)
		}
	}
	t.note("partition", "%s is cut off: to %v %v, from them %v", m.name, others, to, from)
	t.network.change(func() {
		for _, other := range others {
			t.network.cut[[2]string{m.name, other}] = to
			t.network.cut[[2]string{other, m.name}] = from
		}
	})
}

// decay lets the link of a machine go bad little by little: it hears everything, and in time for Raft, but later and later; then it is not
// heard any more, while what was sent to it before still comes in. Its newest answer is to a question that is as old as a lease may become.
func (t *trouble) decay(m *machine) {
	const step, lease = scale * 100 * time.Millisecond, scale * 2 * time.Second
	most := t.some(lease)
	t.note("decay", "%s hears later and later, by %s in the end, and then is mute", m.name, most)
	for late := step; late < most; late += step {
		t.network.change(func() { t.network.late[m.name] = late })
		time.Sleep(2 * step)
	}
	t.network.change(func() {
		for _, other := range t.machines {
			t.network.cut[[2]string{m.name, other.name}] = other != m
		}
	})
	time.Sleep(2 * lease)
}

func (t *trouble) heal() {
	t.note("heal", "the network is whole")
	for _, m := range t.machines {
		m.release()
		m.full.Store(false)
	}
	t.network.change(func() {
		clear(t.network.cut)
		clear(t.network.frozen)
		clear(t.network.late)
	})
}

func (t *trouble) crash(m *machine) {
	if m.process == nil {
		return
	}
	silently := t.chance(50)
	t.note("crash", "%s dies, silently %v", m.name, silently)
	t.end(m, silently)
}

// end takes the process away from the users, then ends it.
func (t *trouble) end(m *machine, silently bool) {
	p := m.process
	t.users.mu.Lock()
	p.dead.Store(true)
	m.process = nil
	t.users.mu.Unlock()
	p.die(silently)
}

// revive starts what has ended itself, as whoever supervises a server does.
func (t *trouble) revive() {
	for _, m := range t.up() {
		if m.process.failed.Load() {
			t.note("failed", "%s has ended itself", m.name)
			t.end(m, false)
			t.start()
		}
	}
}

func (t *trouble) start() {
	for _, m := range t.machines {
		if m.process == nil {
			t.note("start", "%s starts", m.name)
			p := m.boot()
			t.users.mu.Lock()
			m.process = p
			t.users.mu.Unlock()
			return
		}
	}
}

// stop is SIGSTOP, as far as others can see: nothing comes in or goes out, and the disk is not written to.
func (t *trouble) stop(m *machine) {
	long := t.some(scale*6*time.Second) + time.Second
	t.note("stop", "%s is stopped for %s", m.name, long)
	m.hang()
	t.network.change(func() { t.network.frozen[m.name] = true })
	time.Sleep(long)
	m.release()
	t.network.change(func() { delete(t.network.frozen, m.name) })
	for range 200 { // what it was told before may come now, and is old
		time.Sleep(scale * 100 * time.Microsecond)
		t.count()
	}
}

// spoilDisk has the disk of a log hang, or be full.
func (t *trouble) spoilDisk(m *machine) {
	if t.chance(50) {
		t.note("disk", "the disk of %s is full", m.name)
		m.full.Store(true)
		return
	}
	t.note("disk", "the disk of %s hangs", m.name)
	m.hang()
}

// move lets an operator promote a replica, or hands leadership over.
func (t *trouble) move() {
	p := t.leader()
	if p == nil {
		return
	}
	if t.chance(30) {
		t.note("transfer", "leadership of %s goes on: %v", p.name, p.member.TransferLeadership(t.ctx, ""))
		return
	}
	share := t.shares[t.pick(len(t.shares))]
	for row := range p.member.View().ReplicasOf(share) {
		if row.Role == cairn.RoleStandby && t.chance(60) {
			result, err := p.member.Apply(t.ctx, t.meta(), &fsm.PromoteShare{Share: share, Replica: row.ID, Task: cairn.TaskID(t.token())})
			t.note("promote", "%s to %s: %v %v", share, row.ID, err, result.Err)
			return
		}
	}
}
