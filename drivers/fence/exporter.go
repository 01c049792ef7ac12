package fence

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Export serves spec; what must be fenced only behind the gate: cairn.ErrNotSupported on a machine that cannot have one, and
// cairn.ErrUnavailable while the gate is first needed and there is no lease.
func (k *Keeper) Export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	if !fenced(spec) {
		locations, err := k.config.Exporter.Export(ctx, spec)
		if err == nil {
			k.forget(ctx, spec.ID) // it may have been fenced before
		}
		return locations, err
	}
	if unfit := k.Unfit(); unfit != nil {
		return nil, fmt.Errorf("export replica %s: %w", spec.ID.Replica, errNoGate(unfit))
	}
	k.enter(spec)
	defer k.leave(spec.ID)
	if err := k.arm(ctx); err != nil {
		return nil, fmt.Errorf("export replica %s: %w", spec.ID.Replica, err)
	}
	locations, err := k.config.Exporter.Export(ctx, spec)
	if err == nil {
		k.setAddress(ctx, spec.ID, spec.Address)
	}
	return locations, err
}

// Unexport stops serving. The service address goes first: a client whose server has gone silent asks again, and finds the next
// one; a client that is told that the share is gone gives up.
func (k *Keeper) Unexport(ctx context.Context, id drivers.ExportID) error {
	k.setAddress(ctx, id, netip.Prefix{})
	if err := k.config.Exporter.Unexport(ctx, id); err != nil {
		return err
	}
	k.forget(ctx, id)
	return nil
}

// Exports implements drivers.Exporter.
func (k *Keeper) Exports(ctx context.Context) ([]drivers.ExportSpec, error) {
	return k.config.Exporter.Exports(ctx)
}

// Fence implements drivers.Exporter.
func (k *Keeper) Fence(ctx context.Context, id cairn.ReplicaID, below uint64) error {
	return k.config.Exporter.Fence(ctx, id, below)
}

// Close stops what the exporter has started. The gate and the addresses are left: they end by themselves, also if clients are
// served on by a server that is not ours to stop.
func (k *Keeper) Close() error {
	if closer, ok := k.config.Exporter.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// enter notes that spec may be reachable from now on.
func (k *Keeper) enter(spec drivers.ExportSpec) {
	k.books.Lock()
	defer k.books.Unlock()
	k.entering[spec.ID] = spec
	if _, known := k.fenced[spec.ID]; !known {
		k.fenced[spec.ID] = netip.Prefix{}
	}
}

func (k *Keeper) leave(id drivers.ExportID) {
	k.books.Lock()
	defer k.books.Unlock()
	delete(k.entering, id)
}

func (k *Keeper) forget(ctx context.Context, id drivers.ExportID) {
	k.setAddress(ctx, id, netip.Prefix{})
	k.books.Lock()
	defer k.books.Unlock()
	if _, entering := k.entering[id]; !entering {
		delete(k.fenced, id)
	}
}

// setAddress notes the address of a fenced export, and takes another one that it had away. That this fails is no reason to
// serve on: the address goes by itself.
func (k *Keeper) setAddress(ctx context.Context, id drivers.ExportID, address netip.Prefix) {
	k.books.Lock()
	old, known := k.fenced[id]
	if known {
		k.fenced[id] = address
	}
	k.books.Unlock()
	if !known || old == address || !old.IsValid() {
		return
	}
	if err := k.config.Addresses.Drop(ctx, old); err != nil {
		k.config.Logger.Warn("service address is not taken away; it ends by itself within seconds", "address", old, "error", err)
	}
}

// addresses lists what must be held.
func (k *Keeper) addresses() map[netip.Prefix]bool {
	k.books.Lock()
	defer k.books.Unlock()
	all := make(map[netip.Prefix]bool)
	for _, address := range k.fenced {
		if address.IsValid() {
			all[address] = true
		}
	}
	return all
}

// idle reports whether nothing is fenced, as far as is known.
func (k *Keeper) idle() bool {
	k.books.Lock()
	defer k.books.Unlock()
	return len(k.fenced) == 0 && len(k.entering) == 0
}

// underFence lists what is, or is about to be, served and must be fenced.
func (k *Keeper) underFence(ctx context.Context) ([]drivers.ExportSpec, error) {
	k.books.Lock()
	var all []drivers.ExportSpec
	for _, spec := range k.entering {
		all = append(all, spec)
	}
	k.books.Unlock()
	served, err := k.config.Exporter.Exports(ctx) // after the others: what was entering is in one of the two
	for _, spec := range served {
		if fenced(spec) {
			all = append(all, spec)
		}
	}
	return all, err
}
