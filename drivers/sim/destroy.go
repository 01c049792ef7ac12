package sim

import (
	"fmt"
	"slices"
	"strings"
)

func (z *ZFS) destroy(c *call) error {
	name := c.args[0]
	switch {
	case strings.Contains(name, "@"):
		return z.destroySnapshots(c, name)
	case strings.Contains(name, "#"):
		return z.destroyBookmark(c, name)
	}
	d, err := z.openSet(name)
	if err != nil {
		return err
	}
	switch {
	case !strings.Contains(name, "/") && !c.has('r') && !c.has('R'):
		return fail("cannot destroy '%[1]s': operation does not apply to pools\nuse 'zfs destroy -r %[1]s' to destroy all datasets in the pool\nuse 'zpool destroy %[1]s' to destroy the pool itself", name)
	case !strings.Contains(name, "/"), c.has('d'):
		return unknown("%s", c.cmd)
	}
	below, clones := z.dependents(d)
	if !c.has('r') && !c.has('R') && len(below) > 0 {
		return fail("cannot destroy '%s': filesystem has children\nuse '-r' to destroy the following datasets:\n%s", name, strings.Join(below, "\n"))
	}
	if c.has('R') && len(clones) > 0 {
		return unknown("zfs destroy -R of what is cloned elsewhere")
	}
	if len(clones) > 0 {
		return fail("cannot destroy '%s': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\n%s", name, strings.Join(clones, "\n"))
	}
	return z.destroyTree(d)
}

// dependents are the names of what is below d, and of the clones of its snapshots that are not.
func (z *ZFS) dependents(d *dataset) (below, clones []string) {
	for _, one := range z.below(d.name) {
		if one != d {
			below = append(below, one.name)
		}
		for _, s := range one.snapshots {
			below = append(below, s.full())
			for _, clone := range z.clones(s) {
				if !strings.HasPrefix(clone.name, d.name+"/") {
					clones = append(clones, clone.name)
				}
			}
		}
	}
	return below, clones
}

// destroyTree destroys a file system with all that is below it.
func (z *ZFS) destroyTree(d *dataset) error {
	sets := reversed(z.below(d.name))
	for _, one := range sets {
		if z.faults.denied && len(one.snapshots) > 0 {
			return fail("cannot destroy snapshots: permission denied")
		}
		for _, s := range one.snapshots {
			if (len(s.holds) > 0 || s.sending > 0) && len(sets) > 1 {
				return unknown("zfs destroy -r of several with snapshots that are held")
			} else if len(s.holds) > 0 || s.sending > 0 {
				return fail("cannot destroy snapshot %s: dataset is busy", s.full())
			}
		}
	}
	mounted := slices.DeleteFunc(slices.Clone(sets), func(one *dataset) bool { return one.mountedAt == "" })
	if err := z.leave(mounted); err != nil {
		return err
	}
	if err := z.guard("cannot destroy '"+d.name+"'", d.name); err != nil {
		return err
	}
	for _, one := range sets {
		origin := one.origin
		if err := z.drop(one); err != nil {
			return err
		}
		if err := z.removeDeferred(origin); err != nil {
			return err
		}
	}
	return nil
}

func (z *ZFS) destroySnapshots(c *call, full string) error {
	at, spec, _ := strings.Cut(full, "@")
	d, err := z.openSet(at)
	if err != nil {
		return err
	}
	if strings.Contains(spec, "%") {
		return unknown("a range of snapshots")
	}
	sets := []*dataset{d}
	if c.has('r') {
		sets = z.below(at)
	}
	var doomed []*snapshot
	for _, d := range sets {
		for name := range strings.SplitSeq(spec, ",") {
			if s := d.snapshot(name); s != nil {
				doomed = append(doomed, s)
			}
		}
	}
	slices.SortFunc(doomed, func(a, b *snapshot) int { return byName(entity{snap: a}, entity{snap: b}) })
	if len(doomed) == 0 {
		return fail("could not find any snapshots to destroy; check snapshot names.")
	}
	if c.has('R') {
		if err := z.destroyClones(doomed); err != nil {
			return err
		}
	}
	if !c.has('d') {
		if err := z.refuseCloned(doomed); err != nil {
			return err
		}
	}
	return z.destroyAll(doomed, c.has('d'))
}

// refuseCloned refuses to destroy the origin of a clone.
func (z *ZFS) refuseCloned(doomed []*snapshot) error {
	text := ""
	for _, s := range doomed {
		clones := z.clones(s)
		if len(clones) == 0 {
			continue
		}
		text += fmt.Sprintf("\ncannot destroy '%s': snapshot has dependent clones\nuse '-R' to destroy the following datasets:", s.full())
		for _, clone := range clones {
			for _, one := range z.below(clone.name) {
				for _, s := range one.snapshots {
					text += "\n" + s.full()
				}
				text += "\n" + one.name
			}
		}
	}
	if text != "" {
		return fail("%s", text[1:])
	}
	return nil
}

func (z *ZFS) destroyClones(doomed []*snapshot) error {
	for _, s := range doomed {
		for _, clone := range z.clones(s) {
			if _, clones := z.dependents(clone); len(clones) > 0 {
				return unknown("a clone of a clone of %s", s.full())
			}
			if err := z.destroyTree(clone); err != nil {
				return err
			}
		}
	}
	return nil
}

// destroyAll destroys snapshots, all or none.
func (z *ZFS) destroyAll(doomed []*snapshot, deferred bool) error {
	var lines []string
	for _, s := range doomed {
		switch {
		case z.faults.denied:
			return fail("cannot destroy snapshots: permission denied")
		case s.sending > 0, len(s.holds) > 0 && !deferred:
			lines = append(lines, "cannot destroy snapshot "+s.full()+": dataset is busy")
		}
	}
	if len(lines) > 0 {
		return fail("%s", strings.Join(lines, "\n"))
	}
	for _, s := range doomed {
		if deferred && (len(s.holds) > 0 || len(z.clones(s)) > 0) {
			s.deferred = true
			continue
		}
		if err := z.remove(s); err != nil {
			return err
		}
	}
	return nil
}

func (z *ZFS) destroyBookmark(c *call, full string) error {
	e, ok := z.find(full)
	switch {
	case !ok:
		return fail("bookmark '%s' does not exist.", full)
	case len(c.opts) > 0:
		return unknown("%s", c.cmd)
	}
	if err := z.guard("cannot destroy bookmark", full); err != nil {
		return err
	}
	d := e.mark.of
	d.bookmarks = slices.DeleteFunc(d.bookmarks, func(b *bookmark) bool { return b == e.mark })
	return nil
}
