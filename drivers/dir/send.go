package dir

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// A stream is a tar archive in PAX format: an entry that says what it is, the names that are gone, every directory, whatever
// else is not the same as in the base, and an entry that says that this was all. Names of the tree stand below treePrefix, so
// that none of them can be taken for the others.
const (
	streamHead   = "cairn-dir-stream-1"
	streamEnd    = "cairn-dir-end"
	treePrefix   = "tree/"
	recordFrom   = "CAIRN.base"
	recordTo     = "CAIRN.snapshot"
	recordGone   = "CAIRN.gone"
	recordCount  = "CAIRN.entries"
	recordXattrs = "SCHILY.xattr."
)

// source finds the trees of a stream and keeps its snapshot from being deleted until release is called. It takes no lock: sending
// a large tree must not keep anybody from looking at the replica.
func (o *op) source(spec drivers.SendSpec) (tree, base string, release func(), err error) {
	if spec.Resume != "" {
		return "", "", nil, fmt.Errorf("resume token: this driver's streams begin anew: %w", cairn.ErrInvalid)
	}
	if _, err := o.look(); err != nil {
		return "", "", nil, err
	}
	releases := []func(){}
	release = func() {
		for _, f := range releases {
			f()
		}
	}
	for _, snap := range []cairn.SnapshotID{spec.Snapshot, spec.Base} {
		if snap == "" {
			continue
		}
		claim, err := o.claims.take(snap, false)
		if err == nil {
			releases = append(releases, claim)
			err = o.checkSnapshot(o.id, snap)
		}
		if err != nil {
			release()
			return "", "", nil, err
		}
	}
	if spec.Base != "" {
		base = o.snapshot(o.id, spec.Base)
	}
	return o.snapshot(o.id, spec.Snapshot), base, release, nil
}

// Send writes what differs between two snapshots.
func (p *Pool) Send(ctx context.Context, id cairn.ReplicaID, spec drivers.SendSpec, w io.Writer) error {
	_, err := run(ctx, p, func() (struct{}, error) {
		o := &op{Pool: p, ctx: ctx, id: id}
		tree, base, release, err := o.source(spec)
		if err != nil {
			return struct{}{}, err
		}
		defer release()
		s := &sending{op: o, comparison: o.compare(spec, tree, base), w: tar.NewWriter(w)}
		return struct{}{}, s.send(spec)
	})
	if err != nil {
		return fmt.Errorf("replica %s: send snapshot %s: %w", id, spec.Snapshot, classify(err))
	}
	return nil
}

// SendSize walks both trees.
func (p *Pool) SendSize(ctx context.Context, id cairn.ReplicaID, spec drivers.SendSpec) (int64, error) {
	size, err := run(ctx, p, func() (int64, error) {
		o := &op{Pool: p, ctx: ctx, id: id}
		tree, base, release, err := o.source(spec)
		if err != nil {
			return 0, err
		}
		defer release()
		if base == "" {
			return o.usage(tree)
		}
		return o.compare(spec, tree, base).changes(ctx)
	})
	if err != nil {
		return 0, fmt.Errorf("replica %s: size of snapshot %s: %w", id, spec.Snapshot, classify(err))
	}
	return size, nil
}

// Changed walks the data and the snapshot.
func (p *Pool) Changed(ctx context.Context, id cairn.ReplicaID, since cairn.SnapshotID) (int64, error) {
	n, err := run(ctx, p, func() (int64, error) {
		o := &op{Pool: p, ctx: ctx, id: id}
		_, base, release, err := o.source(drivers.SendSpec{Base: since})
		if err != nil {
			return 0, err
		}
		defer release()
		// A revert that was cut off has yet to be done again, if only to remove what it left.
		if _, err := os.Lstat(filepath.Join(p.home(id), "revert")); !errors.Is(err, fs.ErrNotExist) {
			return 1, err
		}
		data := filepath.Join(p.home(id), "data")
		now, err := makeIndex(ctx, "", data)
		if err != nil {
			return 0, err
		}
		c := &comparison{tree: data, base: base, treeFiles: now.files, baseFiles: p.indexes.of(id, since)}
		n, err := c.changes(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			return max(n, 1), nil // clients write while we walk
		}
		return n, err
	})
	if err != nil {
		return 0, fmt.Errorf("replica %s: changes since %s: %w", id, since, classify(err))
	}
	return n, nil
}

// compare prepares the comparison of two snapshots.
func (o *op) compare(spec drivers.SendSpec, tree, base string) *comparison {
	return &comparison{tree: tree, base: base, treeFiles: o.indexes.of(o.id, spec.Snapshot), baseFiles: o.indexes.of(o.id, spec.Base)}
}

// sending is one stream.
type sending struct {
	*op
	*comparison
	w       *tar.Writer
	entries int
}

func (s *sending) send(spec drivers.SendSpec) error {
	head := &tar.Header{Name: streamHead, PAXRecords: map[string]string{recordTo: string(spec.Snapshot)}}
	if spec.Base != "" {
		head.PAXRecords[recordFrom] = string(spec.Base)
	}
	if err := s.put(head); err != nil {
		return err
	}
	if s.base != "" {
		if err := s.load(s.ctx); err != nil {
			return err
		}
		if err := s.sendGone(); err != nil {
			return err
		}
	}
	err := walkTree(s.ctx, s.tree, func(n *node) error {
		if !n.is(unix.S_IFDIR) {
			if same, err := s.comparison.same(s.ctx, n); err != nil || same {
				return err
			}
		}
		return s.sendNode(n)
	})
	if err != nil {
		return err
	}
	end := &tar.Header{Name: streamEnd, PAXRecords: map[string]string{recordCount: fmt.Sprint(s.entries + 1)}}
	if err := s.put(end); err != nil {
		return err
	}
	return s.w.Close()
}

// sendGone names what is in the base and not in the tree any more; of a directory that is gone, only itself.
func (s *sending) sendGone() error {
	var gone string
	for _, path := range slices.Sorted(maps.Keys(s.old)) {
		if gone != "" && strings.HasPrefix(path, gone+"/") {
			continue
		}
		_, err := os.Lstat(filepath.Join(s.tree, path))
		switch {
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			return err
		}
		gone = path
		if err := s.put(&tar.Header{Name: treePrefix + path, PAXRecords: map[string]string{recordGone: "1"}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *sending) sendNode(n *node) error {
	path := filepath.Join(s.tree, n.path)
	h := &tar.Header{
		Name: treePrefix + n.path, Mode: int64(n.stat.Mode & 0o7777), Uid: int(n.stat.Uid), Gid: int(n.stat.Gid),
		ModTime: time.Unix(n.stat.Mtim.Unix()),
	}
	var err error
	switch {
	case n.first != n.path:
		h.Typeflag, h.Linkname = tar.TypeLink, treePrefix+n.first
		return s.put(h)
	case n.is(unix.S_IFDIR):
		h.Typeflag = tar.TypeDir
	case n.is(unix.S_IFLNK):
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(path); err != nil {
			return err
		}
		return s.put(h)
	case n.is(unix.S_IFREG):
		h.Typeflag, h.Size = tar.TypeReg, n.stat.Size
	default:
		if err := special(h, &n.stat); err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
	}
	if h.PAXRecords, err = xattrRecords(path); err != nil {
		return err
	}
	if err := s.put(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	return s.sendFile(path, h.Size)
}

func (s *sending) sendFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(s.w, f, size); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return s.ctx.Err()
}

// put writes an entry in the one format that keeps everything.
func (s *sending) put(h *tar.Header) error {
	h.Format = tar.FormatPAX
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	s.entries++
	return s.w.WriteHeader(h)
}

// special describes a pipe or a device. A socket has no place in an archive, and no meaning in another directory.
func special(h *tar.Header, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	default:
		return fmt.Errorf("file type %o cannot be sent: %w", st.Mode&unix.S_IFMT, cairn.ErrNotSupported)
	}
	h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	return nil
}

// xattrRecords are the user.* attributes as tar writes them.
func xattrRecords(path string) (map[string]string, error) {
	attributes, err := userXattrs(path)
	if err != nil || len(attributes) == 0 {
		return nil, err
	}
	records := make(map[string]string, len(attributes))
	for name, value := range attributes {
		records[recordXattrs+name] = string(value)
	}
	return records, nil
}

// buffered keeps the many small reads of a tar reader away from the network.
func buffered(r io.Reader) *tar.Reader { return tar.NewReader(bufio.NewReaderSize(r, 256<<10)) }
