package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (z *ZFS) send(c *call) error {
	h, offset, s, base, err := z.sendWhat(c)
	if err != nil {
		return err
	}
	body, err := z.bodyOf(s)
	if err != nil {
		return err
	}
	left := s.state.sizeWithout(base) * int64(len(body)-min(offset, len(body))) / int64(len(body))
	if c.has('n') != c.has('P') {
		return unknown("%s", c.cmd)
	}
	if c.has('n') {
		z.estimate(c, h, left, s)
		return nil
	}
	if s.of.locked() && h.Raw == nil {
		return fail("warning: cannot send '%s': dataset key must be loaded", s.full())
	}
	h.Offset = offset
	stream, err := encode(h, body)
	if err != nil {
		return err
	}
	c.stdout.Write(stream)
	s.sending++
	c.sent = s
	return nil
}

// release ends what is busy while a command's output is written.
func (z *ZFS) release(c *call) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if c.sent != nil {
		c.sent.sending--
	}
}

// bodyOf packs the tree of a snapshot.
func (z *ZFS) bodyOf(s *snapshot) ([]byte, error) {
	nodes, err := pack(s.root(), all)
	if err != nil {
		return nil, err
	}
	return packBody(nodes)
}

// sendWhat finds what a send is of: its header, where it begins, and its base.
func (z *ZFS) sendWhat(c *call) (h header, offset int, s *snapshot, base state, err error) {
	if c.has('t') {
		if len(c.args) > 0 || c.has('i') || c.has('p') {
			return h, 0, nil, nil, unknown("%s", c.cmd)
		}
		return z.resumeWhat(c, c.value('t', ""))
	}
	if len(c.args) != 1 || !strings.Contains(c.args[0], "@") {
		return h, 0, nil, nil, unknown("%s", c.cmd)
	}
	if s, err = z.openSnapshot(c.args[0]); err != nil {
		return h, 0, nil, nil, err
	}
	h = header{Name: s.full(), To: s.guid, Creation: s.creation}
	if c.has('i') {
		if h.From, base, err = z.baseOf(c, s, c.value('i', "")); err != nil {
			return h, 0, nil, nil, err
		}
	}
	if c.has('p') {
		h.WithProps, h.SnapProps = true, pairs(s.props)
		all := maps.Clone(s.of.received)
		maps.Copy(all, s.of.props)
		h.Props = pairs(all)
	}
	switch l := s.of.lock; {
	case l != nil && c.has('p') && !c.has('w'):
		return h, 0, nil, nil, fail("cannot send %[1]s: encrypted dataset %[2]s may not be sent with properties without the raw flag\nwarning: cannot send '%[1]s': backup failed", s.full(), s.of.name)
	case l != nil && c.has('w'):
		h.Raw = &sealed{l.cipher, l.format, l.key}
	}
	return h, 0, s, base, nil
}

func pairs(props map[string]string) (all [][2]string) {
	for _, name := range slices.Sorted(maps.Keys(props)) {
		all = append(all, [2]string{name, props[name]})
	}
	return all
}

// baseOf finds the snapshot or bookmark that an incremental stream starts from.
func (z *ZFS) baseOf(c *call, s *snapshot, from string) (guid uint64, base state, err error) {
	if !strings.ContainsAny(from, "@#") {
		return 0, nil, unknown("send -i %s", from)
	}
	if from[0] == '@' || from[0] == '#' {
		from = s.of.name + from
	}
	what := "warning: cannot send '" + s.full() + "'"
	e, ok := z.find(from)
	switch {
	case strings.Contains(from, "@") && !ok:
		return 0, nil, fail("cannot open '%s': %s", from, absent)
	case !ok && c.has('n'):
		return 0, nil, fail("%s: No such process", what)
	case !ok:
		return 0, nil, fail("%s: incremental source (%s) does not exist", what, from)
	case e.identity().createtxg >= s.createtxg || !z.isBefore(e, s):
		return 0, nil, fail("%s: not an earlier snapshot from the same fs", what)
	}
	if e.snap != nil {
		return e.snap.guid, e.snap.state, nil
	}
	for _, other := range e.mark.of.snapshots {
		if other.guid == e.mark.guid {
			base = other.state
		}
	}
	return e.mark.guid, base, nil
}

// isBefore reports whether an entity is in the history of a snapshot.
func (z *ZFS) isBefore(e entity, s *snapshot) bool {
	for d := s.of; d != nil; d = d.origin.of {
		if e.home() == d {
			return true
		}
		if d.origin == nil {
			return false
		}
	}
	return false
}

// resumeWhat finds what a token asks for.
func (z *ZFS) resumeWhat(c *call, token string) (h header, offset int, s *snapshot, base state, err error) {
	told, offset, err := parseToken(token)
	if err != nil {
		return h, 0, nil, nil, err
	}
	if c.has('P') {
		told.describe(c, offset)
	}
	e, ok := z.find(told.Name)
	switch p := z.poolOf(told.Name); {
	case p != nil && p.suspended:
		return h, 0, nil, nil, unknown("send -t from a suspended pool")
	case ok && e.snap.guid == told.To:
	case z.hasGUID(told.To) && told.From != 0 && c.has('n'): // it takes the copy, which does not have the base
		return h, 0, nil, nil, resumeFailure("Invalid cross-device link")
	case z.hasGUID(told.To):
		return h, 0, nil, nil, unknown("a token of a snapshot that has another name now")
	case !ok:
		return h, 0, nil, nil, resumeFailure("'%s' used in the initial send no longer exists", told.Name)
	default:
		return h, 0, nil, nil, resumeFailure("'%s' is no longer the same snapshot used in the initial send", told.Name)
	}
	s = e.snap
	h = header{Name: s.full(), To: s.guid, From: told.From, Creation: s.creation}
	if l := s.of.lock; l != nil && told.Raw != nil {
		h.Raw = &sealed{l.cipher, l.format, l.key}
	}
	if told.From == 0 {
		return h, offset, s, nil, nil
	}
	for _, other := range s.of.snapshots {
		if other.guid == told.From {
			return h, offset, s, other.state, nil
		}
	}
	for _, b := range s.of.bookmarks {
		if b.guid == told.From {
			return h, offset, s, nil, nil
		}
	}
	return h, 0, nil, nil, resumeFailure("incremental source %#x no longer exists", told.From)
}

// hasGUID reports whether any snapshot has a guid.
func (z *ZFS) hasGUID(guid uint64) bool {
	for _, d := range z.sets {
		if slices.ContainsFunc(d.snapshots, func(s *snapshot) bool { return s.guid == guid }) {
			return true
		}
	}
	return false
}

// resumeFailure is fail for "send -t", which exits in a way of its own.
func resumeFailure(format string, args ...any) error {
	return &failure{text: "cannot resume send: " + fmt.Sprintf(format, args...), code: 255}
}

// describe is what -nP says of a token.
func (h header) describe(c *call, offset int) {
	fmt.Fprintf(&c.stdout, "resume token contents:\nnvlist version: 0\n")
	if h.From != 0 {
		fmt.Fprintf(&c.stdout, "\tfromguid = %#x\n", h.From)
	}
	fmt.Fprintf(&c.stdout, "\tobject = %#x\n\toffset = %#x\n\tbytes = %#x\n\ttoguid = %#x\n\ttoname = %s\n", 2, offset, offset, h.To, h.Name)
}

// estimate is what -nP says of a stream.
func (z *ZFS) estimate(c *call, h header, bytes int64, s *snapshot) {
	from := ""
	if c.has('t') {
		from = z.nameOf(h.From, s.of)
	} else if c.has('i') {
		from = c.value('i', "")
		if from[0] == '@' || from[0] == '#' {
			from = s.of.name + from
		}
	}
	if from != "" {
		fmt.Fprintf(&c.stdout, "incremental\t%s\t%s\t%d\n", from, s.full(), bytes)
	} else {
		fmt.Fprintf(&c.stdout, "full\t%s\t%d\n", s.full(), bytes)
	}
	fmt.Fprintf(&c.stdout, "size\t%d\n", bytes)
}

// nameOf is the snapshot or bookmark of d with a guid.
func (z *ZFS) nameOf(guid uint64, d *dataset) string {
	for _, s := range d.snapshots {
		if s.guid == guid {
			return s.full()
		}
	}
	for _, b := range d.bookmarks {
		if b.guid == guid {
			return b.full()
		}
	}
	return ""
}
