package drivertest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is the Data of directories: every kind of entry that a copy must keep, and nothing that needs privilege.
type Tree struct {
	// Except is an entry of every root that is the file system's own and no content, such as .zfs; "" for none.
	Except string
}

// Fill implements Data.
func (t Tree) Fill(root, seed string) error {
	if err := t.empty(root); err != nil {
		return err
	}
	for _, dir := range []string{"sub", "sub/empty", "closed"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, data := range map[string]string{
		"plain": seed, "empty": "", "sub/script": "#!/bin/sh\n" + seed, "closed/kept": seed + " closed",
		"sub/big": strings.Repeat(seed+"\n", 5_000), "two names": seed + " linked",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(data), 0o644); err != nil {
			return err
		}
	}
	if err := fillSpecial(root, seed); err != nil {
		return err
	}
	for name, mode := range map[string]fs.FileMode{"sub/script": 0o755, "plain": 0o640, "closed/kept": 0o400, "closed": 0o500} {
		if err := os.Chmod(filepath.Join(root, name), mode); err != nil {
			return err
		}
	}
	then := time.Unix(1_700_000_000, 123_456_789)
	return t.walk(root, func(path string, d fs.DirEntry) error {
		if d.Type() == fs.ModeSymlink {
			return nil
		}
		return os.Chtimes(path, then, then)
	})
}

// fillSpecial makes links, a file that is mostly a hole, a pipe, and a user attribute where the file system has them.
func fillSpecial(root, seed string) error {
	at := func(name string) string { return filepath.Join(root, name) }
	if err := os.Link(at("two names"), at("sub/second name")); err != nil {
		return err
	}
	if err := os.Symlink("../nowhere/"+seed, at("sub/dangling")); err != nil {
		return err
	}
	if err := unix.Mkfifo(at("pipe"), 0o600); err != nil {
		return err
	}
	hole, err := os.Create(at("hole"))
	if err != nil {
		return err
	}
	_, err = hole.WriteAt([]byte(seed), 128<<10)
	if err := errors.Join(err, hole.Truncate(256<<10), hole.Close()); err != nil {
		return err
	}
	if err := unix.Setxattr(at("plain"), "user.seed", []byte(seed), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// walk visits everything that is content.
func (t Tree) walk(root string, visit func(path string, d fs.DirEntry) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case t.Except == "" || path != filepath.Join(root, t.Except):
			return visit(path, d)
		case d.IsDir():
			return fs.SkipDir
		}
		return nil
	})
}

// empty removes the contents of a directory, also those that Fill has closed.
func (t Tree) empty(root string) error {
	err := t.walk(root, func(path string, d fs.DirEntry) error {
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return nil
	})
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == t.Except {
			continue
		}
		if err := os.RemoveAll(filepath.Join(root, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Fingerprint implements Data: names, kinds, modes, sizes, contents, link targets, hard links, user attributes, and the
// times of all but links, nanoseconds included. An empty root has no time: Create makes it at any.
func (t Tree) Fingerprint(root string) (string, error) {
	if info, err := os.Lstat(root); err != nil {
		return "", err
	} else if !info.IsDir() {
		return "", fmt.Errorf("%s: is not a directory", root)
	}
	var b strings.Builder
	names := make(map[uint64]string)
	err := t.walk(root, func(path string, _ fs.DirEntry) error {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		fmt.Fprintf(&b, "%q %o", name, st.Mode)
		if first, seen := names[st.Ino]; seen {
			fmt.Fprintf(&b, " is %q\n", first)
			return nil
		}
		names[st.Ino] = name
		line, err := describe(path, &st)
		fmt.Fprintln(&b, line)
		return err
	})
	if len(names) == 1 {
		return "nothing", err
	}
	return b.String(), err
}

func describe(path string, st *unix.Stat_t) (string, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return fmt.Sprintf(" -> %q", target), err
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		attribute := make([]byte, 64)
		n, _ := unix.Getxattr(path, "user.seed", attribute) // none reads as empty
		return fmt.Sprintf(" %d.%09d %d %x %q", st.Mtim.Sec, st.Mtim.Nsec, st.Size, sha256.Sum256(data), attribute[:max(n, 0)]), err
	}
	return fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec), nil
}

// short is a fingerprint for people.
func short(print string) string {
	return fmt.Sprintf("%.8x", sha256.Sum256([]byte(print)))
}
