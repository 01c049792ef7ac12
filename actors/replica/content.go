package replica

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
)

// Content is what a directory holds, in a form in which two nodes can compare it.
type Content struct {
	// SHA256 covers names, kinds, permissions, sizes, contents and link targets.
	SHA256 [sha256.Size]byte
	Files  int64 // regular ones
	Bytes  int64 // in them
}

// ofFileSystem is a directory of every root that is the file system's own and no content.
const ofFileSystem = ".zfs"

// readContent reads everything below root, to the last byte.
func readContent(ctx context.Context, path string) (c Content, err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return Content{}, fmt.Errorf("content: %w", err)
	}
	defer root.Close()
	sum := sha256.New()
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case name == ".":
			return nil
		case name == ofFileSystem && entry.IsDir():
			return fs.SkipDir
		}
		info, err := root.Lstat(name)
		if err != nil {
			return err
		}
		label(sum, name)
		number(sum, int64(info.Mode()))
		switch {
		case info.Mode().IsRegular():
			n, err := readFile(ctx, root, name, sum)
			c.Files, c.Bytes = c.Files+1, c.Bytes+n
			return err
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := root.Readlink(name)
			label(sum, target)
			return err
		}
		return nil
	})
	if err != nil {
		return Content{}, fmt.Errorf("content: %w", err)
	}
	c.SHA256 = [sha256.Size]byte(sum.Sum(nil))
	return c, nil
}

// readFile adds a file, with its length behind it, so that no two trees read alike.
func readFile(ctx context.Context, root *os.Root, name string, sum hash.Hash) (int64, error) {
	file, err := root.Open(name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer stop()
	n, err := io.Copy(sum, file)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	number(sum, n)
	return n, err
}

func label(sum hash.Hash, text string) {
	number(sum, int64(len(text)))
	_, _ = io.WriteString(sum, text) // a hash takes everything
}

func number(sum hash.Hash, n int64) {
	_, _ = sum.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
}
