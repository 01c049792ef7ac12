package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// holdTag keeps a snapshot from being destroyed while it is sent. One that nobody in this process has put there was left by a
// crash: whoever is stopped by it releases it.
const holdTag = "cairn-send"

// sends counts the streams of each snapshot that are being written.
type sends struct {
	mu    sync.Mutex
	count map[string]int
}

func (s *sends) add(snapshot string, n int) (left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = make(map[string]int)
	}
	s.count[snapshot] += n
	left = s.count[snapshot]
	if left == 0 {
		delete(s.count, snapshot)
	}
	return left
}

// releaseStaleHolds is called when no stream can be under way in this process.
func (o *op) releaseStaleHolds(rows []row) {
	for _, r := range rows {
		if r["type"] != "snapshot" || r["cairn:snapshot"] == "" || r.number("userrefs") == 0 {
			continue
		}
		if err := o.releaseStaleHold(r["name"]); err != nil {
			o.log.Warn("a snapshot cannot be deleted until its hold is released: see zfs holds", "snapshot", r["name"], "err", err)
		}
	}
}

// releaseStaleHold lets go of what a crash has left. A snapshot that is being sent is cairn.ErrInUse, and so is, by the tool's
// word, one that somebody else holds.
func (o *op) releaseStaleHold(snapshot string) error {
	if o.sends.add(snapshot, 0) > 0 {
		return fmt.Errorf("snapshot %s: is being sent: %w", snapshot, cairn.ErrInUse)
	}
	if err := o.zfs("release", holdTag, snapshot); err != nil && !errors.Is(err, errNotThere) {
		return err
	}
	return nil
}

// stream is a Send that was found to be possible.
type stream struct {
	snapshot string   // held
	args     []string // of zfs send
}

// Send writes a raw stream: blocks go as they are on disk, compressed and, of an encrypted replica, encrypted, so that the
// other side needs no key to keep it. Afterwards a bookmark of the snapshot is there, and so deleting the snapshot keeps the
// base of the next stream.
func (p *Pool) Send(ctx context.Context, id cairn.ReplicaID, spec drivers.SendSpec, w io.Writer) error {
	s, err := call(ctx, p, id, "send", func(o *op) (stream, error) { return o.prepareSend(spec) })
	if err != nil {
		return err
	}
	// The stream can take hours. It needs no lock: the snapshot is held.
	gated := &gate{w: w}
	_, err = do(ctx, p, "", id, "send", func(o *op) (struct{}, error) {
		_, err := o.runner.Stream(o.ctx, tool.Cmd{Name: "zfs", Args: s.args}, nil, gated)
		return struct{}{}, diagnose(err)
	})
	gated.shut()
	p.sends.add(s.snapshot, -1)
	if ctx.Err() != nil {
		return err // the next call that is stopped by the hold releases it
	}
	return errors.Join(err, change(ctx, p, id, "send", func(o *op) error {
		if o.sends.add(s.snapshot, 0) > 0 {
			return nil
		}
		return o.releaseStaleHold(s.snapshot)
	}))
}

// gate is a Writer that is not used any more once it is shut, even by a tool that could not be killed.
type gate struct {
	mu     sync.Mutex
	w      io.Writer
	closed bool
}

// Write implements io.Writer.
func (g *gate) Write(data []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, io.ErrClosedPipe
	}
	return g.w.Write(data)
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (o *op) prepareSend(spec drivers.SendSpec) (stream, error) {
	f, err := o.look()
	if err != nil {
		return stream{}, err
	}
	s, err := o.stream(f, spec)
	if err != nil {
		return stream{}, err
	}
	if _, err := o.estimate(s); err != nil { // what is not possible is said before the first byte
		return stream{}, err
	}
	if _, there := f.bookmarks[string(spec.Snapshot)]; !there {
		if err := o.zfs("bookmark", s.snapshot, strings.Replace(s.snapshot, "@", "#", 1)); err != nil && !errors.Is(err, errThere) {
			return stream{}, err
		}
	}
	if err := o.zfs("hold", holdTag, s.snapshot); err != nil && !errors.Is(err, errThere) {
		return stream{}, err
	}
	o.sends.add(s.snapshot, 1)
	return s, nil
}

// stream says how to send what is wanted: cairn.ErrNotFound if the snapshot or the base is certainly not there.
func (o *op) stream(f found, spec drivers.SendSpec) (stream, error) {
	if err := f.checkReady(); err != nil {
		return stream{}, err
	}
	if err := f.checkSnapshot(spec.Snapshot); err != nil {
		return stream{}, err
	}
	r, base := f.snapshot(spec.Snapshot), f.snapshot(spec.Base)
	s := stream{snapshot: r["name"], args: []string{"send", "-w"}}
	own := f.dataset(r)["name"] == f.at
	switch _, marked := f.bookmarks[string(spec.Base)]; {
	case spec.Resume != "":
		if !resumeToken.MatchString(spec.Resume) {
			return stream{}, fmt.Errorf("resume token %.20q: is none: %w", spec.Resume, cairn.ErrInvalid)
		}
		s.args = []string{"send", "-t", spec.Resume}
		return s, nil
	case spec.Base == "":
	case base != nil && f.dataset(base)["name"] == f.dataset(r)["name"]:
		s.args = append(s.args, "-i", "@"+string(spec.Base))
	case marked && own:
		s.args = append(s.args, "-i", "#"+string(spec.Base))
	default:
		return stream{}, fmt.Errorf("base %s: neither the snapshot nor a bookmark of it is there, in one line with %s: %w", spec.Base, spec.Snapshot, cairn.ErrNotFound)
	}
	s.args = append(s.args, s.snapshot)
	return s, nil
}

var resumeToken = regexp.MustCompile(`^[0-9]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$`)

// SendSize asks for the size of the stream without making it.
func (p *Pool) SendSize(ctx context.Context, id cairn.ReplicaID, spec drivers.SendSpec) (int64, error) {
	return look(ctx, p, id, "send size", func(o *op) (int64, error) {
		f, err := o.look()
		if err != nil {
			return 0, err
		}
		s, err := o.stream(f, spec)
		if err != nil {
			return 0, err
		}
		return o.estimate(s)
	})
}

// Changed asks what was written since the snapshot. What is not on disk yet does not count there, so an answer of 0 is
// asked for again after a flush.
func (p *Pool) Changed(ctx context.Context, id cairn.ReplicaID, since cairn.SnapshotID) (int64, error) {
	return look(ctx, p, id, "changed", func(o *op) (int64, error) {
		f, err := o.look()
		if err != nil {
			return 0, err
		}
		if err := f.checkSnapshot(since); err != nil {
			return 0, err
		}
		written, err := o.written(f, since)
		if err != nil || written > 0 {
			return written, err
		}
		if err := o.sync(); err != nil {
			return 0, err
		}
		return o.written(f, since)
	})
}

func (o *op) written(f found, since cairn.SnapshotID) (int64, error) {
	if f.dataset(f.snapshot(since))["name"] != f.at { // put aside: what is here now was made from another one
		return 1, nil
	}
	out, err := o.query("zfs", "list", "-Hp", "-o", "written@"+string(since), f.at)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(out), 10, 64)
}

// estimate tries a send without sending. It also makes sure that the stream is of the snapshot that is wanted: a resume token
// comes from elsewhere, and the tool looks through the whole pool for what it names.
func (o *op) estimate(s stream) (int64, error) {
	out, err := o.query("zfs", slices.Insert(slices.Clone(s.args), 1, "-nP")...)
	if err != nil {
		return 0, err
	}
	size, of := int64(-1), ""
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case fields[0] == "size" && len(fields) == 2:
			size = row{"size": fields[1]}.number("size")
		case fields[0] == "full" && len(fields) == 3, fields[0] == "incremental" && len(fields) == 4:
			of = fields[len(fields)-2]
		}
	}
	switch {
	case size < 0:
		return 0, fmt.Errorf("zfs send -nP: no size in %.200q", out)
	case of != s.snapshot:
		return 0, fmt.Errorf("resume token: goes on with %s, not with %s: %w", of, s.snapshot, cairn.ErrNotFound)
	}
	return size, nil
}
