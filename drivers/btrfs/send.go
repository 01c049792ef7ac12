package btrfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// sends counts the streams that are being written from each snapshot.
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

// Send has the kernel write the stream. It needs no lock: snapshot and base cannot be deleted meanwhile.
func (p *Pool) Send(ctx context.Context, id cairn.ReplicaID, spec drivers.SendSpec, w io.Writer) error {
	paths, err := call(ctx, p, id, "send", func(o *op) ([]string, error) {
		paths, _, err := o.sendable(spec)
		for _, path := range paths {
			o.sends.add(path, 1)
		}
		return paths, err
	})
	if err != nil {
		return err
	}
	gated := &gate{w: w}
	defer gated.shut()
	_, err = run(ctx, p, "", id, "send", func(o *op) (struct{}, error) {
		defer func() {
			for _, path := range paths {
				p.sends.add(path, -1)
			}
		}()
		args := []string{"send", paths[0]}
		if len(paths) > 1 {
			args = []string{"send", "-p", paths[1], paths[0]}
		}
		return struct{}{}, o.stream(nil, gated, args...)
	})
	return err
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

// sendable finds the snapshot to send and, if one is wanted, its base: their paths, and the generation from which on the
// stream has what was written.
func (o *op) sendable(spec drivers.SendSpec) (paths []string, since uint64, err error) {
	f, err := o.look()
	if err != nil {
		return nil, 0, err
	}
	if err := f.checkReady(); err != nil {
		return nil, 0, err
	}
	if spec.Resume != "" {
		return nil, 0, fmt.Errorf("resume token %.20q: btrfs cannot resume a stream: %w", spec.Resume, cairn.ErrInvalid)
	}
	if _, err := f.snapshot(spec.Snapshot); err != nil {
		return nil, 0, err
	}
	paths = []string{o.in("snapshots", string(spec.Snapshot))}
	if spec.Base == "" {
		return paths, 0, nil
	}
	base, err := f.snapshot(spec.Base)
	if err != nil {
		return nil, 0, fmt.Errorf("base: %w", err)
	}
	return append(paths, o.in("snapshots", string(spec.Base))), base.written(), nil
}

// written is the generation from which on something is newer than a snapshot. One that has arrived in a stream was filled after
// it was made.
func (s subvolume) written() uint64 {
	if s.Received != (uuid{}) && s.ReceivedAt >= s.Created {
		return s.Generation + 1
	}
	return s.Created
}

// SendSize adds up the extents that are newer than the base.
func (p *Pool) SendSize(ctx context.Context, id cairn.ReplicaID, spec drivers.SendSpec) (int64, error) {
	return look(ctx, p, id, "send size", func(o *op) (int64, error) {
		paths, since, err := o.sendable(spec)
		if err != nil {
			return 0, err
		}
		sum := &extents{}
		r, w := io.Pipe()
		counted := make(chan error, 1)
		go func() { counted <- sum.read(r) }()
		err = o.stream(nil, w, "subvolume", "find-new", paths[0], strconv.FormatUint(since, 10))
		err = errors.Join(err, w.Close(), <-counted)
		return streamHead + sum.bytes, err
	})
}

// streamHead is about what a stream has that says nothing.
const streamHead = 128

// extents adds up what btrfs subvolume find-new prints: a line for each new extent of a file.
type extents struct{ bytes int64 }

func (e *extents) read(r *io.PipeReader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = e.add(line)
		}
		if err != nil {
			return r.CloseWithError(err)
		}
	}
}

// add reads "inode 257 file offset 0 len 3 disk start 0 offset 0 gen 18 flags INLINE name".
func (e *extents) add(line string) error {
	fields := strings.Fields(line)
	if len(fields) < 7 || fields[0] != "inode" || fields[5] != "len" {
		return nil // "transid marker was 41", or the rest of a name with a newline in it
	}
	n, err := strconv.ParseInt(fields[6], 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64-e.bytes {
		return fmt.Errorf("btrfs subvolume find-new: %.100q: no length", line)
	}
	e.bytes += n
	return nil
}

// Changed compares generations. What is not on disk yet does not count there, so an answer of 0 is given after a flush.
func (p *Pool) Changed(ctx context.Context, id cairn.ReplicaID, since cairn.SnapshotID) (int64, error) {
	return look(ctx, p, id, "changed", func(o *op) (int64, error) {
		if n, err := o.changed(since); err != nil || n > 0 {
			return n, err
		}
		if err := o.flush(); err != nil {
			return 0, err
		}
		return o.changed(since)
	})
}

// changed estimates with what the data shares with no snapshot: what was written since the newest one.
func (o *op) changed(since cairn.SnapshotID) (int64, error) {
	f, err := o.look()
	if err != nil {
		return 0, err
	}
	if err := f.checkReady(); err != nil {
		return 0, err
	}
	s, err := f.snapshot(since)
	if err != nil || f.data.equals(s.subvolume) {
		return 0, err
	}
	if !o.quota.on() {
		return 1, nil
	}
	exclusive, err := o.quota.group(f.data, "exclusive")
	return max(exclusive, 1), err
}

// equals: data certainly holds what its snapshot holds. Either s was cut from it, or it was made from s, and nothing was
// written to it since.
func (data subvolume) equals(s subvolume) bool {
	return s.ParentUUID == data.UUID && data.Generation <= s.Created ||
		data.ParentUUID == s.UUID && data.Generation == data.Created
}
