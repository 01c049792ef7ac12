package dir

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
)

// project is an ID by which ext4 and xfs count and limit what a set of files uses. A replica has one; its data and staging
// directories carry it and hand it down to what is made in them. 0 is the project of everything else, and has no limit.
type project uint32

// quota is what Open found out about project quotas, and which projects are taken. The latter is in the marks as well.
type quota struct {
	why    string // why the file system does not hold replicas to their sizes; "" if it does
	mu     sync.Mutex
	owners map[project]cairn.ReplicaID
}

func (q *quota) on() bool { return q.why == "" }

// unlimited lifts a limit.
const unlimited = 0

// probeQuota finds out whether the kernel refuses a write beyond a quota, by trying it in dir. A process with
// CAP_SYS_RESOURCE may exceed the quotas of ext4, so reading how the file system is mounted would not tell.
func (o *op) probeQuota(dir string) (why string) {
	if outer, err := projectOf(o.path); err != nil {
		return fmt.Sprintf("the file system has no project IDs (%v)", err)
	} else if outer != 0 {
		return fmt.Sprintf("the pool directory itself belongs to project %d", outer)
	}
	probe, err := o.freeProject(".probe")
	if errors.Is(err, unix.EPERM) {
		return "this process may not set quotas: that takes CAP_SYS_ADMIN"
	} else if err != nil {
		return fmt.Sprintf("the file system is not mounted with prjquota (%v)", err)
	}
	const limit = 64 << 10
	limited := filepath.Join(dir, "limited")
	err = errors.Join(os.Mkdir(limited, 0o700), setProject(limited, probe), o.setQuota(probe, limit))
	if err == nil {
		err = os.WriteFile(filepath.Join(limited, "large"), make([]byte, 2*limit), 0o600)
		switch {
		case errors.Is(err, unix.EDQUOT), errors.Is(err, unix.ENOSPC):
			err = nil
		case err == nil:
			err = errors.New("a write beyond one is accepted; drop CAP_SYS_RESOURCE, and mount so that they are enforced")
		}
	}
	if err := errors.Join(err, o.setQuota(probe, unlimited)); err != nil {
		return fmt.Sprintf("project quotas do not hold this process (%v)", err)
	}
	return ""
}

// settleProjects brings the replicas that are there in line with quotas: which projects are taken, trees without a project,
// limits that a crash or a time without quotas has left behind. What cannot be read here is an error of whoever asks for it.
func (o *op) settleProjects() error {
	if !o.quota.on() {
		return nil
	}
	ids, err := o.candidates()
	if err != nil {
		return err
	}
	o.quota.owners = make(map[project]cairn.ReplicaID)
	var ready []found
	for _, id := range ids {
		f, err := (&op{Pool: o.Pool, ctx: o.ctx, id: id}).look()
		if err != nil {
			continue
		}
		o.quota.owners[f.Project] = id
		if f.ready() {
			ready = append(ready, f)
		}
	}
	for _, f := range ready {
		if err := (&op{Pool: o.Pool, ctx: o.ctx, id: f.ID}).enforce(f.mark); err != nil {
			return fmt.Errorf("replica %s: project: %w", f.ID, err)
		}
	}
	return nil
}

// enforce gives a ready replica its project, if it has none yet, and its limit.
func (o *op) enforce(m mark) error {
	home := o.home(o.id)
	if m.Project == 0 {
		if err := o.assign(&m); err != nil {
			return err
		}
		if err := o.writeMark(home, m); err != nil {
			return err
		}
	}
	for _, sub := range []string{"staging", "data"} {
		// The root of a tree is given away last, so it speaks for all that is in it.
		root := filepath.Join(home, sub)
		if now, err := projectOf(root); err != nil {
			return err
		} else if now != m.Project {
			o.log.Info("giving files to the project that limits their replica", "replica", o.id, "directory", root, "project", m.Project)
			if err := o.retag(root, 0, m.Project); err != nil {
				return err
			}
		}
	}
	if now, err := o.getQuota(m.Project); err != nil || now.Hardlimit == quotaBlocks(m.Size) {
		return err
	}
	return o.limit(m.Project, m.Size)
}

// assign chooses the project of a replica that has none, where quotas are on. It is taken from here on, and for ever once the
// mark is written, until the replica is discarded.
func (o *op) assign(m *mark) (err error) {
	if !o.quota.on() || m.Project != 0 {
		return nil
	}
	o.quota.mu.Lock()
	defer o.quota.mu.Unlock()
	if m.Project, err = o.freeProject(o.id); err == nil {
		o.quota.owners[m.Project] = o.id
	}
	return err
}

// release lets a project be taken by others: its replica and its mark are gone.
func (q *quota) release(p project) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.owners, p)
}

// freeProject derives a project that no replica of this pool has taken and no file of the file system belongs to. It is a
// large number, because administrators choose small ones, and depends on the pool, because another one on the same file
// system may be looking for one at the same time.
func (p *Pool) freeProject(id cairn.ReplicaID) (project, error) {
	const tries = 100
	for n := range tries {
		h := fnv.New32a()
		fmt.Fprintf(h, "%s %s %d", p.path, id, n)
		chosen := project(1<<30 | h.Sum32()>>2)
		if owner, taken := p.quota.owners[chosen]; taken && owner != id {
			continue
		}
		if now, err := p.getQuota(chosen); err != nil {
			return 0, err
		} else if now.Inodes == 0 {
			return chosen, nil
		}
	}
	return 0, fmt.Errorf("no free project ID in %d tries: %w", tries, cairn.ErrExists)
}

// limit sets what the files of a project may use, in bytes, where quotas are on. Usage beyond it stays and cannot grow.
func (o *op) limit(p project, size int64) error {
	if p == 0 || !o.quota.on() {
		return nil
	}
	return o.do("set limit", func() error { return o.setQuota(p, size) })
}

// letGo takes the files back from the project that are not, or no more, in the directory of the replica: an adoption did not
// happen, or a release did. Files of other projects are none of its business.
func (o *op) letGo(m mark) error {
	name := m.Adopted
	if m.State == stateReleasing {
		name = m.Released
	}
	if m.Project == 0 || m.State == stateReady {
		return nil
	}
	return o.retag(filepath.Join(o.path, name), m.Project, 0)
}

// retag gives all files and directories of a tree to project to; if that is 0, only those of project from. Links and
// special files hold no blocks and are left alone, because there is no way to open them.
func (o *op) retag(root string, from, to project) error {
	visit := func(path string) error {
		now, err := projectOf(path)
		if err != nil || now == to || to == 0 && now != from {
			return err
		}
		return o.do("set project", func() error { return setProject(path, to) })
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = o.ctx.Err()
		}
		if err == nil && path != root && (d.IsDir() || d.Type().IsRegular()) {
			if err = o.checkInside(path); err == nil {
				err = visit(path)
			}
		}
		if path != root && errors.Is(err, fs.ErrNotExist) {
			return nil // its owner has removed it
		}
		return err
	})
	if err == nil {
		err = visit(root)
	}
	if to == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// checkNoProject refuses a directory that somebody else limits, or counts. A file system that cannot tell has no projects.
func (o *op) checkNoProject(path string) error {
	outer, err := projectOf(o.path)
	if err != nil {
		return nil
	}
	p, err := projectOf(path)
	if err == nil && p != outer {
		err = fmt.Errorf("%s belongs to project %d, which is not Cairn's: %w", path, p, cairn.ErrPrecondition)
	}
	return err
}

// checkInside is checkDevice for a path.
func (o *op) checkInside(path string) error {
	e := entry{from: path}
	if err := unix.Lstat(path, &e.stat); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return o.checkDevice(e)
}

// makeDir makes a directory of a project.
func makeDir(path string, mode fs.FileMode, p project) error {
	if err := os.Mkdir(path, mode); err != nil || p == 0 {
		return err
	}
	return setProject(path, p)
}

// What follows is the kernel's interface (linux/fs.h, linux/quota.h, linux/dqblk_xfs.h), of which golang.org/x/sys has only
// the numbers of the calls. Q_GETQUOTA and Q_SETQUOTA work on xfs as well as on ext4.
const (
	fsGetXattr  = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr  = 0x401c5820 // FS_IOC_FSSETXATTR
	projInherit = 0x200      // FS_XFLAG_PROJINHERIT

	prjQuota  = 2
	qGetQuota = 0x800007
	qSetQuota = 0x800008
	qifLimits = 1    // QIF_BLIMITS
	qifBlock  = 1024 // QIF_DQBLKSIZE: the unit of limits
)

// fsxattr is struct fsxattr.
type fsxattr struct {
	Flags, ExtSize, Extents uint32
	Project                 project
	CowExtSize              uint32
	_                       [8]byte
}

// dqblk is struct if_dqblk: limits in units of 1 KiB, usage in bytes.
type dqblk struct {
	Hardlimit, Softlimit, Space            uint64
	InodeHardlimit, InodeSoftlimit, Inodes uint64
	Time, InodeTime                        uint64
	Valid                                  uint32
}

func quotaBlocks(size int64) uint64 { return (uint64(size) + qifBlock - 1) / qifBlock }

// getQuota reads usage and limits of a project; of one that nobody has used yet they are 0.
func (p *Pool) getQuota(id project) (dqblk, error) {
	var q dqblk
	err := p.quotactl("get quota", qGetQuota, id, &q)
	if errors.Is(err, unix.ENOENT) { // what xfs says of a project that it has no record of
		return dqblk{}, nil
	}
	return q, err
}

func (p *Pool) setQuota(id project, size int64) error {
	q := dqblk{Hardlimit: quotaBlocks(size), Softlimit: quotaBlocks(size), Valid: qifLimits}
	return p.quotactl("set quota", qSetQuota, id, &q)
}

func (p *Pool) quotactl(what string, cmd uintptr, id project, q *dqblk) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, p.dir.Fd(), cmd<<8|prjQuota, uintptr(id), uintptr(unsafe.Pointer(q)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("%s of project %d: %w", what, id, errno)
	}
	return nil
}

// projectOf reads the project of a file or directory.
func projectOf(path string) (project, error) {
	x, err := withFsxattr(path, func(*fsxattr) bool { return false })
	return x.Project, err
}

// setProject gives a file or directory to a project, and has a directory hand it down, or not if it is 0.
func setProject(path string, p project) error {
	_, err := withFsxattr(path, func(x *fsxattr) bool { x.Project = p; return true })
	return err
}

// withFsxattr reads the attributes of a file or directory, and writes them back if change says so.
func withFsxattr(path string, change func(*fsxattr) bool) (x fsxattr, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return x, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return x, err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsGetXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return x, &fs.PathError{Op: "get project", Path: path, Err: errno}
	}
	if !change(&x) {
		return x, nil
	}
	x.Flags &^= projInherit
	if info.IsDir() && x.Project != 0 {
		x.Flags |= projInherit
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsSetXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return x, &fs.PathError{Op: "set project", Path: path, Err: errno}
	}
	return x, nil
}
