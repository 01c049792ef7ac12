package sim

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// identity is what every named thing has.
type identity struct {
	guid      uint64
	createtxg uint64
	creation  int64 // Unix seconds
}

// dataset is a file system.
type dataset struct {
	name string
	identity
	object    uint64            // names its place below ZFS.hidden, whatever its name
	props     map[string]string // set here
	received  map[string]string // that came with a stream
	shadowed  map[string]bool   // received, but inherited nevertheless
	snapshots []*snapshot       // oldest first
	bookmarks []*bookmark
	origin    *snapshot
	lock      *lock    // its key, shared with those that inherit it; nil if it is not encrypted
	partial   *partial // of a receive that broke off
	unborn    bool     // nothing but what a first receive has left
	last      state    // of its contents when they were last equal to those of the latest snapshot
	where
}

// where is where the contents of a file system are.
type where struct {
	place     string // on disk, with its snapshots, while it is not mounted
	mountedAt string // "" while it is not mounted
	occupied  bool   // as by an open file
}

// snapshot is a file system at a point in time.
type snapshot struct {
	of   *dataset
	name string // without the file system's
	identity
	props    map[string]string
	received map[string]string
	holds    map[string]int64 // tag -> Unix seconds
	deferred bool             // to be destroyed when nothing needs it any more
	sending  int              // streams that are being written
	state    state
}

// bookmark is what is left of a snapshot to start a stream from.
type bookmark struct {
	of   *dataset
	name string
	identity
	referenced int64
}

func (s *snapshot) full() string { return s.of.name + "@" + s.name }
func (b *bookmark) full() string { return b.of.name + "#" + b.name }

func (z *ZFS) newIdentity() identity {
	return identity{guid: z.next(), createtxg: z.txg, creation: stamp()}
}

func (z *ZFS) newDataset(name string) *dataset {
	d := &dataset{name: name, identity: z.newIdentity(), object: z.next(), props: make(map[string]string), received: make(map[string]string), shadowed: make(map[string]bool)}
	d.place = z.placeOf(d)
	return d
}

func (d *dataset) snapshot(name string) *snapshot {
	at := slices.IndexFunc(d.snapshots, func(s *snapshot) bool { return s.name == name })
	if at < 0 {
		return nil
	}
	return d.snapshots[at]
}

func (d *dataset) bookmark(name string) *bookmark {
	at := slices.IndexFunc(d.bookmarks, func(b *bookmark) bool { return b.name == name })
	if at < 0 {
		return nil
	}
	return d.bookmarks[at]
}

// latest is the most recent snapshot, or nil.
func (d *dataset) latest() *snapshot {
	if len(d.snapshots) == 0 {
		return nil
	}
	return d.snapshots[len(d.snapshots)-1]
}

// entity is anything that has a name: one of its fields is set.
type entity struct {
	set  *dataset
	snap *snapshot
	mark *bookmark
}

func (e entity) name() string {
	switch {
	case e.snap != nil:
		return e.snap.full()
	case e.mark != nil:
		return e.mark.full()
	}
	return e.set.name
}

func (e entity) kind() kinds {
	switch {
	case e.snap != nil:
		return snapshotKind
	case e.mark != nil:
		return bookmarkKind
	}
	return filesystem
}

func (e entity) identity() identity {
	switch {
	case e.snap != nil:
		return e.snap.identity
	case e.mark != nil:
		return e.mark.identity
	}
	return e.set.identity
}

// props are those that are set on the entity itself.
func (e entity) props() map[string]string {
	switch {
	case e.snap != nil:
		return e.snap.props
	case e.mark != nil:
		return nil
	}
	return e.set.props
}

// home is the file system that an entity is, or is of.
func (e entity) home() *dataset {
	switch {
	case e.snap != nil:
		return e.snap.of
	case e.mark != nil:
		return e.mark.of
	}
	return e.set
}

// find looks a name up.
func (z *ZFS) find(name string) (entity, bool) {
	at := strings.IndexAny(name, "@#")
	if at < 0 {
		d := z.sets[name]
		return entity{set: d}, d != nil
	}
	d := z.sets[name[:at]]
	if d == nil {
		return entity{}, false
	}
	if name[at] == '@' {
		s := d.snapshot(name[at+1:])
		return entity{snap: s}, s != nil
	}
	b := d.bookmark(name[at+1:])
	return entity{mark: b}, b != nil
}

// open is find with the words of zfs for what it does not find.
func (z *ZFS) open(name string, want kinds) (entity, error) {
	if err := checkName(name, want); err != nil {
		return entity{}, refuse("cannot open '"+name+"'", err)
	}
	if p := z.poolOf(name); p != nil && p.suspended {
		return entity{}, fail("cannot open '%s': %s", name, suspended)
	}
	e, ok := z.find(name)
	if set, _, isMark := strings.Cut(name, "#"); !ok && isMark && z.sets[set] != nil {
		return entity{}, fail("cannot open '%s': no such pool or dataset", name)
	}
	if !ok {
		return entity{}, fail("cannot open '%s': %s", name, absent)
	}
	if e.kind()&want == 0 {
		return entity{}, unknown("%s, which is a %s", name, e.kind())
	}
	return e, nil
}

const (
	absent    = "dataset does not exist"
	suspended = "pool I/O is currently suspended"
)

func (z *ZFS) openSet(name string) (*dataset, error) {
	e, err := z.open(name, filesystem)
	return e.set, err
}

func (z *ZFS) openSnapshot(name string) (*snapshot, error) {
	e, err := z.open(name, snapshotKind)
	return e.snap, err
}

// parent is the file system above, or nil for the root of a pool.
func (z *ZFS) parent(d *dataset) *dataset {
	at := strings.LastIndexByte(d.name, '/')
	if at < 0 {
		return nil
	}
	return z.sets[d.name[:at]]
}

// below are the file system of that name and all below it, in order of name.
func (z *ZFS) below(name string) []*dataset {
	var all []*dataset
	for _, d := range z.sets {
		if d.name == name || strings.HasPrefix(d.name, name+"/") {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b *dataset) int { return strings.Compare(a.name, b.name) })
	return all
}

// children are the file systems right below.
func (z *ZFS) children(d *dataset) []*dataset {
	return slices.DeleteFunc(z.below(d.name), func(child *dataset) bool { return z.parent(child) != d })
}

// clones are the file systems that were cloned from a snapshot, oldest first.
func (z *ZFS) clones(s *snapshot) []*dataset {
	clones := slices.DeleteFunc(slices.Collect(maps.Values(z.sets)), func(d *dataset) bool { return d.origin != s })
	slices.SortFunc(clones, func(a, b *dataset) int { return cmp.Compare(a.object, b.object) })
	return clones
}

func (z *ZFS) poolOf(name string) *pool {
	end := strings.IndexAny(name, "/@#")
	if end < 0 {
		end = len(name)
	}
	p := z.pools[name[:end]]
	if p == nil || p.gone != nil {
		return nil
	}
	return p
}

func reversed[T any](all []T) []T {
	all = slices.Clone(all)
	slices.Reverse(all)
	return all
}

// checkName refuses names as zfs does.
func checkName(name string, want kinds) error {
	at := strings.IndexAny(name, "@#")
	set := name
	if at >= 0 {
		set = name[:at]
	}
	for _, r := range name {
		if !strings.ContainsRune("/@#-_.: ", r) && (r > 'z' || r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a') {
			return fail("invalid character '%c' in name", r)
		}
	}
	switch {
	case at >= 0 && want == filesystem && name[at] == '@':
		return fail("snapshot delimiter '@' is not expected here")
	case at >= 0 && want == filesystem:
		return unknown("the name %s for a file system", name)
	case at < 0 && want == snapshotKind:
		return fail("missing '@' delimiter in snapshot name")
	case strings.HasPrefix(set, "/"):
		return fail("leading slash in name")
	case strings.HasSuffix(set, "/"):
		return fail("trailing slash in name")
	case strings.Contains(set, "//"):
		return fail("empty component or misplaced '@' or '#' delimiter in name")
	case at >= 0 && (at == len(name)-1 || strings.ContainsAny(name[at+1:], "@#/")), name == "", len(name) > 255:
		return unknown("the name %q", name)
	}
	return nil
}

// refuse puts what was being done before the reason, if err is one that zfs gives.
func refuse(what string, err error) error {
	if f, ok := err.(*failure); ok {
		return &failure{text: what + ": " + f.text, code: f.code}
	}
	return err
}
