package replica

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
)

// Fencer takes away what may not be served any more from exporters that ask the guard only when something is exported, such
// as the NFS server of the kernel: another node may be made the writer as soon as this one's lease has run out. The pool
// refuses writes first, if it can; that holds for clients with open files, too. What may be served again later is for the
// actor to serve: it is woken then.
type Fencer struct {
	Actor *Actor
	Guard drivers.Guard
	// Protocols are those whose exporters have to be watched.
	Protocols []cairn.Protocol
	Wake      func(actors.Key)
	// Every is how often the guard is asked: 100 ms unless set. The lease's margin must be longer than this and a fence.
	Every time.Duration

	fenced map[cairn.ReplicaID]uint64 // with the epoch
}

// Run watches until the context ends.
func (f *Fencer) Run(ctx context.Context) {
	if len(f.Protocols) == 0 {
		return
	}
	every := f.Every
	if every <= 0 {
		every = 100 * time.Millisecond
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		f.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look asks the guard about everything that is served, and about what was taken away.
func (f *Fencer) look(ctx context.Context) {
	if f.fenced == nil {
		f.fenced = make(map[cairn.ReplicaID]uint64)
	}
	for _, protocol := range f.Protocols {
		table := f.Actor.served[protocol]
		for _, spec := range table.writable(ctx) {
			if err := f.Guard.Check(spec.ID.Replica, spec.Epoch); err != nil {
				f.fence(ctx, table, spec, err)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(f.fenced)) {
		if f.Guard.Check(id, f.fenced[id]) == nil {
			delete(f.fenced, id)
			f.Wake(actors.Key{Kind: cairn.KindReplica, ID: string(id)})
		}
	}
}

// fence takes one export away. What fails is tried again at the next look.
func (f *Fencer) fence(ctx context.Context, table *served, spec drivers.ExportSpec, why error) {
	ctx, cancel := context.WithTimeout(ctx, f.Actor.cfg.StepTimeout)
	defer cancel()
	id := spec.ID.Replica
	log := f.Actor.cfg.Logger.With("replica", id, "share", spec.Share, "reason", why)
	if row := f.Actor.cfg.Viewer.View().Replica(id); row != nil {
		if sealer, ok := f.Actor.cfg.Pools[row.Pool].(drivers.Sealer); ok {
			if err := sealer.Seal(ctx, id, spec.Epoch); err != nil {
				log.Error("fence: the pool still takes writes", "error", err)
			}
		}
	}
	if err := table.unexport(ctx, spec.ID); err != nil {
		log.Error("fence: the share is still served", "error", err)
		return
	}
	f.fenced[id] = spec.Epoch
	log.Warn("share is not served any more, until this node may serve it again")
}
