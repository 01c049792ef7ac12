package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Adopt marks the dataset of that name, renames it, and then says that it is ready. Until then its data is somebody else's:
// whatever takes the replica away gives it back its name.
func (p *Pool) Adopt(ctx context.Context, spec drivers.CreateSpec, name string) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "adopt", func(o *op) (drivers.Object, error) {
		if err := o.checkForeignName(name); err != nil {
			return drivers.Object{}, err
		}
		w, err := o.wishes(spec)
		if err != nil {
			return drivers.Object{}, err
		}
		f, err := o.look()
		switch {
		case errors.Is(err, cairn.ErrNotFound):
		case err != nil:
			return drivers.Object{}, err
		default:
			if err := o.admit(&f, spec.Epoch); err != nil {
				return drivers.Object{}, err
			}
			if f.ready() {
				return o.same(f, spec.Size, wanted{adopted: name})
			}
			if f.state != stateAdopting || f.adopted != name {
				if err := o.remove(f); err != nil {
					return drivers.Object{}, err
				}
				f = found{}
			}
		}
		return o.adopt(f, spec, w, name)
	})
}

// adopt goes on where f, an adoption of the same name or nothing, is.
func (o *op) adopt(f found, spec drivers.CreateSpec, w wishes, name string) (drivers.Object, error) {
	home := o.at(spec.ID)
	if f.at == "" {
		f.at = o.dataset + "/" + name
		r, err := o.checkAdoptable(f.at, spec.Size)
		if err == nil {
			err = w.checkEncrypted(r)
		}
		if err != nil {
			return drivers.Object{}, err
		}
		err = o.zfs(slices.Concat([]string{"set"}, properties(mark(spec, stateAdopting)), []string{"cairn:adopted=" + name, f.at})...)
		if err != nil {
			return drivers.Object{}, err
		}
	}
	if f.at != home {
		if err := o.zfs("rename", f.at, home); err != nil {
			return drivers.Object{}, o.giveBack(spec.ID, err)
		}
	}
	if err := o.zfs("inherit", "mountpoint", home); err != nil {
		return drivers.Object{}, o.giveBack(spec.ID, err)
	}
	limits := properties(w.limits)
	if w.keyFile != "" {
		limits = append(limits, "cairn:key="+w.keyFile)
	}
	for _, limit := range limits {
		if err := o.zfs("set", limit, home); err != nil {
			return drivers.Object{}, o.giveBack(spec.ID, err)
		}
	}
	if err := o.zfs("set", "cairn:state="+string(stateReady), "readonly=off", home); err != nil { // and remounts it
		return drivers.Object{}, err
	}
	return o.again()
}

// properties are the values of options.
func properties(options []string) []string {
	var values []string
	for i := 1; i < len(options); i += 2 {
		values = append(values, options[i])
	}
	return values
}

// giveBack undoes an adoption that was refused. It is a courtesy: Delete does the same.
func (o *op) giveBack(id cairn.ReplicaID, err error) error {
	if o.ctx.Err() != nil || errors.Is(err, cairn.ErrTimeout) || errors.Is(err, cairn.ErrUnknownOutcome) {
		return err
	}
	f, lookErr := o.look()
	if lookErr == nil && f.state == stateAdopting {
		lookErr = o.remove(f)
	}
	if lookErr != nil {
		return fmt.Errorf("%w (and it still carries a mark: %v)", err, lookErr)
	}
	return err
}

// checkAdoptable makes sure that a dataset is a file system that nobody owns, that does not hold more than size.
func (o *op) checkAdoptable(at string, size int64) (row, error) {
	rows, err := o.list("-d", "1", "-t", "filesystem,volume", at)
	if errors.Is(err, errGone) {
		if _, err := o.parent(); err != nil {
			return nil, unavailable(err)
		}
		return nil, fmt.Errorf("dataset %s: %w", at, cairn.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	r := rows[0]
	switch {
	case r["cairn:id"] != "":
		return nil, fmt.Errorf("dataset %s carries the mark of replica %s: %w", at, r["cairn:id"], cairn.ErrExists)
	case r["type"] != "filesystem":
		return nil, fmt.Errorf("dataset %s: is a %s, not a file system: %w", at, r["type"], cairn.ErrInvalid)
	case len(rows) > 1:
		return nil, fmt.Errorf("dataset %s: has datasets of its own below it, the first is %s: %w", at, rows[1]["name"], cairn.ErrInUse)
	case size > 0:
		return r, checkFits(r, size)
	}
	return r, nil
}

// Release is Adopt backwards: the mark says what is going to happen, the dataset gets its name, and loses its mark.
func (p *Pool) Release(ctx context.Context, id cairn.ReplicaID, epoch uint64, name string) error {
	return change(ctx, p, id, "release", func(o *op) error {
		if err := o.checkForeignName(name); err != nil {
			return err
		}
		f, err := o.look()
		if errors.Is(err, cairn.ErrNotFound) {
			_, err := o.checkAdoptable(o.dataset+"/"+name, 0)
			return err
		}
		if err != nil {
			return err
		}
		if err := o.admit(&f, epoch); err != nil {
			return err
		}
		switch {
		case f.ready():
			err = o.startRelease(&f, name)
		case f.state == stateReleasing && f.released == name, f.state == stateAdopting && f.adopted == name:
		default:
			err = f.checkReady()
		}
		if err != nil {
			return err
		}
		return o.letGo(f, name)
	})
}

func (o *op) startRelease(f *found, name string) error {
	for _, r := range f.snapshots {
		if r["cairn:snapshot"] != "" {
			return f.checkNoSnapshots()
		}
	}
	switch _, err := o.checkAdoptable(o.dataset+"/"+name, 0); {
	case errors.Is(err, cairn.ErrNotFound):
	case err != nil:
		return err
	default:
		return fmt.Errorf("dataset %s/%s: %w", o.dataset, name, errForeign)
	}
	return o.zfs("set", "cairn:state="+string(stateReleasing), "cairn:released="+name, f.at)
}

// letGo gives a dataset its name and takes its mark away: the state first, without which the rest is disposable, and the ID
// last, by which it is found until then.
func (o *op) letGo(f found, name string) error {
	at := o.dataset + "/" + name
	if f.at != at {
		if err := o.zfs("rename", f.at, at); err != nil {
			return err
		}
	}
	f, err := o.lookAt(at)
	if err != nil {
		return err
	}
	mark := slices.DeleteFunc(slices.Clone(columns), func(column string) bool {
		return !strings.HasPrefix(column, "cairn:") || column == "cairn:pool" || column == "cairn:id" || column == "cairn:state" || f.row[column] == ""
	})
	for _, property := range slices.Concat([]string{"cairn:state"}, mark, []string{"cairn:id"}) {
		if err := o.zfs("inherit", property, at); err != nil {
			return err
		}
	}
	return nil
}

// checkForeignName refuses names that are not those of a dataset directly below the pool's.
func (o *op) checkForeignName(name string) error {
	if strings.HasPrefix(name, "-") {
		return fmt.Errorf("name %q: would be taken for an option: %w", name, cairn.ErrInvalid)
	}
	return cairn.CheckName("dataset", name)
}
