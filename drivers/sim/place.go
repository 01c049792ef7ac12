package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// control is the directory of a file system through which its snapshots are seen.
const control = ".zfs"

// placeOf is where a dataset keeps what is not mounted: its contents as "data", and its snapshots as "snapshot/<name>".
func (z *ZFS) placeOf(d *dataset) string {
	return filepath.Join(z.hidden, strconv.FormatUint(d.object, 10))
}

func (d *dataset) makeStore() error {
	return errors.Join(os.MkdirAll(filepath.Join(d.place, "snapshot"), 0o755), os.Mkdir(filepath.Join(d.place, "data"), 0o755))
}

// root is where the contents are now.
func (d *dataset) root() string {
	if d.mountedAt != "" {
		return d.mountedAt
	}
	return filepath.Join(d.place, "data")
}

func (s *snapshot) root() string { return filepath.Join(s.of.place, "snapshot", s.name) }

// mountpoint is where a file system ought to be mounted; "" for none and legacy.
func (z *ZFS) mountpoint(d *dataset) string {
	at := z.lookup(entity{set: d}, "mountpoint").value
	if !filepath.IsAbs(at) {
		return ""
	}
	return at
}

// mountIfWanted mounts what the tool mounts by itself.
func (z *ZFS) mountIfWanted(d *dataset) error {
	if d.mountedAt != "" || d.unborn || z.mountpoint(d) == "" || z.lookup(entity{set: d}, "canmount").value != "on" || d.locked() {
		return nil
	}
	return z.mount(d)
}

// mount moves the contents to the mountpoint.
func (z *ZFS) mount(d *dataset) error {
	at := z.mountpoint(d)
	if !strings.HasPrefix(at, z.dir+"/") {
		return unknown("mountpoint %s of %s outside of %s", at, d.name, z.dir)
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := os.Remove(at); err != nil { // only if it is empty: nothing can be mounted over contents here
		return unknown("mount of %s over what is in %s: %w", d.name, at, err)
	}
	if err := os.Rename(d.root(), at); err != nil {
		return err
	}
	d.mountedAt = at
	return z.link(d)
}

// unmount moves the contents away and leaves the empty mountpoint. Nothing may be mounted below it.
func (z *ZFS) unmount(d *dataset) error {
	if d.mountedAt == "" {
		return nil
	}
	at := d.mountedAt
	if err := keepTime(at, func() error { return removeLink(at) }); err != nil {
		return err
	}
	if err := os.Rename(at, filepath.Join(d.place, "data")); err != nil {
		return err
	}
	d.mountedAt = ""
	return os.Mkdir(at, 0o755)
}

// within are the mounted file systems whose mountpoints are in that of d or below, the deepest first, d last.
func (z *ZFS) within(d *dataset) []*dataset {
	var all []*dataset
	for _, other := range z.sets {
		if other.mountedAt != "" && (other == d || strings.HasPrefix(other.mountedAt, d.mountedAt+"/")) {
			all = append(all, other)
		}
	}
	slices.SortFunc(all, func(a, b *dataset) int { return strings.Compare(b.mountedAt, a.mountedAt) })
	return all
}

// links gives every mounted file system its control directory again: it is a link, and tests that empty a file system
// remove it.
func (z *ZFS) links() error {
	for _, d := range z.sets {
		if d.mountedAt != "" {
			if err := z.link(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (z *ZFS) link(d *dataset) error {
	at := filepath.Join(d.mountedAt, control)
	if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return keepTime(d.mountedAt, func() error { return os.Symlink(d.place, at) })
}

func removeLink(dir string) error {
	err := os.Remove(filepath.Join(dir, control))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// keepTime runs change, which adds or removes an entry of dir, and leaves its time of modification as it was.
func keepTime(dir string, change func() error) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return errors.Join(change(), os.Chtimes(dir, time.Time{}, info.ModTime()))
}

// removeMountpoint removes the directory of what is gone or mounted elsewhere, if it is empty.
func removeMountpoint(at string) {
	_ = os.Remove(at) // as the tool does: what is in the way stays
}

// skip tells what does not belong to the contents of a file system: its control directory, and those that are mounted in it.
// A copy has an empty directory in the place of the latter.
func (z *ZFS) skip(d *dataset) func(path string) (skipped, mounted bool) {
	mounts := make(map[string]bool)
	for _, other := range z.sets {
		if other != d && other.mountedAt != "" {
			mounts[other.mountedAt] = true
		}
	}
	root := d.root()
	return func(path string) (skipped, mounted bool) {
		return path == filepath.Join(root, control) || mounts[path], mounts[path]
	}
}

// replace puts the contents of a tree in the place of those of a file system.
func (z *ZFS) replace(d *dataset, with string) error {
	mounted := z.within(d)
	if d.mountedAt == "" {
		mounted = nil
	}
	for _, m := range mounted {
		if err := z.unmount(m); err != nil {
			return err
		}
	}
	data := filepath.Join(d.place, "data")
	if err := removeTree(data); err != nil {
		return err
	}
	if err := copyTree(with, data, all); err != nil {
		return err
	}
	for _, m := range reversed(mounted) {
		if err := z.mount(m); err != nil {
			return fmt.Errorf("sim: mount again: %w", err)
		}
	}
	var err error
	d.last, err = z.stateOf(d)
	return err
}

// drop removes all that a file system has on disk.
func (z *ZFS) drop(d *dataset) error {
	if err := z.unmount(d); err != nil {
		return err
	}
	if at := z.mountpoint(d); at != "" {
		removeMountpoint(at)
	}
	delete(z.sets, d.name)
	return removeTree(d.place)
}
