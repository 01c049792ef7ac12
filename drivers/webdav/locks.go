package webdav

import (
	"net/http"
	"strings"
	"sync"
	"time"

	dav "golang.org/x/net/webdav"
)

// maxLockTime bounds locks, so that a client that is gone does not lock a file for ever (RFC 4918, section 10.7, leaves
// the time to the server).
const maxLockTime = "Second-3600"

// lockTable adds to the lock system of x/net/webdav that the locks on a resource end with it: a client that locks a file,
// deletes it and creates it again would else meet its own lock.
type lockTable struct {
	dav.LockSystem
	mu    sync.Mutex
	taken map[string]taken // by token
}

type taken struct {
	root    string
	expires time.Time
}

func newLockTable(system dav.LockSystem) *lockTable {
	return &lockTable{LockSystem: system, taken: make(map[string]taken)}
}

func (t *lockTable) remember(now time.Time, token string, details dav.LockDetails) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for token, lock := range t.taken {
		if lock.expires.Before(now) {
			delete(t.taken, token)
		}
	}
	t.taken[token] = taken{root: local(details.Root), expires: now.Add(details.Duration)}
}

// end removes the locks on path and under it.
func (t *lockTable) end(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for token, lock := range t.taken {
		if lock.root == local(path) || strings.HasPrefix(lock.root, local(path)+"/") {
			_ = t.Unlock(time.Now(), token) // fails only for a lock that has ended already
			delete(t.taken, token)
		}
	}
}

// methodLocks is the lock table as one request sees it.
type methodLocks struct {
	*lockTable
	method string
	// tag returns the entity tag of a path, "" if nothing is there.
	tag func(path string) (string, error)
}

// Confirm also evaluates the entity tags of an If header, which the lock system of x/net/webdav ignores. They are those of
// the path of the request, or of the tagged one.
func (m methodLocks) Confirm(now time.Time, name0, name1 string, conditions ...dav.Condition) (func(), error) {
	path := name0
	if path == "" {
		path = name1
	}
	for _, c := range conditions {
		if c.ETag == "" {
			continue
		}
		if tag, err := m.tag(path); err != nil {
			return nil, err
		} else if (tag == c.ETag) == c.Not {
			return nil, dav.ErrConfirmationFailed
		}
	}
	return m.lockTable.LockSystem.Confirm(now, name0, name1, conditions...)
}

// Create is called by x/net/webdav for LOCK, and with depth 0 to find out whether a path is locked by somebody else.
// What removes or replaces a directory needs to know that of everything in it.
func (m methodLocks) Create(now time.Time, details dav.LockDetails) (string, error) {
	switch m.method {
	case "DELETE", "MOVE", "COPY":
		details.ZeroDepth = false
	}
	token, err := m.lockTable.LockSystem.Create(now, details)
	if err == nil && m.method == "LOCK" {
		m.remember(now, token, details)
	}
	return token, err
}

func (m methodLocks) Refresh(now time.Time, token string, duration time.Duration) (dav.LockDetails, error) {
	details, err := m.lockTable.LockSystem.Refresh(now, token, duration)
	if err == nil {
		m.remember(now, token, details)
	}
	return details, err
}

// boundLock replaces a timeout that is missing or longer than an hour.
func boundLock(h http.Header) {
	first, _, _ := strings.Cut(h.Get("Timeout"), ",")
	seconds, ok := strings.CutPrefix(strings.TrimSpace(first), "Second-")
	asked, err := time.ParseDuration(seconds + "s")
	if !ok || err != nil || asked > time.Hour {
		h.Set("Timeout", maxLockTime)
	}
}
