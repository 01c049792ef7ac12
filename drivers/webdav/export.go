package webdav

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	dav "golang.org/x/net/webdav"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// export is one directory that is served.
type export struct {
	owner *Exporter
	path  string // of its URLs, without the last slash
	root  *os.Root
	// staging is nil where the spec has none. Entries are renamed between it and root through stagingDir.
	staging    *os.Root
	stagingDir *os.File
	left       leftovers
	locks      *lockTable
	terms      atomic.Pointer[terms]

	requests gate       // every request is inside
	writes   gate       // every commit is inside
	placing  sync.Mutex // makes "what is there, does it fit, rename" one step; held for no fsync

	ctx context.Context // ends when the requests shall be cut
	cut context.CancelFunc
}

func (e *Exporter) open(ctx context.Context, spec drivers.ExportSpec) (*export, error) {
	x := &export{owner: e, path: exportPath(spec), locks: newLockTable(dav.NewMemLS())}
	x.ctx, x.cut = context.WithCancel(context.WithoutCancel(ctx))
	if err := x.openDirs(ctx, spec); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func exportPath(spec drivers.ExportSpec) string {
	switch {
	case spec.Standby:
		return "/replicas/" + url.PathEscape(string(spec.ID.Replica))
	case spec.ID.Snapshot != "":
		return "/snapshots/" + url.PathEscape(string(spec.ID.Snapshot))
	}
	return "/shares/" + url.PathEscape(string(spec.Share))
}

func (x *export) openDirs(ctx context.Context, spec drivers.ExportSpec) (err error) {
	if x.root, err = os.OpenRoot(spec.Root); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("root: %w: %w", cairn.ErrNotFound, err)
	} else if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if spec.Staging == "" {
		return nil
	}
	if x.staging, err = os.OpenRoot(spec.Staging); err != nil {
		return fmt.Errorf("staging: %w", err)
	}
	if x.stagingDir, err = x.staging.Open("."); err != nil {
		return fmt.Errorf("staging: %w", err)
	}
	if err := sameDevice(x.root, x.staging); err != nil {
		return err
	}
	return x.emptyStaging(ctx, stagingPrefix(spec.ID.Replica))
}

// sameDevice finds out now what would else be the fault of every upload.
func sameDevice(a, b *os.Root) error {
	var devices [2]uint64
	for i, root := range []*os.Root{a, b} {
		info, err := root.Stat(".")
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			devices[i] = uint64(stat.Dev)
		}
	}
	if devices[0] != devices[1] {
		return fmt.Errorf("staging %s is not on the file system of %s: %w", b.Name(), a.Name(), cairn.ErrInvalid)
	}
	return nil
}

// stagingPrefix marks what is ours in a staging directory that replicas may share.
func stagingPrefix(id cairn.ReplicaID) string { return "webdav-" + string(id) + "-" }

func (x *export) stagingName() string {
	return stagingPrefix(x.terms.Load().spec.ID.Replica) + rand.Text()
}

// emptyStaging removes what a crash has left. Nothing of it was acknowledged, or it was deleted.
func (x *export) emptyStaging(ctx context.Context, prefix string) error {
	// failpoint: opening
	entries, err := fs.ReadDir(x.staging.FS(), ".")
	if err != nil {
		return fmt.Errorf("staging: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.staging.RemoveAll(entry.Name()); err != nil {
			return fmt.Errorf("staging: %w", err)
		}
	}
	return nil
}

// serves reports whether spec can be had by a change of terms: the same directories, not moved or replaced since.
func (x *export) serves(spec drivers.ExportSpec) bool {
	now := x.terms.Load().spec
	if x.ctx.Err() != nil || now.Root != spec.Root || now.Staging != spec.Staging || now.Share != spec.Share || now.Standby != spec.Standby {
		return false
	}
	opened, err := x.root.Stat(".")
	if err != nil {
		return false
	}
	named, err := os.Stat(spec.Root)
	return err == nil && os.SameFile(opened, named)
}

// adopt makes next the terms of the export while no commit is in progress, so that none under the old terms follows.
// Used bytes are counted unless they are known: the replica may have been written by others while it was read-only.
func (x *export) adopt(ctx context.Context, next *terms) error {
	release, err := x.writes.hold(ctx)
	if err != nil {
		return fmt.Errorf("writes in progress: %w: %w", cairn.ErrTimeout, err)
	}
	defer release()
	if next.spec.EnforceSize && !next.readOnly() {
		if now := x.terms.Load(); now != nil && now.ledger != nil {
			next.ledger = now.ledger
		} else if next.ledger, err = count(ctx, x.root); err != nil {
			return fmt.Errorf("count used bytes: %w", err)
		}
		next.ledger.resize(next.spec.Size)
	}
	x.terms.Store(next)
	return nil
}

func count(ctx context.Context, root *os.Root) (*ledger, error) {
	used, err := usage(ctx, root, ".")
	return &ledger{used: used}, err
}

// usage sums the sizes of the regular files under name, or of the one that it is.
func usage(ctx context.Context, root *os.Root, name string) (bytes int64, err error) {
	if info, err := root.Lstat(name); err != nil {
		return 0, err
	} else if info.Mode().IsRegular() {
		return info.Size(), nil
	} else if !info.IsDir() {
		return 0, nil
	}
	err = fs.WalkDir(root.FS(), name, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // certainly gone since its directory was read
		} else if err != nil {
			return err
		}
		bytes += info.Size()
		return nil
	})
	return bytes, err
}

// close gives back what open took; no request may be in progress.
func (x *export) close() {
	x.cut()
	if x.stagingDir != nil {
		_ = x.stagingDir.Close() // opened for reading: nothing can be lost
	}
	for _, root := range []*os.Root{x.staging, x.root} {
		if root != nil {
			_ = root.Close()
		}
	}
}
