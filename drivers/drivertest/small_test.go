package drivertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// defect is one mistake of the trade.
type defect string

const (
	none              defect = ""
	readyBeforeData   defect = "ready before data"
	errorMeansAbsent  defect = "any error means absent"
	deletesHalf       defect = "deletes half"
	forgetsEpoch      defect = "forgets epoch"
	neverChecksEpoch  defect = "never checks epoch"
	remembersSize     defect = "keeps size in memory"
	takesForeign      defect = "takes foreign"
	adoptsAnySpec     defect = "adopts any spec"
	forcesDelete      defect = "forces delete"
	ignoresContext    defect = "ignores context"
	liveSnapshot      defect = "live snapshot"
	resizesOverData   defect = "shrinks below usage"
	leaksOnRetry      defect = "leaks on retry"
	recreatesOnCrash  defect = "recreates a snapshot"
	deletesNeighbours defect = "matches by prefix"
	failsOnSecondTime defect = "delete is not idempotent"
)

// disk is storage in memory: paths and contents. It outlives the pool. Roots carry its name, so that they can be told from
// those of other disks.
type disk struct {
	name   string
	mu     sync.Mutex
	files  map[string]string
	born   map[string]uint64 // the order of snapshots by path
	broken bool
	defect defect
}

var errDisk = errors.New("input/output error")

func (d *disk) read(path string) (string, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text, ok := d.files[path]
	if d.broken {
		return "", false, errDisk
	}
	return text, ok, nil
}

func (d *disk) under(prefix string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var paths []string
	for path := range d.files {
		if strings.HasPrefix(path, prefix) {
			paths = append(paths, path)
		}
	}
	return slices.Sorted(slices.Values(paths))
}

func (d *disk) order(path string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.born[path]
}

func (d *disk) change(f func(map[string]string)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return errDisk
	}
	f(d.files)
	for path := range d.files {
		if strings.Contains(path, "/snapshots/") && d.born[path] == 0 {
			d.born[path] = uint64(len(d.born) + 1)
		}
	}
	return nil
}

// Open implements Storage.
func (d *disk) Open(_ context.Context, step Step) (drivers.Pool, error) {
	return &smallPool{disk: d, step: step, memory: make(map[cairn.ReplicaID]int64), epochs: make(map[cairn.ReplicaID]uint64), sending: make(map[string]int)}, nil
}

// Close implements Storage.
func (d *disk) Close(drivers.Pool) error { return nil }

// Plant implements Storage.
func (d *disk) Plant(name string) (string, error) {
	return d.name + name + "/data", d.change(func(files map[string]string) { files[name+"/data"] = "" })
}

// Break implements Storage.
func (d *disk) Break() (func() error, error) {
	set := func(broken bool) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.broken = broken
		return nil
	}
	return func() error { return set(false) }, set(true)
}

// Survey implements Storage: a name is foreign if nothing under it is a mark, and debris if no object explains it.
func (d *disk) Survey(objects []drivers.Object) (map[string]string, []string, error) {
	known, foreign, debris := make(map[string]bool), make(map[string]string), []string(nil)
	for _, object := range objects {
		id := string(object.ID)
		known[id+"/mark"], known[id+"/data"] = true, true
		for _, path := range d.under(id + "/incoming/") {
			known[path] = true
		}
		for _, snap := range object.Snapshots {
			known[id+"/snapshots/"+string(snap.ID)], known[id+"/half/"+string(snap.ID)] = true, true
		}
	}
	for _, path := range d.under("") {
		name, rest, _ := strings.Cut(path, "/")
		switch {
		case known[path]:
		case rest == "data" && len(d.under(name+"/")) == 1:
			foreign[name] = d.name + path
		default:
			debris = append(debris, path)
		}
	}
	return foreign, debris, nil
}

// smallPool is the smallest pool that keeps the contract, with one defect planted if its disk says so. A mark is written
// in one step; a replica is ready when its mark says so, and a snapshot when it stands under snapshots/.
type smallPool struct {
	*disk
	step   Step
	mu     sync.Mutex
	memory map[cairn.ReplicaID]int64
	epochs map[cairn.ReplicaID]uint64
	// sending counts the streams of "replica/snapshot".
	sending map[string]int
}

type smallMark struct {
	Epoch    uint64
	Size     int64
	Ready    bool
	Sealed   bool
	Reverted cairn.SnapshotID
}

// do performs a step, off the caller's goroutine, so that the caller gets away from one that hangs.
func (p *smallPool) do(ctx context.Context, name string, f func(map[string]string)) error {
	if p.defect == ignoresContext {
		return p.step(name, func() error { return p.change(f) })
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.step(name, func() error { return p.change(f) }) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *smallPool) write(ctx context.Context, id cairn.ReplicaID, m smallMark) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return p.do(ctx, "write mark", func(files map[string]string) { files[string(id)+"/mark"] = string(text) })
}

func (p *smallPool) mark(id cairn.ReplicaID) (smallMark, error) {
	if err := cairn.CheckName("replica", string(id)); err != nil {
		return smallMark{}, err
	}
	var m smallMark
	text, ok, err := p.read(string(id) + "/mark")
	switch {
	case err != nil && p.defect == errorMeansAbsent:
		return m, cairn.ErrNotFound
	case err != nil:
		return m, err
	case ok:
		return m, json.Unmarshal([]byte(text), &m)
	case len(p.under(string(id)+"/")) > 0 && p.defect != takesForeign && p.defect != deletesHalf:
		return m, fmt.Errorf("foreign object: %w", cairn.ErrExists)
	}
	return m, cairn.ErrNotFound
}

// admit refuses a lower epoch and keeps a higher one.
func (p *smallPool) admit(ctx context.Context, id cairn.ReplicaID, m *smallMark, epoch uint64) error {
	p.mu.Lock()
	known := max(m.Epoch, p.epochs[id])
	p.mu.Unlock()
	if epoch < known && p.defect != neverChecksEpoch {
		return cairn.ErrStale
	}
	if p.defect == forgetsEpoch {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.epochs[id] = epoch
		return nil
	}
	if epoch <= m.Epoch {
		return nil
	}
	m.Epoch = epoch
	return p.write(ctx, id, *m)
}

func (p *smallPool) Info(context.Context) (drivers.Info, error) {
	return drivers.Info{Total: 1 << 40, Free: 1 << 39, Enforcement: drivers.EnforcedByExporter}, nil
}

func (p *smallPool) Stat(_ context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	m, err := p.mark(id)
	if err != nil {
		return drivers.Object{}, err
	}
	object := drivers.Object{ID: id, Epoch: m.Epoch, Size: m.Size, Ready: m.Ready, Sealed: m.Sealed, Reverted: m.Reverted}
	p.mu.Lock()
	if size, ok := p.memory[id]; ok {
		object.Size = size
	}
	p.mu.Unlock()
	if m.Ready {
		object.Root = p.name + string(id) + "/data"
	}
	for _, sub := range []string{"/half/", "/snapshots/"} {
		for _, path := range p.under(string(id) + sub) {
			snap := drivers.SnapshotObject{ID: cairn.SnapshotID(path[strings.LastIndex(path, "/")+1:])}
			if sub == "/snapshots/" {
				snap.Ready, snap.Root, snap.Order = true, p.name+path, p.order(path)
				if p.defect == liveSnapshot {
					snap.Root = object.Root
				}
			}
			object.Snapshots = append(object.Snapshots, snap)
		}
	}
	slices.SortFunc(object.Snapshots, func(a, b drivers.SnapshotObject) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return object, nil
}

func (p *smallPool) List(ctx context.Context) ([]drivers.Object, error) {
	if _, _, err := p.read(""); err != nil && p.defect != errorMeansAbsent {
		return nil, err
	}
	ids := make(map[string]bool)
	for _, path := range p.under("") {
		if id, ok := strings.CutSuffix(path, "/mark"); ok {
			ids[id] = true
		}
	}
	var list []drivers.Object
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		object, err := p.Stat(ctx, cairn.ReplicaID(id))
		if errors.Is(err, cairn.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, object)
	}
	return list, nil
}

func (p *smallPool) Create(ctx context.Context, spec drivers.CreateSpec) (drivers.Object, error) {
	if err := cairn.CheckSize(spec.Size); err != nil {
		return drivers.Object{}, err
	}
	m, err := p.mark(spec.ID)
	if err != nil && !errors.Is(err, cairn.ErrNotFound) {
		return drivers.Object{}, err
	}
	if err == nil {
		if err := p.admit(ctx, spec.ID, &m, spec.Epoch); err != nil {
			return drivers.Object{}, err
		}
		if m.Ready && m.Size != spec.Size && p.defect != adoptsAnySpec {
			return drivers.Object{}, cairn.ErrExists
		}
	}
	if !m.Ready {
		if err := p.build(ctx, spec.ID, smallMark{Epoch: spec.Epoch, Size: spec.Size}); err != nil {
			return drivers.Object{}, err
		}
	}
	return p.Stat(ctx, spec.ID)
}

func (p *smallPool) build(ctx context.Context, id cairn.ReplicaID, m smallMark) error {
	m.Ready = p.defect == readyBeforeData
	if err := p.write(ctx, id, m); err != nil {
		return err
	}
	if p.defect == leaksOnRetry {
		scratch := fmt.Sprintf("%s/scratch%d", id, len(p.under(string(id)+"/scratch")))
		if err := p.do(ctx, "make scratch", func(files map[string]string) { files[scratch] = "" }); err != nil {
			return err
		}
		defer func() { _ = p.do(ctx, "remove scratch", func(files map[string]string) { delete(files, scratch) }) }()
	}
	if err := p.do(ctx, "make data", func(files map[string]string) { files[string(id)+"/data"] = "" }); err != nil {
		return err
	}
	m.Ready = true
	return p.write(ctx, id, m)
}

func (p *smallPool) Delete(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	m, err := p.mark(id)
	if errors.Is(err, cairn.ErrNotFound) && p.defect != failsOnSecondTime {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.admit(ctx, id, &m, epoch); err != nil {
		return err
	}
	if len(p.under(string(id)+"/snapshots/")) > 0 && p.defect != forcesDelete {
		return cairn.ErrInUse
	}
	if m.Ready && p.defect != deletesHalf {
		m.Ready = false
		if err := p.write(ctx, id, m); err != nil {
			return err
		}
	}
	paths := p.under(string(id) + "/")
	if p.defect == deletesNeighbours {
		paths = p.under(string(id))
	}
	// The mark goes last, unless half a deletion is the defect.
	slices.SortStableFunc(paths, func(a, b string) int { return rank(a, p.defect) - rank(b, p.defect) })
	for _, path := range paths {
		if err := p.do(ctx, "remove "+path, func(files map[string]string) { delete(files, path) }); err != nil {
			return err
		}
	}
	return nil
}

func rank(path string, d defect) int {
	if strings.HasSuffix(path, "/mark") != (d == deletesHalf) {
		return 1
	}
	return 0
}

func (p *smallPool) Resize(ctx context.Context, id cairn.ReplicaID, epoch uint64, size int64) error {
	if err := cairn.CheckSize(size); err != nil {
		return err
	}
	m, err := p.mark(id)
	if err != nil {
		return err
	}
	if err := p.admit(ctx, id, &m, epoch); err != nil {
		return err
	}
	data, _, err := p.read(string(id) + "/data")
	if err != nil {
		return err
	}
	if int64(len(data)) > size && p.defect != resizesOverData {
		return fmt.Errorf("%d used: %w", len(data), cairn.ErrDataLoss)
	}
	if p.defect == remembersSize {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.memory[id] = size
		return nil
	}
	m.Size = size
	return p.write(ctx, id, m)
}

func (p *smallPool) CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (drivers.SnapshotObject, error) {
	path := string(id) + "/snapshots/" + string(snap)
	object := drivers.SnapshotObject{ID: snap, Ready: true, Root: p.name + path}
	if err := cairn.CheckName("snapshot", string(snap)); err != nil {
		return object, err
	}
	m, err := p.mark(id)
	if err != nil {
		return object, err
	}
	if err := p.admit(ctx, id, &m, epoch); err != nil {
		return object, err
	}
	if _, ok, err := p.read(path); err != nil || ok && p.defect != recreatesOnCrash {
		return object, err
	}
	data, _, err := p.read(string(id) + "/data")
	if err != nil {
		return object, err
	}
	half := string(id) + "/half/" + string(snap)
	if p.defect == readyBeforeData {
		half = path
	}
	// A copy takes time: it is there by halves before it is there.
	for _, part := range []string{data[:len(data)/2], data} {
		if err := p.do(ctx, "copy", func(files map[string]string) { files[half] = part }); err != nil {
			return object, err
		}
	}
	return object, p.do(ctx, "COMMIT", func(files map[string]string) {
		text := files[half]
		delete(files, half)
		files[path] = text
	})
}

func (p *smallPool) DeleteSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	if err := cairn.CheckName("snapshot", string(snap)); err != nil {
		return err
	}
	m, err := p.mark(id)
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.admit(ctx, id, &m, epoch); err != nil {
		return err
	}
	p.mu.Lock()
	sending := p.sending[string(id)+"/"+string(snap)] > 0
	p.mu.Unlock()
	if sending && p.defect != deletesSent {
		return fmt.Errorf("is being sent: %w", cairn.ErrInUse)
	}
	for _, sub := range []string{"/snapshots/", "/half/"} {
		path := string(id) + sub + string(snap)
		if err := p.do(ctx, "remove "+path, func(files map[string]string) { delete(files, path) }); err != nil {
			return err
		}
	}
	return nil
}
