package virtual

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// users are those who use the cluster, each in a goroutine of its own.
type users struct {
	*world
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex // a machine's process is looked at under it, and replaced under it
	seen []string   // what an operator has found in diverged snapshots that had to go
}

func (w *world) invite() *users {
	u := &users{world: w}
	u.ctx, u.stop = context.WithCancel(context.Background())
	for i := range 2 {
		name := fmt.Sprint("register-", i+1)
		u.running.Go(func() { u.writeRegister(name) })
		for range 2 {
			u.running.Go(func() { u.readRegister(name) })
		}
	}
	for _, share := range w.shares {
		u.running.Go(func() { u.writeLines(share) })
	}
	u.running.Go(u.countWriters)
	return u
}

// leave ends all of them.
func (u *users) leave() {
	u.stop()
	u.running.Wait()
}

// pause waits for a time that is pause in the mean; false at the end.
func (u *users) pause(mean time.Duration) bool { return u.sleep(u.some(2 * mean)) }

func (u *users) sleep(long time.Duration) bool {
	select {
	case <-time.After(long):
		return true
	case <-u.ctx.Done():
		return false
	}
}

// any is the process of some machine, nil if it is down.
func (u *users) any() *process {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.machines[u.pick(len(u.machines))].process
}

// writeRegister writes rising numbers. A write is repeated with the same token until somebody says that it is done.
func (u *users) writeRegister(name string) {
	for value := int64(1); u.pause(scale * 4 * time.Second); value++ {
		o := operation{write: true, value: value, began: time.Now()}
		u.history.ask(name, value)
		meta := fsm.Meta{Token: u.token(), At: time.Now().UnixNano(), Actor: "user/" + name}
		for u.ctx.Err() == nil && !o.known {
			if p := u.any(); p != nil {
				ctx, cancel := context.WithTimeout(u.ctx, scale*3*time.Second)
				result, err := p.member.Apply(ctx, meta, &fsm.SetQuota{Quota: cairn.Quota{Project: cairn.ProjectID(name), Limits: cairn.Limits{Shares: value}}})
				cancel()
				o.known, o.where = err == nil && result.Err == nil && !p.dead.Load(), p.name
			}
			if !o.known && !u.pause(scale*100*time.Millisecond) {
				break
			}
		}
		o.end = time.Now()
		u.history.add(name, o)
	}
}

func (u *users) readRegister(name string) {
	for u.pause(scale * 3 * time.Second) {
		p := u.any()
		if p == nil {
			continue
		}
		o := operation{began: time.Now(), where: p.name}
		ctx, cancel := context.WithTimeout(u.ctx, scale*3*time.Second)
		view, err := p.member.ReadView(ctx)
		cancel()
		if o.end = time.Now(); err != nil || p.dead.Load() {
			continue
		}
		if row := view.Quota(cairn.ProjectID(name)); row.Limits.Shares > 0 {
			o.value = row.Limits.Shares
		}
		u.history.add(name, o)
	}
}

// serving lists who lets clients write to a share now; the caller holds the lock.
func (u *users) serving(share cairn.ShareID) (serving []*process) {
	for _, m := range u.up() {
		if _, ok := m.process.exporter.writable(share); ok && !u.network.stopped(m.name) {
			serving = append(serving, m.process)
		}
	}
	return serving
}

// countWriters looks all the time whether a share has more than one node that lets clients write, which writers find only if
// they come just then.
func (u *users) countWriters() {
	for u.sleep(scale * 50 * time.Millisecond) {
		u.count()
	}
}

func (u *users) count() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, share := range u.shares {
		if serving := u.serving(share); len(serving) > 1 {
			u.history.twoWriters(share, serving)
		}
	}
}

// writeLines appends numbered lines to a share wherever it is served.
func (u *users) writeLines(share cairn.ShareID) {
	for n := 1; u.pause(scale * 3 * time.Second); n++ {
		u.mu.Lock()
		if serving := u.serving(share); len(serving) > 0 {
			p := serving[u.pick(len(serving))]
			text := fmt.Sprintf("%s-%d", share, n)
			_ = p.exporter.write(share, text, func(spec drivers.ExportSpec) { // what fails is not acknowledged
				var others []string
				for _, other := range serving {
					if other == p {
						continue
					}
					if _, ok := other.exporter.writable(share); ok {
						others = append(others, other.name)
					}
				}
				u.history.wrote(line{text, spec.Epoch, p.self, time.Now()}, share, others)
			})
		}
		u.mu.Unlock()
	}
}

// cut makes a snapshot of a share, and remembers what is in it once it is acknowledged.
func (u *users) cut(share cairn.ShareID) {
	id := cairn.SnapshotID(u.token())
	p := u.leader()
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(u.ctx, scale*3*time.Second)
	defer cancel()
	result, err := p.member.Apply(ctx, u.meta(), &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: id, Share: share, Name: string(id)}})
	u.note("snapshot", "snapshot %s of %s: %v %v", id, share, err, result.Err)
}

// contents reads the lines of a replica, or of its snapshot, on the disk of its machine.
func (w *world) contents(row *cairn.Replica, snapshot cairn.SnapshotID) (string, error) {
	for _, m := range w.machines {
		if m.process == nil || m.process.self != row.Node {
			continue
		}
		m.shelf.mu.Lock()
		defer m.shelf.mu.Unlock()
		o := m.shelf.objects[row.ID]
		switch {
		case o == nil:
			return "", fmt.Errorf("replica %s on %s: %w", row.ID, m.name, cairn.ErrNotFound)
		case snapshot == "":
			return o.lines, nil
		}
		c, there := o.cuts[snapshot]
		if !there {
			return "", fmt.Errorf("snapshot %s on %s: %w", snapshot, m.name, cairn.ErrNotFound)
		}
		return c.lines, nil
	}
	return "", fmt.Errorf("node %s is down: %w", row.Node, cairn.ErrUnavailable)
}
