package sim

import (
	"fmt"
	"slices"
	"strings"
)

// receiving is one stream on its way into a file system.
type receiving struct {
	*header
	body []byte
	flaw flaw
	set  []setting // -o
	name string    // of the file system
	snap string    // of the snapshot in it
	to   *dataset  // nil: it is to be made
	what string
}

func (z *ZFS) receive(c *call) error {
	if c.has('A') {
		return z.abandon(c)
	}
	for _, word := range c.opts['o'] {
		if name, _, _ := strings.Cut(word, "="); properties[name].readonly {
			return fail("cannot receive: invalid property '%s'", name)
		}
	}
	set, err := settings(c.opts['o'], filesystem, true, "cannot receive")
	if err != nil {
		return err
	}
	if p := z.poolOf(c.args[0]); p != nil && p.suspended {
		return unknown("a receive into a suspended pool")
	}
	r := &receiving{set: set}
	r.header, r.body, r.flaw = decode(c.stdin)
	switch {
	case r.header == nil && r.flaw == foreign:
		return fail("cannot receive: invalid stream (bad magic number)")
	case r.header == nil:
		return fail("cannot receive: failed to read from stream")
	}
	var named bool
	r.name, r.snap, named = strings.Cut(c.args[0], "@")
	if !named {
		_, r.snap, _ = strings.Cut(r.Name, "@")
	}
	r.to = z.sets[r.name]
	if err := r.check(z, c); err != nil {
		return err
	}
	if done, err := r.begin(z, c); done || err != nil {
		return err
	}
	if err := r.checkQuota(z, c); err != nil {
		return err
	}
	if r.flaw != sound {
		return r.breakOff(z, c)
	}
	return r.finish(z, c)
}

// resumes reports whether the stream goes on where another one broke off.
func (r *receiving) resumes() bool { return r.Offset > 0 }

// check refuses what libzfs refuses before it asks the kernel.
func (r *receiving) check(z *ZFS, c *call) error {
	r.what = "cannot receive new filesystem stream"
	if r.From != 0 || r.resumes() {
		r.what = "cannot receive incremental stream"
	}
	if r.resumes() {
		r.what = "cannot receive resume stream"
	}
	fresh := r.From == 0 && !r.resumes()
	switch {
	case r.to != nil && fresh && !c.has('F'):
		return fail("%s: destination '%s' exists\nmust specify -F to overwrite it", r.what, r.name)
	case r.to != nil && fresh && len(r.to.snapshots) > 0:
		return fail("%s: destination has snapshots (eg. %s)\nmust destroy them to overwrite it", r.what, r.to.snapshots[0].full())
	case r.to != nil && fresh && r.to.origin != nil:
		return fail("%s: destination '%s' is a clone\nmust destroy it to overwrite it", r.what, r.name)
	case r.to != nil && fresh && (r.to.lock != nil || r.Raw != nil):
		return fail("%s: zfs receive -F cannot be used to destroy an encrypted filesystem or overwrite an unencrypted one with an encrypted one", r.what)
	case r.to == nil && (!fresh || !strings.Contains(r.name, "/")):
		return fail("%s: destination '%s' does not exist", r.what, r.name)
	}
	if r.to != nil {
		return nil
	}
	up := r.name[:strings.LastIndexByte(r.name, '/')]
	if z.sets[up] == nil {
		return fail("cannot open '%s': %s\n%s: unable to restore to destination", up, absent, r.what)
	}
	return nil
}

// begin refuses what the kernel refuses. done means that the snapshot is there already.
func (r *receiving) begin(z *ZFS, c *call) (done bool, err error) {
	if err := z.guard(r.what, r.name); err != nil {
		return false, err
	}
	if r.to == nil {
		return false, nil
	}
	if p := r.to.partial; p != nil && !r.resumes() {
		return false, fail("%s: destination %s contains partially-complete state from \"zfs receive -s\".", r.what, r.name)
	} else if r.resumes() && (p == nil || p.To != r.To || len(p.body) != r.Offset) {
		return false, fail("%s: kernel modules must be upgraded to receive this stream.", r.what)
	}
	if r.From == 0 {
		return false, nil
	}
	if r.to.snapshot(r.snap) != nil {
		if slices.ContainsFunc(r.to.snapshots, func(s *snapshot) bool { return s.guid == r.To }) {
			return true, nil
		}
		return false, fail("cannot restore to %s@%s: destination already exists", r.name, r.snap)
	}
	at := slices.IndexFunc(r.to.snapshots, func(s *snapshot) bool { return s.guid == r.From })
	if at < 0 {
		return false, fail("%s: most recent snapshot of %s does not\nmatch incremental source", r.what, r.name)
	}
	if c.has('F') {
		return false, nil
	}
	if !r.to.last.equal(z.now(r.to)) || r.to.snapshots[at].createtxg < r.to.lastChange() {
		return false, fail("%s: destination %s has been modified\nsince most recent snapshot", r.what, r.name)
	}
	return false, nil
}

// lastChange is the point in time of the first snapshot that has the contents as they were at the latest one.
func (d *dataset) lastChange() uint64 {
	for i := len(d.snapshots) - 1; i > 0; i-- {
		now, before := d.snapshots[i].state, d.snapshots[i-1].state
		if len(now) != len(before) || now.sizeWithout(before) > 0 {
			return d.snapshots[i].createtxg
		}
	}
	return 0
}

// checkQuota refuses what a quota above leaves no room for.
func (r *receiving) checkQuota(z *ZFS, c *call) error {
	up := z.sets[r.name[:max(0, strings.LastIndexByte(r.name, '/'))]]
	if r.to != nil || up == nil || int64(len(r.body)) <= z.room(up) {
		return nil
	}
	if c.has('s') {
		if err := r.create(z); err != nil {
			return err
		}
		r.to.unborn, r.to.partial = true, &partial{header: *r.header}
	}
	return fail("%s: destination %s space quota exceeded.", r.what, r.name)
}

// breakOff keeps what has arrived, if that was asked for.
func (r *receiving) breakOff(z *ZFS, c *call) error {
	reason := "incomplete stream"
	if r.flaw == damaged {
		reason = "checksum mismatch"
	}
	if !c.has('s') || len(r.body) == 0 && !r.resumes() {
		if r.resumes() && !c.has('s') {
			return unknown("a stream that resumes, breaks off and is not to be kept")
		}
		return fail("%s: %s", r.what, reason)
	}
	if r.to == nil {
		if err := r.create(z); err != nil {
			return err
		}
		r.to.unborn = true
	}
	if r.to.partial == nil {
		r.to.partial = &partial{header: *r.header}
	}
	r.to.partial.body = append(r.to.partial.body, r.body...)
	return fail("%s: checksum mismatch or incomplete stream.\nPartially received snapshot is saved.\nA resuming stream can be generated on the sending system by running:\n    zfs send -t %s",
		r.what, r.to.resumeToken())
}

// create makes the metadata of a new file system.
func (r *receiving) create(z *ZFS) error {
	up := z.sets[r.name[:strings.LastIndexByte(r.name, '/')]]
	d, err := z.build(r.name, nil, r.set, nil, r.what)
	if err != nil {
		return err
	}
	if r.Raw != nil {
		d.lock = &lock{root: d, cipher: r.Raw.Cipher, format: r.Raw.Format, key: r.Raw.Key}
	} else if up.lock != nil {
		d.lock = up.lock
	}
	r.to = d
	return d.makeStore()
}

// finish makes the snapshot, and the file system equal to it.
func (r *receiving) finish(z *ZFS, c *call) error {
	if p := z.partialOf(r.to); p != nil {
		r.body = append(p.body, r.body...)
		r.header = &p.header
	}
	nodes, err := unpackBody(r.body)
	if err != nil {
		return err
	}
	if r.to == nil {
		if err := r.create(z); err != nil {
			return err
		}
		r.to.unborn = true
	}
	d := r.to
	mountLater := d.unborn
	if c.has('F') {
		if err := r.dropNewer(z); err != nil {
			return err
		}
	}
	d.unborn, d.partial = false, nil
	if r.WithProps {
		for _, pair := range r.Props {
			if !slices.Contains(c.opts['x'], pair[0]) {
				d.received[pair[0]] = pair[1]
			}
		}
	}
	s := &snapshot{of: d, name: r.snap, identity: identity{guid: r.To, createtxg: z.txg, creation: r.Creation}, holds: make(map[string]int64), props: make(map[string]string), received: make(map[string]string)}
	for _, pair := range r.SnapProps {
		s.received[pair[0]] = pair[1]
	}
	if err := unpack(nodes, s.root()); err != nil {
		return err
	}
	if s.state, err = look(s.root(), all); err != nil {
		return err
	}
	d.snapshots = append(d.snapshots, s)
	if err := z.replace(d, s.root()); err != nil {
		return err
	}
	r.limit(z, c)
	if mountLater && !c.has('u') {
		return z.mountIfWanted(d)
	}
	return nil
}

// limit sets limits last. One that what has come exceeds is not set, and that is no failure.
func (r *receiving) limit(z *ZFS, c *call) {
	delete(z.seen, r.to)
	for _, s := range r.set {
		if properties[s.name].counts != size {
			r.to.props[s.name] = s.value
			continue
		}
		delete(r.to.props, s.name)
		if err := z.checkLimits(r.to, s); err != nil {
			fmt.Fprintf(&c.stderr, "cannot receive %s property on %s: %v\n", s.name, r.name, err)
			continue
		}
		r.to.props[s.name] = s.value
	}
}

// dropNewer removes what a forced stream replaces.
func (r *receiving) dropNewer(z *ZFS) error {
	at := slices.IndexFunc(r.to.snapshots, func(s *snapshot) bool { return s.guid == r.From })
	for _, s := range slices.Clone(r.to.snapshots)[at+1:] {
		if len(s.holds) > 0 || len(z.clones(s)) > 0 {
			return unknown("receive -F over what is cloned or held")
		}
		if err := z.remove(s); err != nil {
			return err
		}
	}
	return nil
}

func (z *ZFS) partialOf(d *dataset) *partial {
	if d == nil {
		return nil
	}
	return d.partial
}

// abandon throws away what a receive that broke off has left.
func (z *ZFS) abandon(c *call) error {
	d, err := z.openSet(c.args[0])
	if f, ok := err.(*failure); ok {
		return &failure{text: f.text + "\n" + receiveUsage, code: 2}
	}
	if err != nil {
		return err
	}
	switch {
	case d.partial == nil:
		return fail("'%s' does not have any resumable receive state to abort", d.name)
	case d.unborn:
		return z.drop(d)
	}
	d.partial = nil
	return nil
}
