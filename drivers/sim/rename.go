package sim

import (
	"os"
	"strings"
)

func (z *ZFS) rename(c *call) error {
	from, to := c.args[0], c.args[1]
	if strings.Contains(from, "@") {
		return z.renameSnapshot(c, from, to)
	}
	d, err := z.openSet(from)
	if err != nil {
		return err
	}
	if from == to {
		return nil
	}
	what := "cannot rename to '" + to + "'"
	if err := checkName(to, filesystem); err != nil {
		return refuse(what, err)
	}
	if err := z.checkParents("cannot create '"+to+"'", to, false); err != nil {
		return err
	}
	if err := z.checkMove(c, d, to, what); err != nil {
		return err
	}
	move := func() {
		for _, one := range z.below(from) {
			delete(z.sets, one.name)
			one.name = to + one.name[len(from):]
			z.sets[one.name] = one
		}
	}
	if c.has('u') {
		move()
		return nil
	}
	return z.remount(d, true, move)
}

func (z *ZFS) checkMove(c *call, d *dataset, to, what string) error {
	switch {
	case c.has('r'):
		return unknown("%s", c.cmd)
	case z.poolOf(to) != z.poolOf(d.name):
		return fail("%s: datasets must be within same pool", what)
	case strings.HasPrefix(to, d.name+"/"):
		return fail("%s: New dataset name cannot be a descendant of current dataset name", what)
	}
	what = "cannot rename '" + d.name + "'"
	if d.mountedAt == "" || c.has('u') { // else it is unmounted first, which says what is wrong
		if err := z.guard(what, d.name); err != nil {
			return err
		}
	}
	if z.sets[to] != nil {
		return fail("%s: dataset already exists", what)
	}
	up := z.sets[to[:strings.LastIndexByte(to, '/')]]
	if d.lock != nil && d.lock.root != d && up.lock != d.lock && up != z.parent(d) {
		return fail("%s: cannot move encrypted child outside of its encryption root", what)
	}
	return nil
}

func (z *ZFS) renameSnapshot(c *call, from, to string) error {
	s, err := z.openSnapshot(from)
	if err != nil {
		return err
	}
	what := "cannot rename to '" + to + "'"
	at, name, ok := strings.Cut(to, "@")
	switch {
	case !ok || at == "" || c.has('u'):
		return unknown("%s", c.cmd)
	case at != s.of.name:
		return fail("%s: snapshots must be part of same dataset", what)
	}
	if err := checkName(to, snapshotKind); err != nil {
		return refuse(what, err)
	}
	sets := []*dataset{s.of}
	if c.has('r') {
		sets = z.below(s.of.name)
	}
	old := s.name
	for _, d := range sets {
		one := d.snapshot(old)
		if one == nil {
			continue
		}
		if err := z.guard("cannot rename '"+one.full()+"'", d.name); err != nil {
			return err
		}
		if d.snapshot(name) != nil {
			return fail("cannot rename '%s': dataset already exists", one.full())
		}
	}
	for _, d := range sets {
		if one := d.snapshot(old); one != nil {
			before := one.root()
			one.name = name
			if err := os.Rename(before, one.root()); err != nil {
				return err
			}
		}
	}
	return nil
}
