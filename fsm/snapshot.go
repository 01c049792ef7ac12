package fsm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/cespare/xxhash/v2"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/cairn-storage/cairn"
)

// The snapshot stream. Numbers are big-endian and have 8 bytes.
//
//	header   magic "cairnfsm", version (1 byte), index
//	row      length of the table's name (1 byte, not 0), name, length of the row, row in msgpack
//	trailer  0 (1 byte), count of rows, digest, xxhash64 of everything before this field
//
// Rows come table by table and in order of key, so equal states at the same index have equal streams. The digest proves
// that the rows are those of the state; the sum at the end covers the rest. Nothing may follow.
const (
	streamMagic   = "cairnfsm"
	streamVersion = 1
	// maxRow bounds what a corrupt length can make Restore allocate. The log refuses entries far below it.
	maxRow = 64 << 20
)

// Snapshot is the state of one log index, frozen, to be written at leisure.
type Snapshot struct{ view *View }

// Snapshot freezes the newest state. It costs as much as View.
func (m *Machine) Snapshot() *Snapshot { return &Snapshot{m.View()} }

// Index returns the log index of the last entry that the snapshot contains.
func (s *Snapshot) Index() uint64 { return s.view.index }

// WriteTo streams the snapshot; it holds one row at a time in memory.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	out := &summedWriter{w: bufio.NewWriterSize(w, 1<<16), sum: xxhash.New()}
	out.write([]byte(streamMagic))
	out.write([]byte{streamVersion})
	out.number(s.view.index)
	count, codec := uint64(0), newRowCodec()
	for _, t := range s.view.tables() {
		for _, data := range t.encoded(codec) {
			out.write([]byte{byte(len(t.tableName()))})
			out.write([]byte(t.tableName()))
			out.number(uint64(len(data)))
			out.write(data)
			count++
		}
		if out.err != nil {
			break
		}
	}
	out.write([]byte{0})
	out.number(count)
	out.number(s.view.digest)
	out.number(out.sum.Sum64())
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return out.n, fmt.Errorf("snapshot at entry %d: %w", s.view.index, out.err)
	}
	return out.n, nil
}

// summedWriter counts and sums what it writes; after the first error it writes nothing more.
type summedWriter struct {
	w   *bufio.Writer
	sum *xxhash.Digest
	n   int64
	err error
}

func (o *summedWriter) write(data []byte) {
	if o.err != nil {
		return
	}
	var n int
	n, o.err = o.w.Write(data)
	o.n += int64(n)
	o.sum.Write(data)
}

func (o *summedWriter) number(n uint64) {
	var buf [8]byte
	o.write(binary.BigEndian.AppendUint64(buf[:0], n))
}

// Restore replaces the state by that of a snapshot stream. The stream is read and verified aside: if it is short, corrupt,
// of an unknown version, has anything behind its end, or holds an earlier state, the state stays as it is. Afterwards
// subscribers are told that everything may have changed.
func (m *Machine) Restore(r io.Reader) error {
	restored, err := readState(r)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	subscribers, err := m.replace(restored)
	for _, s := range subscribers {
		s.notify(nil)
	}
	return err
}

// replace returns who has to hear of it.
func (m *Machine) replace(restored *View) ([]*subscriber, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if restored.index < m.live.index {
		return nil, cause(cairn.ErrPrecondition, "snapshot: is of entry %d, and the state has everything up to entry %d", restored.index, m.live.index)
	}
	m.live, m.frozen, m.checkpoints = restored, nil, checkpoints{}
	return m.subscribers, nil
}

func readState(r io.Reader) (*View, error) {
	in := &summedReader{r: bufio.NewReaderSize(r, 1<<16), sum: xxhash.New()}
	v := newView()
	if err := in.header(v); err != nil {
		return nil, err
	}
	byName := make(map[Table]anyTable)
	for _, t := range v.tables() {
		byName[t.tableName()] = t
	}
	codec := newRowCodec()
	for count := uint64(0); ; count++ {
		name, err := in.tableName()
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", count, err)
		}
		if name == "" {
			return v, in.trailer(v, count)
		}
		t := byName[name]
		if t == nil {
			return nil, cause(cairn.ErrUpgrade, "row %d: table %q is not known to this version", count, name)
		}
		data, err := in.row()
		if err != nil {
			return nil, fmt.Errorf("row %d of %s: %w", count, t.tableName(), err)
		}
		hash, err := t.load(codec, data)
		if err != nil {
			return nil, fmt.Errorf("row %d of %s: %w", count, t.tableName(), err)
		}
		v.digest ^= hash
	}
}

// summedReader sums what it reads.
type summedReader struct {
	r   *bufio.Reader
	sum *xxhash.Digest
	buf bytes.Buffer
}

func (in *summedReader) header(v *View) error {
	head := make([]byte, len(streamMagic)+1)
	if err := in.full(head); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if string(head[:len(streamMagic)]) != streamMagic {
		return cause(cairn.ErrCorrupt, "header: is not that of a snapshot of this machine")
	}
	if version := head[len(streamMagic)]; version != streamVersion {
		return cause(cairn.ErrUpgrade, "header: version %d, but this program reads version %d", version, streamVersion)
	}
	var err error
	if v.index, err = in.number(); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return nil
}

func (in *summedReader) trailer(v *View, rows uint64) error {
	count, err := in.number()
	if err != nil {
		return fmt.Errorf("trailer: %w", err)
	}
	digest, err := in.number()
	if err != nil {
		return fmt.Errorf("trailer: %w", err)
	}
	computed := in.sum.Sum64()
	sum, err := in.number()
	switch {
	case err != nil:
		return fmt.Errorf("trailer: %w", err)
	case sum != computed:
		return cause(cairn.ErrCorrupt, "trailer: checksum %016x, but the stream has %016x", sum, computed)
	case count != rows:
		return cause(cairn.ErrCorrupt, "trailer: %d rows, but %d were read", count, rows)
	case digest != v.digest:
		return cause(cairn.ErrCorrupt, "trailer: digest %016x, but the rows have %016x", digest, v.digest)
	}
	if _, err := in.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return fmt.Errorf("behind the trailer: %w", err)
		}
		return cause(cairn.ErrCorrupt, "behind the trailer: bytes that do not belong there")
	}
	return nil
}

// tableName reads the name that a row starts with; "" is the trailer.
func (in *summedReader) tableName() (Table, error) {
	var buf [255]byte
	if err := in.full(buf[:1]); err != nil {
		return "", err
	}
	name := buf[:buf[0]]
	err := in.full(name)
	return Table(name), err
}

// row reads a length and as many bytes. They are good until the next call.
func (in *summedReader) row() ([]byte, error) {
	n, err := in.number()
	if err != nil {
		return nil, err
	}
	if n > maxRow {
		return nil, cause(cairn.ErrCorrupt, "length %d", n)
	}
	in.buf.Reset()
	if _, err := io.CopyN(&in.buf, in.r, int64(n)); err != nil {
		return nil, short(err)
	}
	in.sum.Write(in.buf.Bytes())
	return in.buf.Bytes(), nil
}

func (in *summedReader) number() (uint64, error) {
	var buf [8]byte
	err := in.full(buf[:])
	return binary.BigEndian.Uint64(buf[:]), err
}

func (in *summedReader) full(buf []byte) error {
	if _, err := io.ReadFull(in.r, buf); err != nil {
		return short(err)
	}
	in.sum.Write(buf)
	return nil
}

// short tells a stream that ends from one that cannot be read.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return cause(cairn.ErrCorrupt, "the stream ends early")
	}
	return err
}

func (t *table[R]) tableName() Table { return t.name }
func (t *table[R]) len() int         { return t.rows.Len() }

func (t *table[R]) encoded(c *rowCodec) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		t.rows.Ascend(func(r row[R]) bool {
			data, err := c.encode(r.value)
			if err != nil {
				panic(fmt.Errorf("fsm: row %q of %s cannot be encoded: %w", r.key, t.name, err)) // it was, when it was put
			}
			return yield(r.key, data)
		})
	}
}

func (t *table[R]) load(c *rowCodec, data []byte) (uint64, error) {
	if err := wellFormed(data); err != nil {
		return 0, err
	}
	value := new(R)
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(bytes.NewReader(data))
	if err := dec.Decode(value); err != nil {
		return 0, fmt.Errorf("%w: %w", cairn.ErrCorrupt, err)
	}
	if again, err := c.encode(value); err != nil || !bytes.Equal(again, data) {
		return 0, cause(cairn.ErrCorrupt, "is not encoded as this program would")
	}
	key := t.key(value)
	if last, ok := t.rows.Max(); ok && last.key >= key {
		return 0, cause(cairn.ErrCorrupt, "key %q comes after %q", key, last.key)
	}
	hash := c.sum(t.name, key, data)
	t.replace(key, row[R]{key, value, hash})
	return hash, nil
}
