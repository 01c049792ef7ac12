package sim

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// kindsOf reads -t.
func (c *call) kindsOf(without kinds) (kinds, error) {
	if !c.has('t') {
		return without, nil
	}
	var all kinds
	for name := range strings.SplitSeq(c.value('t', ""), ",") {
		kind, ok := map[string]kinds{"filesystem": filesystem, "volume": 0, "snapshot": snapshotKind, "snap": snapshotKind, "bookmark": bookmarkKind, "all": everything}[name]
		if !ok {
			return 0, unknown("the type %q", name)
		}
		all |= kind
	}
	return all, nil
}

// depth reads -r and -d: how far below what is named things are looked for.
func (c *call) depth() (int, error) {
	if c.has('d') {
		n, err := strconv.Atoi(c.value('d', ""))
		if err != nil || n < 0 {
			return 0, unknown("the depth %q", c.value('d', ""))
		}
		return n, nil
	}
	if c.has('r') {
		return 1 << 20, nil
	}
	return 0, nil
}

// collect finds what a list or get is about, in the order in which zfs shows it. It warns of what is not there.
func (z *ZFS) collect(c *call, names []string, want kinds, depth int) ([]entity, error) {
	var found []entity
	add := func(e entity) {
		if e.kind()&want != 0 && !slices.Contains(found, e) {
			found = append(found, e)
		}
	}
	named := want
	if depth > 0 {
		named |= filesystem
	}
	if len(names) == 0 {
		if slices.ContainsFunc(z.imported(), func(p *pool) bool { return p.suspended }) {
			return nil, unknown("a listing of everything with a suspended pool")
		}
		depth = 1 << 20
		for name, d := range z.sets {
			if !strings.Contains(name, "/") {
				z.gather(entity{set: d}, want, depth, add)
			}
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") {
			return nil, unknown("the path %s in the place of a dataset", name)
		}
		e, err := z.open(name, everything)
		if f, ok := err.(*failure); ok {
			c.warn("%s", f.text)
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.kind()&named == 0 {
			return nil, unknown("%s, which is a %s", name, e.kind())
		}
		z.gather(e, want, depth, add)
	}
	slices.SortFunc(found, byName)
	return found, nil
}

// gather adds an entity and what is below it.
func (z *ZFS) gather(e entity, want kinds, depth int, add func(entity)) {
	add(e)
	if e.kind() != filesystem || depth == 0 {
		return
	}
	for _, s := range e.set.snapshots {
		add(entity{snap: s})
	}
	for _, b := range e.set.bookmarks {
		add(entity{mark: b})
	}
	if depth == 1 && want&filesystem == 0 {
		return
	}
	for _, child := range z.children(e.set) {
		z.gather(entity{set: child}, want, depth-1, add)
	}
}

// byName is the order of zfs: by name, a file system before its snapshots, and those by age.
func byName(a, b entity) int {
	nameOf := func(e entity) string {
		if e.snap != nil {
			return e.snap.of.name
		}
		return e.name()
	}
	age := func(e entity) uint64 {
		if e.snap != nil {
			return e.snap.createtxg
		}
		return 0
	}
	return cmp.Or(strings.Compare(nameOf(a), nameOf(b)), cmp.Compare(age(a), age(b)), strings.Compare(a.name(), b.name()))
}

func (z *ZFS) list(c *call) error {
	want, err := c.kindsOf(filesystem)
	if err != nil {
		return err
	}
	depth, err := c.depth()
	if err != nil {
		return err
	}
	if (want == snapshotKind || want == bookmarkKind) && len(c.args) > 0 && depth == 0 && !c.has('d') {
		depth = 1
	}
	if !c.has('H') || !c.has('o') {
		return unknown("zfs list for people")
	}
	columns := strings.Split(c.value('o', ""), ",")
	if err := known(c, columns); err != nil {
		return err
	}
	if !c.has('t') { // a snapshot that is named is listed as well
		want |= snapshotKind
	}
	found, err := z.collect(c, c.args, want, depth)
	if err != nil {
		return err
	}
	for _, e := range found {
		if !c.has('t') && e.snap != nil && !slices.Contains(c.args, e.name()) {
			continue
		}
		var fields []string
		for _, column := range columns {
			fields = append(fields, z.lookup(e, column).value)
		}
		c.stdout.WriteString(strings.Join(fields, "\t") + "\n")
	}
	return nil
}

// known refuses properties that are not simulated, and numbers for people.
func known(c *call, names []string) error {
	for _, name := range names {
		def, ok := properties[name]
		if strings.HasPrefix(name, "written@") {
			def, ok = properties["written"], true
		}
		if !ok && !isUser(name) {
			return unknown("property %q", name)
		}
		if def.counts != nothing && !c.has('p') {
			return unknown("property %s without -p", name)
		}
	}
	return nil
}

func (z *ZFS) get(c *call) error {
	want, err := c.kindsOf(everything)
	if err != nil {
		return err
	}
	depth, err := c.depth()
	if err != nil {
		return err
	}
	if !c.has('H') {
		return unknown("zfs get for people")
	}
	names := strings.Split(c.args[0], ",")
	found, err := z.collect(c, c.args[1:], want, depth)
	if err != nil || c.args[0] == "all" && len(found) == 0 {
		return err
	}
	if err := known(c, names); err != nil {
		return err
	}
	for _, e := range found {
		for _, name := range names {
			if err := z.getOne(c, e, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (z *ZFS) getOne(c *call, e entity, name string) error {
	v := z.lookup(e, name)
	kind, _, _ := strings.Cut(v.source, " ")
	if kind == "-" {
		kind = "none"
	}
	if c.has('s') && !slices.Contains(strings.Split(c.value('s', ""), ","), kind) {
		return nil
	}
	var fields []string
	for field := range strings.SplitSeq(c.value('o', "name,property,value,source"), ",") {
		text, ok := map[string]string{"name": e.name(), "property": name, "value": v.value, "source": v.source}[field]
		if !ok {
			return unknown("column %q of zfs get", field)
		}
		fields = append(fields, text)
	}
	c.stdout.WriteString(strings.Join(fields, "\t") + "\n")
	return nil
}
