package dir

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Receive builds a snapshot aside, out of the base's files and what the stream brings, and places it last. The files that two
// received snapshots have in common are the same on disk: nobody writes to a snapshot. A replica that comes into being has the
// snapshot's data; that of one which is there stays as it is, and Revert makes it equal to the snapshot.
func (p *Pool) Receive(ctx context.Context, spec drivers.ReceiveSpec, r io.Reader) error {
	return change(ctx, p, spec.ID, "receive", func(o *op) error {
		for _, snap := range []cairn.SnapshotID{spec.Snapshot, spec.Base} {
			if snap != "" || snap == spec.Snapshot {
				if err := cairn.CheckName("snapshot", string(snap)); err != nil {
					return err
				}
			}
		}
		f, err := o.look()
		if err == nil && f.ready() {
			return o.receiveInto(&f, spec, r)
		}
		if err != nil && !errors.Is(err, cairn.ErrNotFound) {
			return err
		}
		if spec.Base != "" {
			return fmt.Errorf("base %s: the replica is not there: %w", spec.Base, cairn.ErrPrecondition)
		}
		want := mark{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, State: stateReady, Order: []cairn.SnapshotID{spec.Snapshot}}
		_, err = o.make(spec.CreateSpec, &want, func(data string) error {
			tree := filepath.Join(filepath.Dir(data), "snapshots", string(spec.Snapshot))
			if err := o.unpack(spec, "", tree, r); err != nil {
				return err
			}
			return o.copyAside(tree, data, want.Project)
		})
		return err
	})
}

func (o *op) receiveInto(f *found, spec drivers.ReceiveSpec, r io.Reader) error {
	if err := o.admit(f, spec.Epoch); err != nil {
		return err
	}
	switch err := o.checkSnapshot(o.id, spec.Snapshot); {
	case err == nil:
		return nil
	case !errors.Is(err, cairn.ErrNotFound):
		return err
	case spec.Base == "":
		return fmt.Errorf("a stream of everything, for a replica that is there: %w", cairn.ErrExists)
	}
	switch err := o.checkSnapshot(o.id, spec.Base); {
	case errors.Is(err, cairn.ErrNotFound):
		return fmt.Errorf("base %s: is not here: %w", spec.Base, cairn.ErrPrecondition)
	case err != nil:
		return fmt.Errorf("base: %w", err)
	}
	work := o.snapshotWork(o.id, spec.Snapshot)
	err := o.removeTree(work)
	if err == nil {
		err = o.unpack(spec, o.snapshot(o.id, spec.Base), work, r)
	}
	if err == nil {
		err = o.append(f, spec.Snapshot)
	}
	if err != nil {
		return o.undo(err, func() error { return o.removeTree(work) })
	}
	return o.rename("COMMIT place snapshot", work, o.snapshot(o.id, spec.Snapshot))
}

// Partial is always empty: a stream that broke off begins anew.
func (p *Pool) Partial(context.Context, cairn.ReplicaID) (string, cairn.SnapshotID, error) {
	return "", "", nil
}

// Abandon has nothing to throw away that the next Receive would not. It keeps the epoch, as every change does.
func (p *Pool) Abandon(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return change(ctx, p, id, "abandon", func(o *op) error {
		f, err := o.look()
		if errors.Is(err, cairn.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return o.admit(&f, epoch)
	})
}

// unpacking is one stream on its way into the directory to.
type unpacking struct {
	*op
	to      string
	dirs    []*tar.Header // their attributes come last
	known   map[string]bool
	entries int
}

// unpack makes the tree to of the base and a stream, durably.
func (o *op) unpack(spec drivers.ReceiveSpec, base, to string, r io.Reader) error {
	u := &unpacking{op: o, to: to, known: make(map[string]bool)}
	in := buffered(r)
	if err := checkHead(in, spec); err != nil {
		return err
	}
	u.entries++
	if base != "" {
		if err := o.linkTree(base, to); err != nil {
			return err
		}
	}
	for {
		h, err := in.Next()
		if err != nil {
			return fmt.Errorf("stream after %d entries: %w", u.entries, ended(err))
		}
		u.entries++
		if h.Name == streamEnd {
			if h.PAXRecords[recordCount] != strconv.Itoa(u.entries) {
				return fmt.Errorf("stream: %d entries instead of %s: %w", u.entries, h.PAXRecords[recordCount], cairn.ErrCorrupt)
			}
			break
		}
		if err := u.entry(h, in); err != nil {
			return fmt.Errorf("stream: %s: %w", h.Name, err)
		}
	}
	if _, err := in.Next(); err != io.EOF {
		return fmt.Errorf("stream: goes on after its end: %w", errors.Join(cairn.ErrCorrupt, err))
	}
	if err := u.finish(); err != nil {
		return err
	}
	return o.syncAll()
}

func ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("%w: %w", cairn.ErrCorrupt, err)
	}
	return err
}

// checkHead makes sure that the stream is what it is taken for.
func checkHead(in *tar.Reader, spec drivers.ReceiveSpec) error {
	h, err := in.Next()
	if err != nil {
		return fmt.Errorf("stream: %w", ended(err))
	}
	to, from := cairn.SnapshotID(h.PAXRecords[recordTo]), cairn.SnapshotID(h.PAXRecords[recordFrom])
	if h.Name != streamHead || to != spec.Snapshot || from != spec.Base {
		return fmt.Errorf("stream: is %q of %q based on %q, not of %q on %q: %w", h.Name, to, from, spec.Snapshot, spec.Base, cairn.ErrCorrupt)
	}
	return nil
}

// linkTree makes a tree whose files are those of another one.
func (o *op) linkTree(from, to string) error {
	return walkTree(o.ctx, from, func(n *node) error {
		path := filepath.Join(to, n.path)
		if n.is(unix.S_IFDIR) {
			return o.do("link directory", func() error { return makeDir(path, 0o700, 0) })
		}
		return o.do("link file", func() error { return os.Link(filepath.Join(from, n.path), path) })
	})
}

// entry does what one entry says. Every directory is in the stream before what is in it, and is a directory: so no name can
// lead anywhere else.
func (u *unpacking) entry(h *tar.Header, in io.Reader) error {
	path, err := u.local(h.Name)
	if err != nil {
		return err
	}
	if h.PAXRecords[recordGone] != "" {
		return u.removeTree(path)
	}
	if parent := filepath.Dir(path); path != u.to && !u.known[parent] {
		return fmt.Errorf("comes before its directory: %w", cairn.ErrCorrupt)
	}
	if h.Typeflag == tar.TypeDir {
		return u.directory(path, h)
	}
	if err := u.removeTree(path); err != nil { // never written to: the base has the same file
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.do("write file", func() error { return u.file(path, h, in) })
	case tar.TypeLink:
		first, err := u.local(h.Linkname)
		if err != nil {
			return err
		}
		return u.do("make link", func() error { return os.Link(first, path) })
	case tar.TypeSymlink:
		return u.do("make symbolic link", func() error {
			if err := os.Symlink(h.Linkname, path); err != nil {
				return err
			}
			return setAttributes(path, h)
		})
	}
	return u.do("make special file", func() error {
		kind, ok := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[h.Typeflag]
		if !ok {
			return fmt.Errorf("entry of type %q: %w", h.Typeflag, cairn.ErrCorrupt)
		}
		if err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
			return fmt.Errorf("make special file: %w", err)
		}
		return setAttributes(path, h)
	})
}

// local is the path of a name of the tree.
func (u *unpacking) local(name string) (string, error) {
	rest, ok := strings.CutPrefix(name, treePrefix)
	rest = strings.TrimSuffix(rest, "/")
	if !ok || !filepath.IsLocal(rest) || filepath.Clean(rest) != rest {
		return "", fmt.Errorf("name outside the tree: %w", cairn.ErrCorrupt)
	}
	return filepath.Join(u.to, rest), nil
}

// directory makes sure that there is one. What it is called may have been a file before.
func (u *unpacking) directory(path string, h *tar.Header) error {
	info, err := os.Lstat(path)
	switch {
	case err == nil && !info.IsDir():
		if err := u.removeTree(path); err != nil {
			return err
		}
		fallthrough
	case errors.Is(err, fs.ErrNotExist):
		if err := u.do("make directory", func() error { return makeDir(path, 0o700, 0) }); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	u.known[path] = true
	u.dirs = append(u.dirs, h)
	return nil
}

func (u *unpacking) file(path string, h *tar.Header, in io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, in)
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return ended(err)
	}
	return setAttributes(path, h)
}

// finish gives directories their attributes, children before parents.
func (u *unpacking) finish() error {
	for _, h := range slices.Backward(u.dirs) {
		path, err := u.local(h.Name)
		if err != nil {
			return err
		}
		if err := u.do("finish directory", func() error { return setAttributes(path, h) }); err != nil {
			return err
		}
	}
	return nil
}

// setAttributes is copyAttributes from a stream.
func setAttributes(path string, h *tar.Header) error {
	if os.Geteuid() == 0 {
		if err := os.Lchown(path, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		for key, value := range h.PAXRecords {
			name, ok := strings.CutPrefix(key, recordXattrs)
			if !ok || !strings.HasPrefix(name, "user.") {
				continue
			}
			if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
				return fmt.Errorf("extended attribute %s: %w", name, err)
			}
		}
		if err := unix.Chmod(path, uint32(h.Mode)&0o7777); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	at := unix.NsecToTimespec(h.ModTime.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
