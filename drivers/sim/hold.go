package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// held finds the snapshots that a hold or release is about, and warns of what is not there.
func (z *ZFS) held(c *call, verb string) ([]*snapshot, error) {
	var found []*snapshot
	for _, full := range c.args[1:] {
		at, name, ok := strings.Cut(full, "@")
		if !ok {
			c.warn("'%s' is not a snapshot", full)
			continue
		}
		d, err := z.openSet(at)
		if f, ok := err.(*failure); ok {
			c.warn("%s", f.text)
			continue
		}
		if err != nil {
			return nil, err
		}
		s := d.snapshot(name)
		if s == nil {
			c.warn("cannot %s snapshot '%s': %s", map[string]string{"hold": "hold", "release": "release hold from"}[verb], full, absent)
			continue
		}
		found = append(found, s)
	}
	return found, nil
}

func (z *ZFS) hold(c *call) error {
	tag := c.args[0]
	if strings.HasPrefix(tag, ".") || len(tag) > 200 {
		return unknown("the tag %q", tag)
	}
	found, err := z.held(c, "hold")
	if err != nil {
		return err
	}
	for _, s := range found {
		if err := z.guard("cannot hold", s.full()); err != nil {
			c.warn("%s", err)
			continue
		}
		if _, ok := s.holds[tag]; ok {
			c.warn("cannot hold snapshot '%s': tag already exists on this dataset", s.full())
			continue
		}
		s.holds[tag] = stamp()
	}
	return nil
}

func (z *ZFS) unhold(c *call) error {
	tag := c.args[0]
	found, err := z.held(c, "release")
	if err != nil {
		return err
	}
	for _, s := range found {
		if err := z.guard("cannot release", s.full()); err != nil {
			c.warn("%s", err)
			continue
		}
		if _, ok := s.holds[tag]; !ok {
			c.warn("cannot release hold from snapshot '%s': no such tag on this dataset", s.full())
			continue
		}
		delete(s.holds, tag)
		if err := z.removeDeferred(s); err != nil {
			return err
		}
	}
	return nil
}

func (z *ZFS) holds(c *call) error {
	if !c.has('H') {
		return unknown("%s", c.cmd)
	}
	for _, full := range c.args {
		s, err := z.openSnapshot(full)
		if f, ok := err.(*failure); ok && len(c.args) == 1 {
			return fail("%s\nno datasets available", f.text)
		}
		if err != nil {
			return unknown("zfs holds of several, with %w", err)
		}
		for _, tag := range slices.Sorted(maps.Keys(s.holds)) {
			at := time.Unix(s.holds[tag], 0).UTC().Format("Mon Jan _2 15:04 2006")
			fmt.Fprintf(&c.stdout, "%s\t%s\t%s\n", full, tag, at)
		}
	}
	return nil
}

func (z *ZFS) bookmark(c *call) error {
	from, to := c.args[0], c.args[1]
	e, err := z.open(from, snapshotKind|bookmarkKind)
	if f, ok := err.(*failure); ok {
		return &failure{text: f.text + "\n" + bookmarkUsage, code: 2}
	}
	if err != nil {
		return err
	}
	d := e.home()
	if strings.HasPrefix(to, "#") {
		to = d.name + to
	}
	what := "cannot create bookmark '" + to + "'"
	at, name, ok := strings.Cut(to, "#")
	switch {
	case !ok || checkName(to, bookmarkKind) != nil:
		return unknown("the bookmark name %q", to)
	case at != d.name:
		return fail("%s: source is not an ancestor of the new bookmark's dataset", what)
	case d.bookmark(name) != nil:
		return fail("%s: bookmark exists", what)
	}
	if err := z.guard(what, to); err != nil {
		return err
	}
	b := &bookmark{of: d, name: name, identity: e.identity(), referenced: z.space(e, "referenced")}
	d.bookmarks = append(d.bookmarks, b)
	return nil
}
