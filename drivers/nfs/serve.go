package nfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

// change changes the record, and makes the exports file and the kernel's table agree with it. Clients may be served by the
// old rules until reconcile has returned.
func (e *Exporter) change(ctx context.Context, mutate func(*record.Record) error) error {
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := mutate(e.record); err != nil {
		return err
	}
	saving, err := e.settle(ctx)
	return errors.Join(saving, err)
}

// entry returns what is recorded of an export, or nil.
func (e *Exporter) entry(ctx context.Context, id drivers.ExportID) (*record.Entry, error) {
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if entry, ok := e.record.Entry(id); ok {
		return &entry, nil
	}
	return nil, nil
}

// settle undoes what others have changed, too. The kernel's table follows even if the file cannot be written, which is saving:
// a fence must not depend on a disk. Called with state held.
func (e *Exporter) settle(ctx context.Context) (saving, err error) {
	want, err := wanted(e.record.Served(), e.moving, e.config.Root, e.config.Squash)
	if err != nil {
		return nil, err
	}
	saving = e.write(render(e.record, want))
	changed, err := e.kernel.apply(ctx, e.config.Root, want)
	if changed {
		e.changes++
	}
	return saving, err
}

func (e *Exporter) write(text []byte) error {
	found, err := record.ReadFile(e.config.ExportsFile)
	if err == nil && bytes.Equal(found, text) {
		return nil
	}
	if e.written != nil && !bytes.Equal(found, e.written) {
		e.config.Logger.Warn("nfs: exports file was changed by hand; the changes are undone", "file", e.config.ExportsFile)
	}
	if err := record.WriteFile(e.config.ExportsFile, text, 0o644); err != nil {
		return fmt.Errorf("exports file: %w", err)
	}
	e.written = text
	return nil
}

// reconcile makes the mount of a name what the record says, and returns when no client is served otherwise. Called with
// the name's lock held.
func (e *Exporter) reconcile(ctx context.Context, name string) error {
	entry, serve, err := e.served(ctx, name)
	if err != nil {
		return err
	}
	path := e.path(name)
	var root device
	if serve {
		if root, err = e.fileSystem(ctx, entry.Spec); err != nil {
			return err
		}
	}
	mounted, err := e.kernel.mounted(path)
	if err != nil {
		return err
	}
	if mounted != nil && (!serve || mounted.device != root) {
		if err := e.unmount(ctx, name); err != nil {
			return err
		}
		mounted = nil
	}
	if serve {
		if mounted == nil {
			if err := e.mount(ctx, name, entry.Spec.Root); err != nil {
				return err
			}
		}
		if err := setApart(path); err != nil {
			return err
		}
		if err := e.kernel.seen(ctx, path, root); err != nil {
			return err
		}
	}
	if err := e.move(ctx, name, false); err != nil {
		return err
	}
	return e.confirm(ctx)
}

// fileSystem is the file system to serve. ZFS unmounts a snapshot some minutes after it has mounted it, and cannot mount it
// again while our mount holds it: then that is what is asked for, if it was made from the same root.
func (e *Exporter) fileSystem(ctx context.Context, spec drivers.ExportSpec) (device, error) {
	before, err := e.entry(ctx, spec.ID)
	if err != nil {
		return device{}, err
	}
	mounts, err := readMounts(ownMounts)
	if err != nil {
		return device{}, err
	}
	ours := e.path(record.Name(spec))
	if before != nil && !before.Withdrawn && before.Spec.Root == spec.Root && inPlace(mounts, ours, spec) {
		return mounts[ours].device, nil
	}
	return e.kernel.fileSystem(ctx, spec.Root)
}

// unmount takes the mount away, and the name from its clients until move gives it back.
func (e *Exporter) unmount(ctx context.Context, name string) error {
	if err := e.move(ctx, name, true); err != nil {
		return err
	}
	if err := e.kernel.release(ctx, e.path(name)); err != nil {
		return err
	}
	if err := os.Remove(e.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mount point: %w", err)
	}
	return nil
}

// mount mounts what is served under the name. Nobody has been served from the empty mount point: see options.
func (e *Exporter) mount(ctx context.Context, name, root string) error {
	if err := os.MkdirAll(e.path(name), 0o700); err != nil {
		return fmt.Errorf("mount point: %w", err)
	}
	if err := e.kernel.bind(ctx, root, e.path(name)); err != nil {
		return err
	}
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e.changes++ // the server may remember that nothing was mounted
	return nil
}

// move begins or ends the time in which a name is served to nobody because its mount changes.
func (e *Exporter) move(ctx context.Context, name string, moving bool) error {
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if e.moving[name] == moving {
		return nil
	}
	if moving {
		e.moving[name] = true
	} else {
		delete(e.moving, name)
	}
	_, err = e.settle(ctx) // the call before or after this one says what cannot be saved
	return err
}

// confirm returns when what the server remembers agrees with the table. Between its question and the answer of rpc.mountd
// the table may have changed, so the old answer may come after exportfs has flushed the caches. The daemon answers one
// question after the other: after its answer to one from now nothing old can come, and what came before is flushed.
func (e *Exporter) confirm(ctx context.Context) error {
	changes, confirmed, err := e.unconfirmed(ctx)
	if err != nil || confirmed == changes {
		return err
	}
	if confirmed == 0 { // the exporter before this one may not have come to it
		if err := e.kernel.flush(ctx); err != nil {
			return err
		}
	}
	if err := e.kernel.probe(ctx, e.config.ServiceAddresses); err != nil {
		return err
	}
	if err := e.kernel.flush(ctx); err != nil {
		return err
	}
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e.confirmed = max(e.confirmed, changes)
	return nil
}

func (e *Exporter) unconfirmed(ctx context.Context) (changes, confirmed uint64, err error) {
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer unlock()
	return e.changes, e.confirmed, nil
}

func (e *Exporter) served(ctx context.Context, name string) (record.Entry, bool, error) {
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return record.Entry{}, false, err
	}
	defer unlock()
	entry, ok := e.record.Served()[name]
	return entry, ok, nil
}

// Exports lists what is recorded, in order, after undoing what others have changed in the exports file and the kernel's
// table. An export that nobody reaches as recorded, because the server does not run, the mount is gone or it is being
// withdrawn, is listed without rules: exported again it is repaired, or the error says why not.
func (e *Exporter) Exports(ctx context.Context) ([]drivers.ExportSpec, error) {
	unlock, err := e.state.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("exports: %w", err)
	}
	defer unlock()
	down := e.kernel.check(ctx)
	if down == nil {
		if saving, err := e.settle(ctx); saving != nil || err != nil {
			return nil, fmt.Errorf("exports: %w", errors.Join(saving, err))
		}
	}
	mounts, err := readMounts(ownMounts)
	if err != nil {
		return nil, fmt.Errorf("exports: %w", err)
	}
	served := e.record.Served()
	var list []drivers.ExportSpec
	for _, entry := range e.record.Entries() {
		name := record.Name(entry.Spec)
		if down != nil || entry.Withdrawn || e.moving[name] || !inPlace(mounts, e.path(name), served[name].Spec) {
			entry.Spec.Rules = nil
		}
		list = append(list, entry.Spec)
	}
	return list, nil
}

// inPlace reports whether the mount of an export is that of its root. A root that is not mounted any more is missed only
// of a replica: ZFS unmounts snapshots that it has mounted by itself, and our mount holds them.
func inPlace(mounts map[string]mount, path string, spec drivers.ExportSpec) bool {
	ours, ok := mounts[path]
	root, mounted := mounts[spec.Root]
	if !mounted {
		return ok && spec.ID.Snapshot != ""
	}
	return ok && ours.device == root.device
}

// errBusy is the release that waits for clients.
func errBusy(path string, ctx context.Context, err error) error {
	return fmt.Errorf("%s: requests in progress, or files that clients hold: %w: %w: %w", path, cairn.ErrTimeout, context.Cause(ctx), err)
}
