package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func (z *ZFS) snapshot(c *call) error {
	var cuts []*snapshot
	for _, full := range c.args {
		at, name, ok := strings.Cut(full, "@")
		if !ok {
			return &failure{text: snapshotUsage, code: 2}
		}
		d, err := z.openSet(at)
		if f, ok := err.(*failure); ok {
			return &failure{text: f.text + "\n" + snapshotUsage, code: 2}
		}
		if err != nil {
			return err
		}
		sets := []*dataset{d}
		if c.has('r') {
			sets = z.below(at)
		}
		for _, d := range sets {
			cuts = append(cuts, &snapshot{of: d, name: name})
		}
	}
	err := z.cutAll(c, cuts)
	if f, ok := err.(*failure); ok && (len(c.args) > 1 || c.has('r')) {
		return &failure{text: f.text + "\nno snapshots were created", code: 1}
	}
	return err
}

// cutAll makes snapshots at one point in time, all or none.
func (z *ZFS) cutAll(c *call, cuts []*snapshot) error {
	slices.SortFunc(cuts, func(a, b *snapshot) int { return strings.Compare(a.full(), b.full()) })
	for _, s := range cuts {
		if err := checkName(s.full(), snapshotKind); err != nil {
			return refuse("cannot create snapshot '"+s.full()+"'", err)
		}
	}
	set, err := settings(c.opts['o'], snapshotKind, false, "cannot create snapshots ")
	if err != nil {
		return err
	}
	if err := z.refuseCuts(cuts); err != nil {
		return err
	}
	for _, s := range cuts {
		s.identity, s.props, s.holds = z.newIdentity(), with(nil, set), make(map[string]int64)
		if err := z.cut(s); err != nil {
			return err
		}
	}
	return nil
}

// refuseCuts says why snapshots cannot be made, a line for each.
func (z *ZFS) refuseCuts(cuts []*snapshot) error {
	sets := make(map[*dataset]bool)
	for _, s := range cuts {
		if sets[s.of] {
			return fail("cannot create snapshots : multiple snapshots of same fs not allowed")
		}
		sets[s.of] = true
		if z.faults.denied {
			return fail("cannot create snapshots : permission denied")
		}
	}
	var lines []string
	for _, s := range cuts {
		what := "cannot create snapshot '" + s.full() + "'"
		switch fresh := z.now(s.of).sizeWithout(latestState(s.of)); {
		case s.of.snapshot(s.name) != nil:
			lines = append(lines, what+": dataset already exists")
		case s.of.unborn:
			lines = append(lines, what+": dataset is busy")
		case min(fresh, z.limit(s.of, "refreservation")) > z.room(s.of):
			lines = append(lines, what+": "+noSpace)
		}
	}
	if len(lines) > 0 {
		return fail("%s", strings.Join(lines, "\n"))
	}
	return nil
}

// cut copies the contents and adds the snapshot.
func (z *ZFS) cut(s *snapshot) error {
	if err := copyTree(s.of.root(), s.root(), z.skip(s.of)); err != nil {
		return err
	}
	var err error
	if s.of.last, err = z.stateOf(s.of); err != nil {
		return err
	}
	if s.state, err = look(s.root(), all); err != nil {
		return err
	}
	s.of.snapshots = append(s.of.snapshots, s)
	return nil
}

// remove takes a snapshot away.
func (z *ZFS) remove(s *snapshot) error {
	if err := removeTree(s.root()); err != nil {
		return err
	}
	s.of.snapshots = slices.DeleteFunc(s.of.snapshots, func(other *snapshot) bool { return other == s })
	return nil
}

// removeDeferred takes a snapshot away that was to go when nothing needs it, if that is now.
func (z *ZFS) removeDeferred(s *snapshot) error {
	if s == nil || !s.deferred || len(s.holds) > 0 || len(z.clones(s)) > 0 {
		return nil
	}
	return z.remove(s)
}

func (z *ZFS) rollback(c *call) error {
	s, err := z.openSnapshot(c.args[0])
	if err != nil {
		return err
	}
	younger, marks := s.of.younger(s)
	if len(younger)+len(marks) > 0 && !c.has('r') {
		text := fmt.Sprintf("cannot rollback to '%s': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:", s.full())
		for _, name := range append(names(younger), markNames(marks)...) {
			text += "\n" + name
		}
		return fail("%s", text)
	}
	for _, one := range younger {
		if clones := z.clones(one); len(clones) > 0 {
			return fail("cannot rollback to '%s': clones of previous snapshots exist\nuse '-R' to force deletion of the following clones and dependents:\n%s",
				s.full(), clones[0].name)
		} else if len(one.holds) > 0 {
			return unknown("rollback past what is held")
		}
	}
	if err := z.guard("cannot rollback '"+s.of.name+"'", s.of.name); err != nil {
		return err
	}
	for _, one := range younger {
		if err := z.remove(one); err != nil {
			return err
		}
	}
	s.of.bookmarks = slices.DeleteFunc(s.of.bookmarks, func(b *bookmark) bool { return slices.Contains(marks, b) })
	return z.replace(s.of, s.root())
}

// younger are the snapshots and bookmarks that were made after s.
func (d *dataset) younger(s *snapshot) (snapshots []*snapshot, bookmarks []*bookmark) {
	for _, other := range d.snapshots {
		if other.createtxg > s.createtxg {
			snapshots = append(snapshots, other)
		}
	}
	for _, b := range d.bookmarks {
		if b.createtxg > s.createtxg {
			bookmarks = append(bookmarks, b)
		}
	}
	return snapshots, bookmarks
}

func names(snapshots []*snapshot) (all []string) {
	for _, s := range snapshots {
		all = append(all, s.full())
	}
	return all
}

func markNames(marks []*bookmark) (all []string) {
	for _, b := range marks {
		all = append(all, b.full())
	}
	return all
}

func (z *ZFS) clone(c *call) error {
	s, err := z.openSnapshot(c.args[0])
	if err != nil {
		return err
	}
	name := c.args[1]
	what := "cannot create '" + name + "'"
	if err := checkName(name, filesystem); err != nil {
		return refuse(what, err)
	}
	if err := z.checkParents(what, name, false); err != nil {
		return err
	}
	set, err := settings(c.opts['o'], filesystem, false, what)
	if err != nil {
		return err
	}
	switch {
	case z.poolOf(name) != z.poolOf(s.of.name):
		return fail("%s: source and target pools differ", what)
	case z.sets[name] != nil:
		return fail("%s: dataset already exists", what)
	}
	d, err := z.build(name, s, set, nil, what)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(d.place, "snapshot"), 0o755); err != nil {
		return err
	}
	if err := copyTree(s.root(), filepath.Join(d.place, "data"), all); err != nil {
		return err
	}
	if d.last, err = z.stateOf(d); err != nil {
		return err
	}
	if at := z.mountpoint(d); d.locked() && at != "" && z.lookup(entity{set: d}, "canmount").value == "on" {
		return fail("cannot mount '%s': encryption key not loaded\nfilesystem successfully created, but not mounted", at)
	}
	return z.mountIfWanted(d)
}

// promote turns a clone and its origin around: the snapshots and bookmarks up to the origin become those of the clone.
func (z *ZFS) promote(c *call) error {
	d, err := z.openSet(c.args[0])
	if err != nil {
		return err
	}
	what := "cannot promote '" + d.name + "'"
	if d.origin == nil {
		return fail("%s: not a cloned filesystem", what)
	}
	if err := z.guard(what, d.name); err != nil {
		return err
	}
	from, origin := d.origin.of, d.origin
	at := slices.Index(from.snapshots, origin) + 1
	moved := slices.Clone(from.snapshots[:at])
	for _, s := range moved {
		if d.snapshot(s.name) != nil {
			return fail("%s: conflicting snapshot '%s' from parent '%s'", what, s.name, origin.full())
		}
	}
	for _, s := range moved {
		before := s.root()
		s.of = d
		if err := os.Rename(before, s.root()); err != nil {
			return err
		}
	}
	d.snapshots = append(moved, d.snapshots...)
	from.snapshots = slices.Clone(from.snapshots[at:])
	d.origin, from.origin = from.origin, origin
	for _, b := range slices.Clone(from.bookmarks) {
		if b.createtxg <= origin.createtxg {
			b.of = d
			d.bookmarks = append(d.bookmarks, b)
		}
	}
	from.bookmarks = slices.DeleteFunc(from.bookmarks, func(b *bookmark) bool { return b.of == d })
	d.takeRoot(from)
	return nil
}
