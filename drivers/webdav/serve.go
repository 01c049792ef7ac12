package webdav

import (
	"context"
	"net/http"
	"slices"
	"strings"

	dav "golang.org/x/net/webdav"
)

// maxXML bounds the request bodies that x/net/webdav parses in memory.
const maxXML = 1 << 20

// request is one request that an export has let in.
type request struct {
	*http.Request
	out *wire
	x   *export
	// terms are those that the request began under; see mayWrite.
	terms *terms
	path  string // within the export
}

// ServeHTTP serves /shares/<share id>/…, /snapshots/<snapshot id>/… and, of replicas that are not active, /replicas/<replica id>/….
func (e *Exporter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.counters.requests.Add(1)
	out := newWire(w, &e.counters, e.stall)
	defer out.finish()
	if err := e.serve(out, r); err != nil {
		answer, known := refusalOf(err)
		if !known {
			e.config.Logger.Error("webdav request failed", "method", r.Method, "path", r.URL.Path, "client", r.RemoteAddr, "err", err)
		}
		out.refuse(answer)
	}
	if out.broken {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
}

func (e *Exporter) serve(out *wire, r *http.Request) error {
	x, err := e.enter(r.URL.Path)
	if err != nil {
		return err
	}
	defer x.requests.leave()
	if x.ctx.Err() != nil {
		return errNotServed() // while there is still a connection to say it on
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(x.ctx, func() { cancel(); out.cut() })()
	r = r.WithContext(ctx)
	r.Body = &body{ReadCloser: r.Body, wire: out}
	q := &request{Request: r, out: out, x: x, terms: x.terms.Load()}
	return q.serve()
}

// enter lets a request into the export that answers for the path. Once another one answers in its place, who was let into the old one
// is inside: see InUse. That this node does not serve a share is no statement about the
// share, so it is not 404: programs that synchronise directories take that for "deleted".
func (e *Exporter) enter(path string) (*export, error) {
	parts := strings.SplitN(path, "/", 4)
	known := len(parts) >= 3 && parts[0] == "" && parts[2] != "" && slices.Contains([]string{"shares", "snapshots", "replicas"}, parts[1])
	if !known {
		return nil, refuse(http.StatusNotFound, "want a path /shares/<share id>/…, /snapshots/<snapshot id>/… or /replicas/<replica id>/…")
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if served := e.paths[strings.Join(parts[:3], "/")]; len(served) > 0 && served[0].requests.tryEnter() {
		return served[0], nil
	}
	return nil, errNotServed()
}

func errNotServed() error {
	return refuseRole("this node does not serve that share, snapshot or replica now; look up its export location: cairn share show")
}

func (q *request) serve() (err error) {
	if q.path, err = cleanPath(q.URL, q.x.path); err != nil {
		return err
	}
	switch q.Method {
	case "GET", "HEAD":
		return q.reading(q.get)
	case "OPTIONS", "PROPFIND":
		return q.reading(q.properties)
	case "PUT", "DELETE", "MKCOL", "COPY", "MOVE":
		return q.writing(q.change)
	case "LOCK", "UNLOCK", "PROPPATCH":
		return q.writing(q.lock)
	}
	return refuse(http.StatusMethodNotAllowed, "this method is not served here")
}

func (q *request) reading(do func() error) error {
	if err := q.terms.allow(q.Request, levelRead); err != nil {
		return err
	}
	if err := q.guard(); err != nil {
		return err
	}
	if spec := q.terms.spec; spec.Standby {
		q.out.Header().Set(Point, string(spec.ID.Snapshot))
	}
	return do()
}

func (q *request) writing(do func() error) error {
	if err := q.mayWrite(); err != nil {
		return err
	}
	return do()
}

func (q *request) guard() error {
	return q.x.owner.config.Guard.Check(q.terms.spec.ID.Replica, q.terms.spec.Epoch)
}

// mayWrite asks everything that can forbid a change, by the terms of this moment: when the request begins, and again when
// it is about to commit.
func (q *request) mayWrite() error {
	now := q.x.terms.Load()
	if err := now.allow(q.Request, levelWrite); err != nil {
		return err
	}
	switch spec := q.terms.spec; {
	case now.readOnly():
		return refuse(http.StatusForbidden, "this is a snapshot or a replica that is not active: it is read-only")
	case now.spec.Epoch != spec.Epoch || now.ledger != q.terms.ledger:
		return errReplaced()
	case q.x.owner.fence(spec.ID.Replica) > spec.Epoch:
		return errReplaced()
	}
	return q.guard()
}

func errReplaced() error {
	return refuseRole("the share changed its role during or before the request; nothing was changed, look up its export location: cairn share show")
}

func (q *request) get() error {
	file, info, err := readable(q.x.root, q.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if info.IsDir() {
		return refuse(http.StatusMethodNotAllowed, "this is a directory; list it with PROPFIND")
	}
	header := q.out.Header()
	header.Set("ETag", entityTag(info))
	header.Set("Content-Type", contentType(q.path))
	header.Set("Cache-Control", "no-cache")
	// A page that somebody has put into a share must not run scripts in the origin of the node.
	header.Set("Content-Security-Policy", "sandbox")
	header.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(q.out, q.Request, q.path, info.ModTime(), file)
	return nil
}

// properties serves the methods of x/net/webdav that read and stream.
func (q *request) properties() error {
	view := &files{request: q}
	if q.Method == "PROPFIND" {
		if _, err := view.Stat(q.Context(), q.path); err != nil {
			return err
		}
	}
	q.limitXML()
	q.handler(view).ServeHTTP(q.out, q.Request)
	if _, known := refusalOf(view.err); view.err != nil && !known {
		return view.err
	}
	return nil
}

// lock serves the methods of x/net/webdav that concern locks and dead properties. There are none of the latter, so
// PROPPATCH tells the client of each property that it cannot be set.
func (q *request) lock() error {
	boundLock(q.Header)
	q.limitXML()
	view, answer := &files{request: q}, &recorder{header: http.Header{}}
	q.handler(view).ServeHTTP(answer, q.Request)
	if view.err != nil {
		return view.err
	}
	return answer.send(q.out)
}

func (q *request) limitXML() {
	q.Body = http.MaxBytesReader(q.out, q.Body, maxXML)
}

func (q *request) handler(system dav.FileSystem) *dav.Handler {
	return &dav.Handler{Prefix: q.x.path, FileSystem: system, LockSystem: methodLocks{q.x.locks, q.Method, q.x.tag}}
}

// recorder keeps a small answer until it is certain.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.body = append(r.body, p...)
	return len(p), nil
}

// send passes the answer on; a refusal gets a line that tells more than its status.
func (r *recorder) send(out *wire) error {
	switch {
	case r.status == dav.StatusLocked:
		return refuse(r.status, "a client holds a lock on this path or in it, or another request changes it just now; try again when that is over")
	case r.status == http.StatusPreconditionFailed:
		return refuse(r.status, "the lock tokens or conditions of the request do not hold")
	case r.status >= http.StatusBadRequest:
		return refuse(r.status, "the request cannot be served as it is: "+http.StatusText(r.status))
	}
	for name, values := range r.header {
		out.Header()[name] = values
	}
	out.WriteHeader(r.status)
	_, _ = out.Write(r.body) // a client that is gone needs no answer
	return nil
}
