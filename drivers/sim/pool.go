package sim

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// imported are the pools that are there, in order of name.
func (z *ZFS) imported() []*pool {
	var pools []*pool
	for _, name := range slices.Sorted(maps.Keys(z.pools)) {
		if p := z.pools[name]; p.gone == nil {
			pools = append(pools, p)
		}
	}
	return pools
}

// poolsOf are the pools that a command names, or all. It warns of what is not there.
func (z *ZFS) poolsOf(c *call, names []string) []*pool {
	if len(names) == 0 {
		return z.imported()
	}
	for _, name := range names {
		if p := z.pools[name]; p == nil || p.gone != nil {
			c.warn("cannot open '%s': no such pool", name)
		}
	}
	pools := slices.DeleteFunc(z.imported(), func(p *pool) bool { return !slices.Contains(names, p.name) })
	if len(pools) > 0 {
		c.code = 0 // as the tool has it
	}
	return pools
}

// raw is what a pool has with what it keeps back for itself.
func (p *pool) raw() int64 { return p.size + max(p.size/31, 128<<20) }

// poolProperty is what a pool says of itself.
func (z *ZFS) poolProperty(p *pool, name string) (value, error) {
	used := func() int64 { return z.used(z.sets[p.name]) }
	switch name {
	case "name":
		return value{p.name, "-"}, nil
	case "guid":
		return value{strconv.FormatUint(p.guid, 10), "-"}, nil
	case "size":
		return value{strconv.FormatInt(p.raw(), 10), "-"}, nil
	case "allocated", "alloc":
		return value{strconv.FormatInt(used(), 10), "-"}, nil
	case "free":
		return value{strconv.FormatInt(p.raw()-used(), 10), "-"}, nil
	case "capacity":
		return value{strconv.FormatInt(used()*100/p.raw(), 10), "-"}, nil
	case "health":
		if p.suspended {
			return value{"SUSPENDED", "-"}, nil
		}
		return value{"ONLINE", "-"}, nil
	case "readonly":
		return value{"off", "-"}, nil
	case "altroot", "comment":
		return value{"-", "default"}, nil
	case "ashift":
		return value{"0", "default"}, nil
	case "failmode":
		return value{"wait", "default"}, nil
	}
	return value{}, unknown("pool property %q", name)
}

func (z *ZFS) poolList(c *call) error {
	if !c.has('H') || !c.has('p') || !c.has('o') {
		return unknown("zpool list for people")
	}
	for _, p := range z.poolsOf(c, c.args) {
		var fields []string
		for name := range strings.SplitSeq(c.value('o', ""), ",") {
			v, err := z.poolProperty(p, name)
			if err != nil {
				return err
			}
			fields = append(fields, v.value)
		}
		c.stdout.WriteString(strings.Join(fields, "\t") + "\n")
	}
	return nil
}

func (z *ZFS) poolGet(c *call) error {
	if !c.has('H') || !c.has('p') {
		return unknown("zpool get for people")
	}
	for _, p := range z.poolsOf(c, c.args[1:]) {
		for name := range strings.SplitSeq(c.args[0], ",") {
			v, err := z.poolProperty(p, name)
			if err != nil {
				return err
			}
			var fields []string
			for field := range strings.SplitSeq(c.value('o', "name,property,value,source"), ",") {
				text, ok := map[string]string{"name": p.name, "property": name, "value": v.value, "source": v.source}[field]
				if !ok {
					return unknown("column %q of zpool get", field)
				}
				fields = append(fields, text)
			}
			c.stdout.WriteString(strings.Join(fields, "\t") + "\n")
		}
	}
	return nil
}

func (z *ZFS) poolStatus(c *call) error {
	if len(c.args) == 0 || len(z.poolsOf(c, c.args)) > 0 {
		return unknown("zpool status, which is for people")
	}
	return nil
}

// kstat is cat of what the kernel says of a pool, which anybody may read.
func (z *ZFS) kstat(c *call) error {
	name, ok := strings.CutPrefix(c.args[0], "/proc/spl/kstat/zfs/")
	name, state := strings.CutSuffix(name, "/state")
	if !ok || !state || len(c.args) != 1 {
		return unknown("%s", c.cmd)
	}
	p := z.pools[name]
	if p == nil || p.gone != nil {
		return fail("cat: %s: No such file or directory", c.args[0])
	}
	health, err := z.poolProperty(p, "health")
	c.stdout.WriteString(health.value + "\n")
	return err
}

// poolSync: what has been written counts at once here.
func (z *ZFS) poolSync(c *call) error {
	for _, p := range z.poolsOf(c, c.args) {
		if p.suspended {
			return unknown("zpool sync of a suspended pool, which does not end")
		}
	}
	return nil
}
