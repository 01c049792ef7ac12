package drivertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// The mistakes of those who cut groups, seal, send and receive.
const (
	cutsSome         defect = "cuts some of a group"
	sealsNothing     defect = "seals nothing"
	staysSealed      defect = "cannot unseal"
	sendsLive        defect = "sends the live data"
	ignoresBase      defect = "sends from any base"
	deletesSent      defect = "deletes what is sent"
	neverChanged     defect = "never sees a change"
	receivesTwice    defect = "reads what it has"
	receivesAnything defect = "receives from any base"
	rollsBack        defect = "rolls back what diverged"
	showsHalf        defect = "shows half a receive"
	restartsStream   defect = "takes the rest for the whole"
	forgetsToAbandon defect = "abandons nothing"
	receivesUnsealed defect = "receives unsealed"
	revertsForGood   defect = "destroys newer snapshots"
)

// wire is a whole stream: what is sent, from which base, and from which byte on.
type wire struct {
	Base string
	Skip int
	Data string
	Sum  int // bytes of all the data, with those before Skip
}

// CreateGroupSnapshot implements drivers.GroupSnapshotter.
func (p *smallPool) CreateGroupSnapshot(ctx context.Context, cuts []drivers.Cut) error {
	there := 0
	for _, cut := range cuts {
		m, err := p.mark(cut.Replica)
		if err == nil {
			err = p.admit(ctx, cut.Replica, &m, cut.Epoch)
		}
		if err == nil && p.defect == cutsSome {
			_, err = p.CreateSnapshot(ctx, cut.Replica, cut.Epoch, cut.Snapshot)
		}
		if err != nil {
			return err
		}
		if _, ok, err := p.read(string(cut.Replica) + "/snapshots/" + string(cut.Snapshot)); err != nil {
			return err
		} else if ok {
			there++
		}
	}
	if there == len(cuts) {
		return nil
	}
	if there > 0 {
		return fmt.Errorf("%d of %d are there: %w", there, len(cuts), cairn.ErrExists)
	}
	return p.do(ctx, "COMMIT group", func(files map[string]string) {
		for _, cut := range cuts {
			files[string(cut.Replica)+"/snapshots/"+string(cut.Snapshot)] = files[string(cut.Replica)+"/data"]
		}
	})
}

// Seal implements drivers.Sealer.
func (p *smallPool) Seal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	err := p.seal(ctx, id, epoch, p.defect != sealsNothing)
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	return err
}

// Unseal implements drivers.Sealer.
func (p *smallPool) Unseal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return p.seal(ctx, id, epoch, p.defect == staysSealed)
}

func (p *smallPool) seal(ctx context.Context, id cairn.ReplicaID, epoch uint64, sealed bool) error {
	m, err := p.mark(id)
	if err != nil {
		return err
	}
	if err := p.admit(ctx, id, &m, epoch); err != nil {
		return err
	}
	m.Sealed = sealed
	return p.write(ctx, id, m)
}

// Revert implements drivers.Reverter.
func (p *smallPool) Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	m, err := p.mark(id)
	if err != nil {
		return err
	}
	if err := p.admit(ctx, id, &m, epoch); err != nil {
		return err
	}
	text, ok, err := p.read(string(id) + "/snapshots/" + string(snap))
	if err == nil && !ok {
		err = cairn.ErrNotFound
	}
	if err != nil {
		return err
	}
	err = p.do(ctx, "COMMIT revert", func(files map[string]string) {
		files[string(id)+"/data"] = text
		if p.defect == revertsForGood {
			maps.DeleteFunc(files, func(path, _ string) bool {
				other, isSnapshot := strings.CutPrefix(path, string(id)+"/snapshots/")
				return isSnapshot && other > string(snap)
			})
		}
	})
	if err != nil {
		return err
	}
	m.Reverted = snap
	return p.write(ctx, id, m)
}

// outgoing is the stream that spec asks for.
func (p *smallPool) outgoing(id cairn.ReplicaID, spec drivers.SendSpec) (wire, error) {
	if _, err := p.mark(id); err != nil {
		return wire{}, err
	}
	text, ok, err := p.read(string(id) + "/snapshots/" + string(spec.Snapshot))
	if err == nil && p.defect == sendsLive {
		text, _, err = p.read(string(id) + "/data")
	}
	if err == nil && !ok {
		err = fmt.Errorf("snapshot: %w", cairn.ErrNotFound)
	}
	if err != nil {
		return wire{}, err
	}
	base := string(id) + "/snapshots/" + string(spec.Base)
	if _, ok, err := p.read(base); spec.Base != "" && p.defect != ignoresBase && (err != nil || !ok) {
		return wire{}, fmt.Errorf("base: %w", errors.Join(err, cairn.ErrNotFound))
	}
	w := wire{Base: string(spec.Base), Sum: len(text)}
	if spec.Resume != "" {
		if _, err := fmt.Sscan(spec.Resume, &w.Skip); err != nil || w.Skip > len(text) {
			return wire{}, cairn.ErrInvalid
		}
	}
	w.Data = text[w.Skip:]
	return w, nil
}

// Send implements drivers.Sender.
func (p *smallPool) Send(ctx context.Context, id cairn.ReplicaID, spec drivers.SendSpec, w io.Writer) error {
	out, err := p.outgoing(id, spec)
	if err != nil {
		return err
	}
	key := string(id) + "/" + string(spec.Snapshot)
	p.mu.Lock()
	p.sending[key]++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sending[key]--
	}()
	head, err := json.Marshal(wire{Base: out.Base, Skip: out.Skip, Sum: out.Sum})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, string(head)+"\n"+out.Data)
	return err
}

// SendSize implements drivers.Sender.
func (p *smallPool) SendSize(_ context.Context, id cairn.ReplicaID, spec drivers.SendSpec) (int64, error) {
	out, err := p.outgoing(id, spec)
	return int64(len(out.Data)) + 1, err
}

// Changed implements drivers.Sender.
func (p *smallPool) Changed(_ context.Context, id cairn.ReplicaID, since cairn.SnapshotID) (int64, error) {
	text, ok, err := p.read(string(id) + "/snapshots/" + string(since))
	if err == nil && !ok {
		err = cairn.ErrNotFound
	}
	data, _, dataErr := p.read(string(id) + "/data")
	if text == data || p.defect == neverChanged {
		return 0, errors.Join(err, dataErr)
	}
	return int64(len(data)) + 1, errors.Join(err, dataErr)
}

// Receive implements drivers.Receiver: what arrives is kept in a file of the replica until all of it is there.
func (p *smallPool) Receive(ctx context.Context, spec drivers.ReceiveSpec, r io.Reader) error {
	m, err := p.incoming(ctx, spec)
	if err != nil {
		return err
	}
	home, snap := string(spec.ID), string(spec.Snapshot)
	if _, ok, err := p.read(home + "/snapshots/" + snap); err != nil || ok && p.defect != receivesTwice {
		return err
	}
	stream, broken := io.ReadAll(r)
	line, data, _ := strings.Cut(string(stream), "\n")
	var head wire
	if err := json.Unmarshal([]byte(line), &head); err != nil || head.Base != string(spec.Base) && p.defect != receivesAnything {
		return fmt.Errorf("stream: %w", errors.Join(err, broken, cairn.ErrPrecondition))
	}
	kept, _, err := p.read(home + "/incoming/" + snap)
	if err != nil || head.Skip > 0 && head.Skip != len(kept) {
		return errors.Join(err, cairn.ErrPrecondition)
	}
	if p.defect != restartsStream {
		data = kept[:head.Skip] + data
	}
	if broken != nil || len(data) < head.Sum && p.defect != restartsStream {
		return errors.Join(broken, io.ErrUnexpectedEOF, p.do(ctx, "keep what arrived", func(files map[string]string) {
			files[home+"/incoming/"+snap] = data
			if p.defect == showsHalf {
				files[home+"/data"] = data
			}
		}))
	}
	m.Ready, m.Sealed = true, p.defect != receivesUnsealed
	mark, err := json.Marshal(m)
	return errors.Join(err, p.do(ctx, "COMMIT receive", func(files map[string]string) {
		delete(files, home+"/incoming/"+snap)
		files[home+"/data"], files[home+"/snapshots/"+snap], files[home+"/mark"] = data, data, string(mark)
	}))
}

// incoming finds or makes the replica that a stream goes to.
func (p *smallPool) incoming(ctx context.Context, spec drivers.ReceiveSpec) (smallMark, error) {
	m, err := p.mark(spec.ID)
	if errors.Is(err, cairn.ErrNotFound) {
		if spec.Base != "" {
			return m, fmt.Errorf("absent: %w", cairn.ErrPrecondition)
		}
		m = smallMark{Epoch: spec.Epoch, Size: spec.Size}
		return m, p.write(ctx, spec.ID, m)
	}
	if err != nil {
		return m, err
	}
	if err := p.admit(ctx, spec.ID, &m, spec.Epoch); err != nil {
		return m, err
	}
	home := string(spec.ID)
	if _, ok, err := p.read(home + "/snapshots/" + string(spec.Snapshot)); err != nil || ok || !m.Ready {
		return m, err
	}
	if spec.Base == "" {
		return m, cairn.ErrExists
	}
	base, ok, err := p.read(home + "/snapshots/" + string(spec.Base))
	if err == nil && !ok && p.defect != receivesAnything {
		err = cairn.ErrPrecondition
	}
	data, _, dataErr := p.read(home + "/data")
	if err == nil && base != data && p.defect != rollsBack && p.defect != receivesAnything {
		err = fmt.Errorf("diverged: %w", cairn.ErrPrecondition)
	}
	return m, errors.Join(err, dataErr)
}

// Partial implements drivers.Receiver.
func (p *smallPool) Partial(_ context.Context, id cairn.ReplicaID) (string, cairn.SnapshotID, error) {
	for _, path := range p.under(string(id) + "/incoming/") {
		text, _, err := p.read(path)
		return fmt.Sprint(len(text)), cairn.SnapshotID(path[strings.LastIndex(path, "/")+1:]), err
	}
	return "", "", nil
}

// Abandon implements drivers.Receiver.
func (p *smallPool) Abandon(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	m, err := p.mark(id)
	if errors.Is(err, cairn.ErrNotFound) || p.defect == forgetsToAbandon {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.admit(ctx, id, &m, epoch); err != nil {
		return err
	}
	doomed := p.under(string(id) + "/incoming/")
	if !m.Ready {
		doomed = p.under(string(id) + "/")
	}
	return p.do(ctx, "abandon", func(files map[string]string) {
		for _, path := range doomed {
			delete(files, path)
		}
	})
}
