// Package webdav serves replicas and mounted snapshots as WebDAV (RFC 4918), as an http.Handler for the node's HTTPS port.
//
// Reading, locks and properties are those of golang.org/x/net/webdav. What changes files is done here, because its own
// PUT, MOVE and COPY write in place, remove the destination first and cannot say 507. Every change is prepared in the
// staging directory, made durable, and published by one rename in a commit section. Right before the rename the section
// asks once more whether the replica may be written here: what was slow through a fence, a demotion or a withdrawn rule
// is refused.
//
// It does not know how TLS is set up, what a lease is (drivers.Guard answers for it), nor how a pool keeps its
// directories. It keeps no state that a restart must find again; WebDAV locks end with the export.
package webdav

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// stallTimeout ends a transfer that moves no byte.
const stallTimeout = 2 * time.Minute

// Config is what an exporter needs from its node. All fields are required.
type Config struct {
	BaseURL string // https://host:port as clients reach it
	Guard   drivers.Guard
	Logger  *slog.Logger
}

// Exporter implements drivers.Exporter, drivers.Quiescer and http.Handler. It starts no goroutines.
type Exporter struct {
	config   Config
	stall    time.Duration
	disk     disk
	counters counters

	mu      sync.RWMutex
	exports map[drivers.ExportID]*export
	// paths holds the exports of each URL path, the one that answers first: two replicas of a share may be on one node.
	paths  map[string][]*export
	fences map[cairn.ReplicaID]uint64
}

// disk is how data is made durable: what cannot be seen from outside, so that tests can.
type disk struct {
	sync    func(*os.File) error
	syncAll func(*os.File) error // the whole file system that the file is on
}

func syncfs(file *os.File) error { return unix.Syncfs(int(file.Fd())) }

var (
	_ drivers.Exporter = (*Exporter)(nil)
	_ drivers.Quiescer = (*Exporter)(nil)

	_ drivers.StandbyServer = (*Exporter)(nil)
)

// New returns an exporter that serves nothing yet.
func New(config Config) *Exporter {
	config.BaseURL = strings.TrimSuffix(config.BaseURL, "/")
	return &Exporter{
		config:  config,
		stall:   stallTimeout,
		disk:    disk{sync: (*os.File).Sync, syncAll: syncfs},
		exports: make(map[drivers.ExportID]*export),
		paths:   make(map[string][]*export),
		fences:  make(map[cairn.ReplicaID]uint64),
	}
}

// Export serves spec, or changes the terms of what is served. It empties this replica's leftovers in Staging and counts
// the used bytes when it opens the directory; served again from the same directory it does neither.
// Errors: cairn.ErrInvalid for a spec that cannot be served, cairn.ErrNotFound if Root is certainly absent, cairn.ErrStale
// for an epoch below the one that is served or fenced.
func (e *Exporter) Export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	next, err := newTerms(spec)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", describe(spec.ID), err)
	}
	current, floor := e.known(spec.ID)
	if spec.Epoch < floor {
		return nil, fmt.Errorf("export %s: epoch %d is below %d: %w", describe(spec.ID), spec.Epoch, floor, cairn.ErrStale)
	}
	if current != nil && !current.serves(spec) {
		if err := e.Unexport(ctx, spec.ID); err != nil {
			return nil, err
		}
		current = nil
	}
	opened := current == nil
	if opened {
		if current, err = e.open(ctx, spec); err != nil {
			return nil, fmt.Errorf("export %s: %w", describe(spec.ID), err)
		}
	}
	if err := current.adopt(ctx, next); err != nil {
		if opened {
			current.close()
		}
		return nil, fmt.Errorf("export %s: %w", describe(spec.ID), err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exports[spec.ID] = current
	e.route(current)
	return []cairn.ExportLocation{{
		URL:       e.config.BaseURL + current.path + "/",
		Preferred: !next.readOnly(),
		ReadOnly:  next.readOnly(),
	}}, nil
}

// known returns the export of the ID, or nil, and the lowest epoch that Export may still have.
func (e *Exporter) known(id drivers.ExportID) (*export, uint64) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	x, floor := e.exports[id], e.fences[id.Replica]
	if x != nil {
		floor = max(floor, x.terms.Load().spec.Epoch)
	}
	return x, floor
}

// route enters x in the paths. A writable replica answers before a read-only one, then the higher epoch, then the later point of a
// standby.
func (e *Exporter) route(x *export) {
	served := append(slices.DeleteFunc(e.paths[x.path], func(o *export) bool { return o == x }), x)
	slices.SortFunc(served, func(a, b *export) int {
		s, t := a.terms.Load(), b.terms.Load()
		return cmp.Or(cmp.Compare(s.rank(), t.rank()), cmp.Compare(t.spec.Epoch, s.spec.Epoch),
			cmp.Compare(s.spec.ID.Replica, t.spec.ID.Replica), cmp.Compare(t.spec.ID.Snapshot, s.spec.ID.Snapshot))
	})
	e.paths[x.path] = served
}

// Unexport cuts the requests of the export, downloads too, and returns when the last one has ended. If the context ends
// first the export serves nothing any more, but is still listed; Unexport again waits again.
func (e *Exporter) Unexport(ctx context.Context, id drivers.ExportID) error {
	x, _ := e.known(id)
	if x == nil {
		return nil
	}
	x.cut()
	if _, err := x.requests.hold(ctx); err != nil {
		return fmt.Errorf("unexport %s: requests in progress: %w: %w", describe(id), cairn.ErrTimeout, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exports[id] != x {
		return nil // another call has removed it
	}
	delete(e.exports, id)
	if rest := slices.DeleteFunc(e.paths[x.path], func(o *export) bool { return o == x }); len(rest) > 0 {
		e.paths[x.path] = rest
	} else {
		delete(e.paths, x.path)
	}
	x.close()
	return nil
}

// Exports lists what is served, in order of replica, then snapshot.
func (e *Exporter) Exports(context.Context) ([]drivers.ExportSpec, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	specs := make([]drivers.ExportSpec, 0, len(e.exports))
	for _, x := range e.exports {
		spec := x.terms.Load().spec
		spec.Rules = slices.Clone(spec.Rules)
		specs = append(specs, spec)
	}
	slices.SortFunc(specs, func(a, b drivers.ExportSpec) int { return compareIDs(a.ID, b.ID) })
	return specs, nil
}

// Fence refuses every write of a lower epoch from now on, also of exports to come, and returns when no commit is in
// progress. Uploads that still run are refused at their commit.
func (e *Exporter) Fence(ctx context.Context, id cairn.ReplicaID, below uint64) error {
	e.mu.Lock()
	e.fences[id] = max(e.fences[id], below)
	x := e.exports[drivers.ExportID{Replica: id}]
	e.mu.Unlock()
	if x == nil || x.terms.Load().spec.Epoch >= below {
		return nil
	}
	release, err := x.writes.hold(ctx)
	if err != nil {
		return fmt.Errorf("fence %s: writes in progress: %w: %w", id, cairn.ErrTimeout, err)
	}
	release()
	return nil
}

// Quiesce holds the commits of the export. Reads go on, and so do uploads until they are ready to be published.
func (e *Exporter) Quiesce(ctx context.Context, id drivers.ExportID) (resume func(), err error) {
	x, _ := e.known(id)
	if x == nil {
		return func() {}, nil
	}
	release, err := x.writes.hold(ctx)
	if err != nil {
		return nil, fmt.Errorf("quiesce %s: writes in progress: %w: %w", describe(id), cairn.ErrTimeout, err)
	}
	stop := context.AfterFunc(ctx, release)
	return func() { stop(); release() }, nil
}

// InUse reports whether a request is in progress on the export.
func (e *Exporter) InUse(_ context.Context, id drivers.ExportID) (bool, error) {
	x, _ := e.known(id)
	return x != nil && x.requests.occupied(), nil
}

// fence returns the lowest epoch that may write the replica.
func (e *Exporter) fence(id cairn.ReplicaID) uint64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.fences[id]
}

func compareIDs(a, b drivers.ExportID) int {
	return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Snapshot, b.Snapshot))
}

func describe(id drivers.ExportID) string {
	if id.Snapshot != "" {
		return fmt.Sprintf("replica %s snapshot %s", id.Replica, id.Snapshot)
	}
	return fmt.Sprintf("replica %s", id.Replica)
}
