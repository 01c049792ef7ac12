package sim

import (
	"errors"
	"slices"
	"strings"
)

// guard refuses a change of something on a pool for the reasons that have nothing to do with what it is.
func (z *ZFS) guard(what, name string) error {
	switch p := z.poolOf(name); {
	case z.faults.denied:
		return fail("%s: permission denied", what)
	case p != nil && p.suspended:
		return fail("%s: %s", what, suspended)
	}
	return nil
}

// checkParents refuses to make name where nothing can be above it.
func (z *ZFS) checkParents(what, name string, makeParents bool) error {
	at := strings.LastIndexByte(name, '/')
	switch {
	case at < 0:
		return fail("%s: missing dataset name", what)
	case z.poolOf(name) == nil:
		return fail("%s: no such pool '%s'", what, name[:strings.IndexByte(name, '/')])
	case z.sets[name[:at]] == nil && !makeParents:
		return fail("%s: parent does not exist", what)
	}
	return nil
}

func (z *ZFS) create(c *call) error {
	name := c.args[0]
	what := "cannot create '" + name + "'"
	if err := checkName(name, filesystem); err != nil {
		return refuse(what, err)
	}
	set, err := settings(c.opts['o'], filesystem, true, what)
	if err != nil {
		return err
	}
	if err := z.checkPlace(set); err != nil {
		return err
	}
	if c.has('p') && z.sets[name] != nil {
		return nil
	}
	if err := z.checkParents(what, name, c.has('p')); err != nil {
		return err
	}
	if c.has('p') {
		if err := z.createAncestors(name); err != nil {
			return err
		}
	}
	if z.sets[name] != nil {
		return fail("%s: dataset already exists", what)
	}
	d, err := z.build(name, nil, set, c.stdin, what)
	if err != nil {
		return err
	}
	if err := d.makeStore(); err != nil {
		return err
	}
	if c.has('u') {
		return nil
	}
	return z.mountIfWanted(d)
}

// checkPlace refuses mountpoints where a test must not write.
func (z *ZFS) checkPlace(set []setting) error {
	for _, s := range set {
		if s.name == "mountpoint" && strings.HasPrefix(s.value, "/") && !strings.HasPrefix(s.value, z.dir+"/") {
			return unknown("mountpoint %s outside of %s", s.value, z.dir)
		}
	}
	return nil
}

func (z *ZFS) createAncestors(name string) error {
	for i := range name {
		up := name[:i]
		if name[i] != '/' || z.sets[up] != nil {
			continue
		}
		d, err := z.build(up, nil, nil, nil, "cannot create '"+up+"'")
		if err != nil {
			return err
		}
		if err := errors.Join(d.makeStore(), z.mountIfWanted(d)); err != nil {
			return err
		}
	}
	return nil
}

// build makes the metadata of a new file system, or a clone, with its settings and its key.
func (z *ZFS) build(name string, origin *snapshot, set []setting, stdin []byte, what string) (*dataset, error) {
	if err := z.guard(what, name); err != nil {
		return nil, err
	}
	d := z.newDataset(name)
	d.origin = origin
	up := z.sets[name[:strings.LastIndexByte(name, '/')]]
	rest, err := d.takeKey(set, up, origin, stdin)
	if err != nil {
		return nil, refuse(what, err)
	}
	d.props = with(d.props, rest)
	z.sets[name] = d
	if err := z.checkRoom(d, up); err != nil {
		delete(z.sets, name)
		return nil, refuse(what, err)
	}
	return d, nil
}

// checkRoom refuses a new file system for which there is no space.
func (z *ZFS) checkRoom(d, up *dataset) error {
	delete(z.sets, d.name) // what is free without it
	free := z.room(up)
	z.sets[d.name] = d
	refquota, refreservation := z.limit(d, "refquota"), z.limit(d, "refreservation")
	for _, limit := range []int64{refquota, z.limit(d, "quota")} {
		if limit > 0 && limit < empty {
			return fail(noSpace)
		}
	}
	if refquota > 0 && refreservation > refquota || max(z.limit(d, "reservation"), refreservation) > free || free == 0 {
		return fail(noSpace)
	}
	return nil
}

func (z *ZFS) set(c *call) error {
	first := slices.IndexFunc(c.args, func(arg string) bool { return !strings.Contains(arg, "=") })
	if first < 1 {
		return unknown("%s", c.cmd)
	}
	found, err := z.collect(c, c.args[first:], datasets, 0)
	if err != nil {
		return err
	}
	for _, e := range found {
		what := "cannot set property for '" + e.name() + "'"
		set, err := settings(c.args[:first], e.kind(), false, what)
		if err == nil {
			err = z.checkPlace(set)
		}
		if err == nil {
			err = z.apply(e, set, what)
		}
		if f, ok := err.(*failure); ok {
			c.warn("%s", f.text)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// apply sets properties, each by itself: those that can be set are, although another one is refused.
func (z *ZFS) apply(e entity, set []setting, what string) error {
	if err := z.guard(what, e.name()); err != nil {
		return err
	}
	var refused error
	for _, s := range set {
		err := z.applyOne(e, s)
		if s.name != "mountpoint" && s.name != "canmount" { // what is said then is about the mount
			err = refuse(what, err)
		}
		if err != nil && refused == nil {
			refused = err
		}
	}
	return refused
}

func (z *ZFS) applyOne(e entity, s setting) error {
	switch {
	case e.snap != nil:
		e.snap.props = with(e.snap.props, []setting{s})
		return nil
	case s.name == "mountpoint", s.name == "canmount" && s.value == "off":
		return z.remount(e.set, false, func() { e.set.props = with(e.set.props, []setting{s}) })
	case s.name == "keylocation":
		return unknown("zfs set keylocation")
	}
	if err := z.checkLimits(e.set, s); err != nil {
		return err
	}
	e.set.props = with(e.set.props, []setting{s})
	if s.name == "canmount" && s.value == "on" {
		return z.mountIfWanted(e.set)
	}
	return nil
}

func (z *ZFS) inherit(c *call) error {
	name := c.args[0]
	def, ok := properties[name]
	switch {
	case !ok && !isUser(name):
		return unknown("property %q", name)
	case def.readonly:
		return fail("%s property is read-only", name)
	case def.once:
		return unknown("%s", c.cmd)
	case ok && !def.inherit && !c.has('S') && def.counts != size:
		return fail("'%s' property cannot be inherited", name)
	case ok && !def.inherit && !c.has('S'):
		return fail("'%[1]s' property cannot be inherited\nuse 'zfs set %[1]s=none' to clear\nuse 'zfs inherit -S %[1]s' to revert to received value", name)
	}
	found, err := z.collect(c, c.args[1:], datasets, 0)
	if err != nil {
		return err
	}
	for _, e := range found {
		if err := z.guard("cannot inherit "+name+" for '"+e.name()+"'", e.name()); err != nil {
			return err
		}
		forget := func() {
			delete(e.props(), name)
			if e.set != nil {
				e.set.shadowed[name] = !c.has('S')
			}
		}
		if e.set != nil && (name == "mountpoint" || name == "canmount") {
			if err := z.remount(e.set, false, forget); err != nil {
				return err
			}
			continue
		}
		forget()
	}
	return nil
}
