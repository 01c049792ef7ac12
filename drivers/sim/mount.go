package sim

import (
	"slices"
	"strings"
)

// leave unmounts file systems, the deepest first, or refuses before the first: the command is atomic here.
func (z *ZFS) leave(sets []*dataset) error {
	for _, d := range sets {
		if z.faults.denied {
			return fail("cannot unmount '%s': unmount failed", d.mountedAt)
		}
		if d.occupied {
			return busy(d)
		}
	}
	for _, d := range sets {
		if err := z.unmount(d); err != nil {
			return err
		}
	}
	return nil
}

func busy(d *dataset) error {
	return fail("cannot unmount '%s': pool or dataset is busy", d.mountedAt)
}

// remount changes what decides where d and those below it are mounted, and mounts those that were again. If moves, nothing
// stays where they were mounted.
func (z *ZFS) remount(d *dataset, moves bool, change func()) error {
	var affected []*dataset
	places := make(map[*dataset]string)
	for _, one := range reversed(z.below(d.name)) {
		if one.mountedAt != "" {
			affected, places[one] = append(affected, one), one.mountedAt
		}
	}
	hadNone := z.mountpoint(d) == ""
	if err := z.leave(affected); err != nil {
		return err
	}
	for _, one := range affected {
		if moves {
			removeMountpoint(places[one])
		}
	}
	change()
	for _, one := range reversed(affected) {
		if !one.locked() && z.mountpoint(one) != "" && z.lookup(entity{set: one}, "canmount").value != "off" {
			if err := z.mount(one); err != nil {
				return err
			}
		}
	}
	if !hadNone {
		return nil
	}
	for _, one := range z.below(d.name) {
		if err := z.mountIfWanted(one); err != nil {
			return err
		}
	}
	return nil
}

func (z *ZFS) mountVerb(c *call) error {
	d, err := z.openSet(c.args[0])
	if err != nil {
		return err
	}
	what := "cannot mount '" + d.name + "'"
	if err := z.guard(what, d.name); err != nil {
		return err
	}
	at := z.lookup(entity{set: d}, "mountpoint").value
	switch {
	case at == "legacy":
		return fail("%s: legacy mountpoint\nuse mount(8) to mount this filesystem", what)
	case at == "none":
		return fail("%s: no mountpoint set", what)
	case z.lookup(entity{set: d}, "canmount").value == "off":
		return fail("%s: 'canmount' property is set to 'off'", what)
	case d.mountedAt != "":
		return fail("%s: filesystem already mounted", what)
	case d.locked():
		return fail("%s: encryption key not loaded", what)
	case d.unborn:
		return fail("%s: Contains partially-completed state from \"zfs receive -s\", which can be resumed with \"zfs send -t\"", what)
	}
	return z.mount(d)
}

func (z *ZFS) unmountVerb(c *call) error {
	if strings.HasPrefix(c.args[0], "/") {
		return unknown("zfs unmount of a path")
	}
	d, err := z.openSet(c.args[0])
	if err != nil {
		return err
	}
	if d.mountedAt == "" {
		return fail("cannot unmount '%s': not currently mounted", d.name)
	}
	below := slices.DeleteFunc(reversed(z.below(d.name)), func(one *dataset) bool { return one.mountedAt == "" })
	return z.leave(below)
}
