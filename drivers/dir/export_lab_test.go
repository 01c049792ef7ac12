//go:build lab

package dir

import "os"

// ProjectOf is the project of a file or directory, and whether a directory hands it down.
func ProjectOf(path string) (id uint32, inherited bool, err error) {
	x, err := withFsxattr(path, func(*fsxattr) bool { return false })
	return uint32(x.Project), x.Flags&projInherit != 0, err
}

// LimitOf is the limit, in bytes, of a project of the file system that dir is on.
func LimitOf(dir string, id uint32) (int64, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	q, err := (&Pool{dir: f}).getQuota(project(id))
	return int64(q.Hardlimit) * qifBlock, err
}
