package webdav

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// entry is a name in an open directory. The *at system calls on it cannot leave the share: the directory was opened through
// os.Root, and a symbolic link of that name is not followed.
type entry struct {
	dir  *os.File
	name string
}

// status is what an entry is now; the zero status is absence.
type status struct {
	exists bool
	dir    bool
	bytes  int64 // of a regular file, else 0
}

// entryOf opens the directory of a path. cause is the status for a directory that is not there.
func (x *export) entryOf(name string, cause int) (entry, error) {
	if name == "/" {
		return entry{}, refuse(http.StatusForbidden, "the root of the share stays as it is")
	}
	dir, err := x.root.OpenFile(local(path.Dir(name)), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return entry{}, refuse(cause, "the directory "+path.Dir(name)+" does not exist")
	}
	return entry{dir, path.Base(name)}, err
}

func (en entry) close() { _ = en.dir.Close() } // opened for reading: nothing can be lost

func (en entry) status() (status, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(int(en.dir.Fd()), en.name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return status{}, nil
	} else if err != nil {
		return status{}, fmt.Errorf("stat %s: %w", en.name, err)
	}
	found := status{exists: true, dir: stat.Mode&unix.S_IFMT == unix.S_IFDIR}
	if stat.Mode&unix.S_IFMT == unix.S_IFREG {
		found.bytes = stat.Size
	}
	return found, nil
}

func (en entry) rename(to entry, flags uint) error {
	if err := unix.Renameat2(int(en.dir.Fd()), en.name, int(to.dir.Fd()), to.name, flags); err != nil {
		return fmt.Errorf("rename %s to %s: %w", en.name, to.name, err)
	}
	return nil
}

// sync makes an entry's presence or absence durable. The kernel joins the journal commits of concurrent calls.
func (x *export) sync(en entry) error {
	if err := x.owner.disk.sync(en.dir); err != nil {
		return fmt.Errorf("sync directory of %s: %w", en.name, err)
	}
	return nil
}

// commit runs change unless the replica may not be written any more. Quiesce, Fence and Export wait for it.
func (q *request) commit(change func() error) error {
	if err := q.x.writes.enter(q.Context()); err != nil {
		return err
	}
	defer q.x.writes.leave()
	if err := q.mayWrite(); err != nil {
		return err
	}
	return change()
}

// stagingEntry is a fresh name in the staging directory.
func (x *export) stagingEntry() entry { return entry{x.stagingDir, x.stagingName()} }

// publish commits the move of an entry to its place, durably, and removes what was there. may forbids it for what is there
// now. It reports whether something was replaced.
func (q *request) publish(from, to entry, room *reservation, may func(old status) error) (replaced bool, err error) {
	trash := q.x.stagingEntry()
	var buried bool
	err = q.commit(func() error {
		if replaced, buried, err = q.x.place(from, to, trash, room, may); err != nil {
			return err
		}
		// failpoint: placed
		if err := q.x.sync(to); err != nil || from.dir == q.x.stagingDir {
			return err
		}
		return q.x.sync(from)
	})
	// failpoint: published
	if err == nil && buried {
		q.x.empty(trash.name, room.ledger)
	}
	return replaced, err
}

// place renames from to to and books the change of used bytes. A file replaces a file in one rename. Where a directory is involved, what
// was staged and the old are exchanged, so that a crash finds the old or the new in place, and the old is then buried in trash. What a
// client moves is not: after a crash its name would hold the old, and the client, told nothing, would move that over the new.
func (x *export) place(from, to, trash entry, room *reservation, may func(old status) error) (replaced, buried bool, err error) {
	x.placing.Lock()
	defer x.placing.Unlock()
	fresh, err := from.status()
	if err == nil && !fresh.exists {
		err = refuse(http.StatusNotFound, "no such file or directory")
	}
	if err != nil {
		return false, false, err
	}
	old, err := to.status()
	if err != nil {
		return false, false, err
	}
	if err := may(old); err != nil {
		return false, false, err
	}
	buried = old.exists && (old.dir || fresh.dir)
	credit := old.bytes
	if buried {
		credit = 0 // freed when the trash is emptied
	}
	if err := room.set(room.bytes, credit); err != nil {
		return false, false, err
	}
	switch {
	case !buried:
		err = from.rename(to, 0)
	case from.dir == x.stagingDir:
		err = exchange(from, to, trash)
	default:
		err = supplant(from, to, trash)
	}
	if err == nil {
		room.book()
	}
	return old.exists, buried, err
}

func exchange(from, to, trash entry) error {
	switch err := from.rename(to, unix.RENAME_EXCHANGE); {
	case errors.Is(err, unix.EINVAL):
		return refuse(http.StatusNotImplemented, "this file system cannot replace a directory in one step; delete the destination first")
	case err != nil:
		return err
	}
	// failpoint: exchanged
	return from.rename(trash, 0)
}

// supplant removes the old before the other takes its place, as RFC 4918 section 9.9.3 has it. A crash between finds the name free, and what
// is moved where it was.
func supplant(from, to, trash entry) error {
	if err := to.rename(trash, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	// failpoint: supplanting
	err := from.rename(to, unix.RENAME_NOREPLACE)
	if err != nil {
		err = errors.Join(err, trash.rename(to, unix.RENAME_NOREPLACE))
	}
	return err
}

// bury commits the removal of an entry: one rename into the staging directory, however large the tree.
func (q *request) bury(en entry) error {
	trash := q.x.stagingEntry()
	err := q.commit(func() error {
		if err := en.rename(trash, 0); err != nil {
			return err
		}
		// failpoint: buried
		return q.x.sync(en)
	})
	if err == nil {
		q.x.empty(trash.name, q.terms.ledger)
	}
	return err
}

// empty removes what has been replaced or deleted, and frees its bytes.
func (x *export) empty(trash string, l *ledger) {
	// failpoint: emptying
	x.clear(leftover{name: trash, committed: true, ledger: l})
}

// discard removes what was prepared and not published; what has been published has another name.
func (x *export) discard(en entry) { x.clear(leftover{name: en.name}) }

// createEmpty makes the empty file of a LOCK on a name that does not exist.
func (q *request) createEmpty(name string) error {
	en, err := q.x.entryOf(name, http.StatusConflict)
	if err != nil {
		return err
	}
	defer en.close()
	return q.commit(func() error {
		file, err := q.x.root.OpenFile(local(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		// failpoint: empty-file-made
		return errors.Join(q.x.owner.disk.sync(file), file.Close(), q.x.sync(en))
	})
}

// makeDir makes a directory, durably.
func (q *request) makeDir(en entry) error {
	return q.commit(func() error {
		err := unix.Mkdirat(int(en.dir.Fd()), en.name, 0o777)
		if errors.Is(err, unix.EEXIST) {
			return refuse(http.StatusMethodNotAllowed, "this name exists already")
		} else if err != nil {
			return fmt.Errorf("make directory %s: %w", en.name, err)
		}
		// failpoint: directory-made
		return q.x.sync(en)
	})
}
