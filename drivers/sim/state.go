package sim

import (
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// state is what is known of the contents of a tree without reading them: enough to say whether anything has changed, and
// how much.
type state map[string]stamped

type stamped struct {
	inode, mode  uint64
	size         int64
	mtime, ctime unix.Timespec
}

// stateOf looks at the contents of a file system.
func (z *ZFS) stateOf(d *dataset) (state, error) {
	return look(d.root(), z.skip(d))
}

func look(root string, skip func(string) (skipped, mounted bool)) (state, error) {
	seen := make(state)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if skipped, _ := skip(path); skipped {
			return skipEntry(entry)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		one := stamped{inode: st.Ino, mode: uint64(st.Mode), size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
		if entry.IsDir() {
			one.size, one.ctime = 0, unix.Timespec{} // the first differs by file system, and mounting changes the second
		}
		seen[path[len(root):]] = one
		return nil
	})
	return seen, err
}

// equal reports whether nothing has changed in one and the same tree.
func (s state) equal(now state) bool {
	if len(s) != len(now) {
		return false
	}
	for path, one := range s {
		if now[path] != one {
			return false
		}
	}
	return true
}

// size is what files take in whole sectors, hard-linked ones once.
func (s state) size() int64 { return s.sizeWithout() }

// sizeWithout is the size of the files that are in none of the others as they are here.
func (s state) sizeWithout(others ...state) int64 {
	var sum int64
	counted := make(map[uint64]bool)
	for path, one := range s {
		shared := false
		for _, other := range others {
			there, ok := other[path]
			shared = shared || ok && there.size == one.size && there.mtime == one.mtime && there.mode == one.mode
		}
		if !shared && !counted[one.inode] {
			counted[one.inode] = true
			sum += (one.size + 511) / 512 * 512
		}
	}
	return sum
}
