package webdav

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"syscall"

	"github.com/cairn-storage/cairn"
)

// methods is the Allow header of a 405.
const methods = "OPTIONS, GET, HEAD, PROPFIND, PUT, DELETE, MKCOL, COPY, MOVE, LOCK, UNLOCK, PROPPATCH"

// refusal is an answer other than success: a status and one line that says what, why and what to do.
type refusal struct {
	status int
	line   string
	// retry is the Retry-After header in seconds, or "".
	retry string
	// unchanged: the request has certainly had no effect, and may be sent to another node.
	unchanged bool
}

// Unchanged is the header of a 503 whose request has had no effect, because the share is not served here, or not any more.
const Unchanged = "Cairn-Unchanged"

// Headers of the answer to a change that was made: the ID of the replica that committed it, and its epoch at that moment. Who
// collects them can tell whether two copies were ever writable at the same time.
const (
	Replica = "Cairn-Replica"
	Epoch   = "Cairn-Epoch"
)

// Point is the header of what is read of a replica that is not active: the point in time that it was read from. Answers with the same one
// belong together.
const Point = "Cairn-Point"

func (r *refusal) Error() string { return fmt.Sprintf("%s (%d)", r.line, r.status) }

func refuse(status int, line string) *refusal { return &refusal{status: status, line: line} }

// refuseRole is for requests that somebody else may serve, before they have had any effect.
func refuseRole(line string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, line: line, unchanged: true}
}

// refusalOf finds the answer to an error. Only what is certainly absent is 404; what is not recognised is 500, and known
// is false: the operator has to see it, while the client learns nothing of the machine.
func refusalOf(err error) (answer *refusal, known bool) {
	var errno syscall.Errno
	var path *fs.PathError
	switch {
	case errors.As(err, &answer):
		return answer, true
	case errors.Is(err, cairn.ErrNoSpace):
		return refuse(http.StatusInsufficientStorage, err.Error()), true
	case errors.Is(err, cairn.ErrUnavailable):
		answer = refuseRole("this node has lost touch with the cluster and may not serve the share now; try again")
		answer.retry = "2"
		return answer, true
	case errors.Is(err, cairn.ErrStale):
		// 410 would be read as "deleted for ever" by programs that synchronise directories.
		return refuseRole("the share is served elsewhere or in another role now; look up its export location: cairn share show"), true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return refuse(http.StatusServiceUnavailable, "the export was withdrawn during the request"), true
	case errors.As(err, &errno):
		return refusalOfErrno(errno)
	case errors.As(err, &path) && !errors.Is(err, fs.ErrClosed):
		// Without an errno it is os.Root that refused: the path leads out of the share.
		return refuse(http.StatusForbidden, "a symbolic link on this path leads out of the share"), true
	}
	return internal(), false
}

func refusalOfErrno(errno syscall.Errno) (answer *refusal, known bool) {
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR:
		return refuse(http.StatusNotFound, "no such file or directory"), true
	case syscall.ENOSPC, syscall.EDQUOT:
		return refuse(http.StatusInsufficientStorage, "the storage under this share is full; delete files, or tell the operator to add space to the pool"), true
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		return refuse(http.StatusForbidden, "the file system of the node does not permit this"), true
	case syscall.ELOOP:
		return refuse(http.StatusForbidden, "the symbolic links on this path go in a circle"), true
	case syscall.ENAMETOOLONG:
		return refuse(http.StatusRequestURITooLong, "a name on this path is longer than the file system can hold"), true
	}
	return internal(), false
}

func internal() *refusal {
	return refuse(http.StatusInternalServerError, "the node could not do this; its log says why")
}
