package webdav

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"

	dav "golang.org/x/net/webdav"
)

// cleanPath returns the path within the export, beginning with a slash. Clients resolve "." and ".." themselves, so a
// path that holds them, in whatever encoding, is an attempt at something else.
func cleanPath(u *url.URL, prefix string) (string, error) {
	rest, ok := strings.CutPrefix(u.Path, prefix)
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return "", refuse(http.StatusNotFound, "this path is not in the share")
	case strings.ContainsRune(rest, 0):
		return "", refuse(http.StatusBadRequest, "a name cannot hold a NUL character")
	case strings.Contains(strings.ToLower(u.RawPath), "%2f"):
		return "", refuse(http.StatusBadRequest, "a name cannot hold an encoded slash (%2F)")
	}
	for name := range strings.SplitSeq(rest, "/") {
		if name == "." || name == ".." {
			return "", refuse(http.StatusBadRequest, "a path cannot hold . or .. as a name; send the path that you mean")
		}
	}
	return path.Clean("/" + rest), nil
}

// local turns a clean path into a name for os.Root.
func local(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

// readable opens a regular file or a directory. O_NONBLOCK: a FIFO that somebody has put into the share must not block.
func readable(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	file, err := root.OpenFile(local(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) {
		return nil, nil, errNotAFile()
	} else if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = errNotAFile()
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

func errNotAFile() error {
	return refuse(http.StatusForbidden, "neither a regular file nor a directory")
}

// entityTag changes with every PUT, because each makes a new inode, and with changes from outside.
func entityTag(info fs.FileInfo) string {
	var inode uint64
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = stat.Ino
	}
	return fmt.Sprintf(`"%x-%x-%x"`, inode, info.ModTime().UnixNano(), info.Size())
}

// tag returns the entity tag of what is at the path, or "" if nothing is there.
func (x *export) tag(name string) (string, error) {
	info, err := x.root.Stat(local(name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return entityTag(info), nil
}

// contentType goes by the name alone: a PROPFIND of a large directory must not open every file.
func contentType(name string) string {
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// files is the file system that x/net/webdav sees during one request that is not a change of files; see request.change
// for those. It reads, and creates the empty file of a LOCK. err is the first error that the library would hide.
type files struct {
	request *request
	err     error
}

// note keeps the error. PROPFIND leaves out whatever has an *fs.PathError; wrapped, one that is not understood ends the
// list instead, since a list without the file would say that it does not exist.
func (f *files) note(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.err == nil {
		f.err = err
	}
	if _, known := refusalOf(err); !known {
		return fmt.Errorf("file system: %w", err)
	}
	return err
}

// Stat ends a walk over a large tree when the request is cut.
func (f *files) Stat(ctx context.Context, name string) (os.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, f.note(err)
	}
	info, err := f.request.x.root.Stat(local(name))
	if err != nil {
		return nil, f.note(err)
	}
	return entityInfo{info, path.Base(name)}, nil
}

func (f *files) OpenFile(ctx context.Context, name string, flag int, _ os.FileMode) (dav.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := f.request.createEmpty(name); err != nil {
			return nil, f.note(err)
		}
	}
	info, err := f.Stat(ctx, name)
	if err != nil {
		return nil, err
	}
	return &node{files: f, name: name, info: info}, nil
}

// Mkdir, RemoveAll and Rename belong to methods that request.change serves.

func (f *files) Mkdir(context.Context, string, os.FileMode) error {
	return f.note(errors.ErrUnsupported)
}

func (f *files) RemoveAll(context.Context, string) error { return f.note(errors.ErrUnsupported) }

func (f *files) Rename(context.Context, string, string) error { return f.note(errors.ErrUnsupported) }

// node is a file or directory whose properties are asked for. It is opened only to list a directory.
type node struct {
	files *files
	name  string
	info  fs.FileInfo
}

func (n *node) Stat() (fs.FileInfo, error) { return n.info, nil }

func (n *node) Close() error { return nil }

func (n *node) Readdir(count int) ([]fs.FileInfo, error) {
	dir, _, err := readable(n.files.request.x.root, n.name)
	if err != nil {
		return nil, n.files.note(err)
	}
	defer dir.Close()
	infos, err := dir.Readdir(count)
	return infos, n.files.note(err)
}

func (n *node) Read([]byte) (int, error) { return 0, n.files.note(errors.ErrUnsupported) }

func (n *node) Seek(int64, int) (int64, error) { return 0, n.files.note(errors.ErrUnsupported) }

func (n *node) Write([]byte) (int, error) { return 0, n.files.note(errors.ErrUnsupported) }

// entityInfo gives x/net/webdav the tag and type that GET sends.
type entityInfo struct {
	fs.FileInfo
	name string
}

func (i entityInfo) Name() string { return i.name }

func (i entityInfo) ETag(context.Context) (string, error) { return entityTag(i.FileInfo), nil }

func (i entityInfo) ContentType(context.Context) (string, error) { return contentType(i.name), nil }
