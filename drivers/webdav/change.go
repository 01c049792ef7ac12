package webdav

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	dav "golang.org/x/net/webdav"
)

// errChanged tells x/net/webdav to stop; its answer is not sent.
var errChanged = errors.New("the change was made by the exporter")

// underLocks is the file system that x/net/webdav sees during a method that changes files. The library checks the If header
// and takes the locks, and calls its file system while it holds them: the first call, whichever it is, runs the whole
// change, and the library does nothing more.
type underLocks struct {
	before func() error
	change func() (status int, err error)
	ran    bool
	status int
	err    error
}

func (u *underLocks) run() error {
	if u.ran {
		return errChanged
	}
	u.ran = true
	if u.err = u.before(); u.err == nil {
		u.status, u.err = u.change()
	}
	return errChanged
}

func (u *underLocks) Mkdir(context.Context, string, os.FileMode) error { return u.run() }

func (u *underLocks) OpenFile(context.Context, string, int, os.FileMode) (dav.File, error) {
	return nil, u.run()
}

func (u *underLocks) RemoveAll(context.Context, string) error { return u.run() }

func (u *underLocks) Rename(context.Context, string, string) error { return u.run() }

func (u *underLocks) Stat(context.Context, string) (os.FileInfo, error) { return nil, u.run() }

// change serves the methods that change files.
func (q *request) change() error {
	q.x.tidy()
	under, answer := &underLocks{}, &recorder{header: http.Header{}}
	switch q.Method {
	case "PUT":
		under.change = q.put
	case "DELETE":
		under.change = q.remove
	case "MKCOL":
		under.change = q.makeCollection
	default:
		to, err := q.destination()
		if err != nil {
			return err
		}
		under.change = func() (int, error) { return q.transfer(to) }
	}
	under.before = q.preconditions
	q.handler(under).ServeHTTP(answer, q.Request)
	switch {
	case !under.ran:
		return answer.send(q.out)
	case under.err != nil:
		return under.err
	case q.Method == "DELETE" || q.Method == "MOVE":
		q.x.locks.end(q.path)
	}
	q.sign()
	q.out.WriteHeader(under.status)
	return nil
}

// sign says in the answer who has made a change, and in which epoch it was committed: mayWrite has checked that it is the one
// that the request began in.
func (q *request) sign() {
	spec := q.terms.spec
	q.out.Header().Set(Replica, string(spec.ID.Replica))
	q.out.Header().Set(Epoch, strconv.FormatUint(spec.Epoch, 10))
}

// put prepares the whole file in the staging directory. A body that breaks off leaves the old content.
func (q *request) put() (int, error) {
	switch {
	case strings.HasSuffix(q.URL.Path, "/") || q.path == "/":
		return 0, refuse(http.StatusMethodNotAllowed, "a file cannot have the name of a directory")
	case q.Header.Get("Content-Range") != "":
		return 0, refuse(http.StatusBadRequest, "a part of a file cannot be written; send the whole file")
	}
	to, err := q.x.entryOf(q.path, http.StatusConflict)
	if err != nil {
		return 0, err
	}
	defer to.close()
	old, err := to.status()
	if err != nil {
		return 0, err
	}
	if err := mayPut(old); err != nil {
		return 0, err
	}
	room := q.terms.ledger.reserve(old.bytes)
	defer room.drop()
	from, tag, err := q.receive(room)
	if err != nil {
		return 0, err
	}
	replaced, err := q.publish(from, to, room, mayPut)
	if err != nil {
		q.x.discard(from)
		return 0, err
	}
	q.out.Header().Set("ETag", tag)
	return created(replaced), nil
}

func mayPut(old status) error {
	if old.dir {
		return refuse(http.StatusMethodNotAllowed, "this is a directory; a file cannot replace it")
	}
	return nil
}

// preconditions evaluates If-Match and If-None-Match (RFC 9110, section 13) for what is at the path; x/net/webdav does not.
// The locks that are held keep it so.
func (q *request) preconditions() error {
	want, unwanted := q.Header.Get("If-Match"), q.Header.Get("If-None-Match")
	if want == "" && unwanted == "" {
		return nil
	}
	tag, err := q.x.tag(q.path)
	switch {
	case err != nil:
		return err
	case want != "" && !lists(want, tag):
		return refuse(http.StatusPreconditionFailed, "If-Match: this is not the version that is there")
	case unwanted != "" && lists(unwanted, tag):
		return refuse(http.StatusPreconditionFailed, "If-None-Match: this name or version is there already")
	}
	return nil
}

// lists reports whether a header names the tag; * names whatever exists. A weak tag names nothing here.
func lists(header, tag string) bool {
	if tag == "" {
		return false
	}
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimSpace(one); one == "*" || one == tag {
			return true
		}
	}
	return false
}

func created(replaced bool) int {
	if replaced {
		return http.StatusNoContent
	}
	return http.StatusCreated
}

// receive stores the body in the staging directory, durably, and returns the entry and its tag.
func (q *request) receive(room *reservation) (entry, string, error) {
	if err := room.grow(max(0, q.ContentLength)); err != nil {
		return entry{}, "", err
	}
	en := q.x.stagingEntry()
	file, err := q.x.staging.OpenFile(en.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return entry{}, "", err
	}
	var to io.Writer = file
	if q.ContentLength < 0 {
		to = &metered{file, room}
	}
	_, err = io.Copy(to, q.Body)
	// failpoint: received
	if err == nil {
		err = q.x.owner.disk.sync(file)
	}
	info, statErr := file.Stat()
	if err := errors.Join(err, statErr, file.Close()); err != nil {
		q.x.discard(en)
		return entry{}, "", err
	}
	// failpoint: staged
	return en, entityTag(info), nil
}

// metered reserves room before it writes.
type metered struct {
	io.Writer
	room *reservation
}

func (m *metered) Write(p []byte) (int, error) {
	if err := m.room.grow(int64(len(p))); err != nil {
		return 0, err
	}
	return m.Writer.Write(p)
}

func (q *request) remove() (int, error) {
	en, err := q.x.entryOf(q.path, http.StatusNotFound)
	if err != nil {
		return 0, err
	}
	defer en.close()
	return http.StatusNoContent, q.bury(en)
}

func (q *request) makeCollection() (int, error) {
	if q.ContentLength != 0 {
		return 0, refuse(http.StatusUnsupportedMediaType, "MKCOL takes no body")
	}
	en, err := q.x.entryOf(q.path, http.StatusConflict)
	if err != nil {
		return 0, err
	}
	defer en.close()
	return http.StatusCreated, q.makeDir(en)
}

// destination is the path that COPY and MOVE go to. A tree cannot move into itself or onto a directory that holds it; a copy
// of it can.
func (q *request) destination() (string, error) {
	u, err := url.Parse(q.Header.Get("Destination"))
	switch {
	case err != nil || u.Path == "":
		return "", refuse(http.StatusBadRequest, "the Destination header is missing or is no URL")
	case u.Host != "" && u.Host != q.Host:
		return "", refuse(http.StatusBadGateway, "the destination is on another server")
	case u.Path != q.x.path && !strings.HasPrefix(u.Path, q.x.path+"/"):
		return "", refuse(http.StatusBadGateway, "the destination is in another share")
	}
	to, err := cleanPath(u, q.x.path)
	if err == nil && (to == q.path || q.Method == "MOVE" && (within(to, q.path) || within(q.path, to))) {
		return "", refuse(http.StatusForbidden, "source and destination are the same, or one is in the other")
	}
	return to, err
}

// transfer serves COPY and MOVE.
func (q *request) transfer(to string) (int, error) {
	dest, err := q.x.entryOf(to, http.StatusConflict)
	if err != nil {
		return 0, err
	}
	defer dest.close()
	may := func(old status) error {
		if old.exists && q.Header.Get("Overwrite") == "F" {
			return refuse(http.StatusPreconditionFailed, "the destination exists, and the request says not to overwrite it")
		}
		return nil
	}
	if q.Method == "COPY" {
		return q.copy(dest, may)
	}
	source, err := q.x.entryOf(q.path, http.StatusNotFound)
	if err != nil {
		return 0, err
	}
	defer source.close()
	replaced, err := q.publish(source, dest, q.terms.ledger.reserve(0), may)
	return created(replaced), err
}

func within(name, dir string) bool { return strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") }

// copy prepares the whole copy in the staging directory, so it may go into its own source.
func (q *request) copy(dest entry, may func(old status) error) (int, error) {
	old, err := dest.status()
	if err != nil {
		return 0, err
	}
	if err := may(old); err != nil {
		return 0, err
	}
	room := q.terms.ledger.reserve(old.bytes)
	defer room.drop()
	c := copier{ctx: q.Context(), from: q.x.root, to: q.x.staging, disk: q.x.owner.disk, deep: q.Header.Get("Depth") != "0", room: room}
	from := q.x.stagingEntry()
	if err = c.copy(local(q.path), from.name); err == nil {
		err = c.sync(from)
	}
	replaced := false
	if err == nil {
		replaced, err = q.publish(from, dest, room, may)
	}
	if err != nil {
		q.x.discard(from)
	}
	return created(replaced), err
}
