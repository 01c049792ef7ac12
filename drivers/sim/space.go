package sim

import (
	"maps"
	"strconv"
)

// empty is what a file system takes that holds nothing.
const empty = 24 << 10

// space is a size that the pool reports. What cannot be read on disk counts as nothing.
func (z *ZFS) space(e entity, name string) int64 {
	switch {
	case e.mark != nil:
		return e.mark.referenced
	case e.snap != nil:
		return z.snapshotSpace(e.snap, name)
	}
	d := e.set
	now := z.now(d)
	switch name {
	case "referenced", "logicalreferenced":
		return empty + now.size()
	case "available":
		return z.available(d)
	case "used":
		return z.used(d)
	case "logicalused":
		return z.used(d) - z.unusedReserve(d)
	case "usedbydataset":
		return empty + now.sizeWithout(originState(d))
	case "usedbysnapshots":
		return z.usedBySnapshots(d)
	case "usedbychildren":
		return z.usedByChildren(d)
	case "usedbyrefreservation":
		return z.unusedReserve(d)
	case "written":
		return now.sizeWithout(latestState(d))
	}
	return 0
}

// now is the state of the contents, looked at once for each command; empty if they cannot be read.
func (z *ZFS) now(d *dataset) state {
	if seen, ok := z.seen[d]; ok {
		return seen
	}
	now, err := z.stateOf(d)
	if err != nil {
		return nil
	}
	z.seen[d] = now
	return now
}

func originState(d *dataset) state {
	if d.origin == nil {
		return nil
	}
	return d.origin.state
}

// latestState is what the contents began from: the latest snapshot, or the origin.
func latestState(d *dataset) state {
	if s := d.latest(); s != nil {
		return s.state
	}
	return originState(d)
}

func (z *ZFS) snapshotSpace(s *snapshot, name string) int64 {
	before, after := originState(s.of), z.now(s.of)
	for i, other := range s.of.snapshots {
		if other == s && i > 0 {
			before = s.of.snapshots[i-1].state
		}
		if other == s && i+1 < len(s.of.snapshots) {
			after = s.of.snapshots[i+1].state
		}
	}
	switch name {
	case "used":
		others := []state{before, after}
		for _, clone := range z.clones(s) {
			others = append(others, z.now(clone))
		}
		return s.state.sizeWithout(others...)
	case "written":
		return s.state.sizeWithout(before)
	}
	return empty + s.state.size()
}

func (z *ZFS) usedBySnapshots(d *dataset) int64 {
	var sum int64
	counted := []state{z.now(d), originState(d)}
	for _, s := range d.snapshots {
		sum += s.state.sizeWithout(counted...)
		counted = append(counted, s.state)
	}
	return sum
}

func (z *ZFS) usedByChildren(d *dataset) int64 {
	var sum int64
	for _, child := range z.children(d) {
		sum += max(z.used(child), z.limit(child, "reservation"))
	}
	return sum
}

func (z *ZFS) used(d *dataset) int64 {
	return empty + z.now(d).sizeWithout(originState(d)) + z.usedBySnapshots(d) + z.usedByChildren(d) + z.unusedReserve(d)
}

// unusedReserve is what of a refreservation the contents have not taken since the latest snapshot.
func (z *ZFS) unusedReserve(d *dataset) int64 {
	return max(0, z.limit(d, "refreservation")-z.now(d).sizeWithout(latestState(d)))
}

// limit is a quota or reservation that is set on d; 0 if none is.
func (z *ZFS) limit(d *dataset, name string) int64 {
	n, err := strconv.ParseInt(d.props[name], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// available is what d can still take.
func (z *ZFS) available(d *dataset) int64 {
	free := z.room(d) + z.unusedReserve(d)
	if limit := z.limit(d, "refquota"); limit > 0 {
		free = min(free, limit-empty-z.now(d).size())
	}
	return max(0, free)
}

// room is what the pool and the quotas above leave for d and what is below it.
func (z *ZFS) room(d *dataset) int64 {
	used := z.used(d)
	var free int64
	if up := z.parent(d); up == nil {
		free = z.pools[d.name].size - used
	} else {
		free = z.room(up) + max(0, z.limit(d, "reservation")-used)
	}
	if limit := z.limit(d, "quota"); limit > 0 {
		free = min(free, limit-used)
	}
	return max(0, free)
}

// checkLimits refuses a quota below what is used and a reservation above what is free.
func (z *ZFS) checkLimits(d *dataset, s setting) error {
	n, err := strconv.ParseInt(s.value, 10, 64)
	if err != nil || n == 0 {
		return nil
	}
	used, referenced := z.used(d), z.space(entity{set: d}, "referenced")
	switch s.name {
	case "quota":
		if n < max(used, z.limit(d, "reservation")) {
			return fail(tooSmall)
		}
	case "refquota":
		if n < max(referenced, z.limit(d, "refreservation")) {
			return fail(tooSmall)
		}
	case "reservation":
		if quota := z.limit(d, "quota"); quota > 0 && n > quota || n-max(used, z.limit(d, s.name)) > z.room(d) {
			return fail(tooLarge)
		}
	case "refreservation":
		if refquota := z.limit(d, "refquota"); refquota > 0 && n > refquota {
			return fail(tooLarge)
		}
		fresh := z.now(d).sizeWithout(latestState(d))
		if n-max(fresh, z.limit(d, s.name)) > z.room(d) {
			return fail(tooLarge)
		}
	}
	return nil
}

const (
	tooSmall = "size is less than current used or reserved space"
	tooLarge = "size is greater than available space"
	noSpace  = "out of space"
)

// with is a copy of settings with more of them.
func with(props map[string]string, more []setting) map[string]string {
	now := make(map[string]string)
	maps.Copy(now, props)
	for _, s := range more {
		now[s.name] = s.value
	}
	return now
}
