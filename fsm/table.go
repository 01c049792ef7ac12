package fsm

import (
	"bytes"
	"iter"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/google/btree"
	"github.com/vmihailenco/msgpack/v5"
)

// treeDegree trades the price of a lookup against the price of the first write to a node after a clone, which copies it.
const treeDegree = 16

// table is an ordered set of rows of one type. A row is never changed: it is replaced by another one. A clone costs a few
// allocations however large the table is; whoever writes next copies the tree nodes that it touches.
type table[R any] struct {
	name    Table
	key     func(*R) string
	rows    *btree.BTreeG[row[R]]
	indexes []*index[R]
}

type row[R any] struct {
	key   string
	value *R
	hash  uint64 // of table name, key and encoded value
}

// index finds rows by something else than their key.
type index[R any] struct {
	key     func(*R) string // "" leaves the row out
	entries *btree.BTreeG[entry]
}

type entry struct{ key, primary string }

func newTable[R any](name Table, key func(*R) string, by ...func(*R) string) *table[R] {
	t := &table[R]{
		name: name, key: key,
		rows: btree.NewG(treeDegree, func(a, b row[R]) bool { return a.key < b.key }),
	}
	for _, f := range by {
		t.indexes = append(t.indexes, &index[R]{key: f, entries: btree.NewG(treeDegree, lessEntry)})
	}
	return t
}

func lessEntry(a, b entry) bool { return a.key < b.key || a.key == b.key && a.primary < b.primary }

func (t *table[R]) clone() *table[R] {
	c := &table[R]{name: t.name, key: t.key, rows: t.rows.Clone(), indexes: make([]*index[R], len(t.indexes))}
	for i, x := range t.indexes {
		c.indexes[i] = &index[R]{key: x.key, entries: x.entries.Clone()}
	}
	return c
}

// get returns the row of the key, or nil.
func (t *table[R]) get(key string) *R {
	r, _ := t.rows.Get(row[R]{key: key})
	return r.value
}

// all yields the rows whose key starts with prefix, in order of key.
func (t *table[R]) all(prefix string) iter.Seq[*R] {
	return func(yield func(*R) bool) {
		t.rows.AscendGreaterOrEqual(row[R]{key: prefix}, func(r row[R]) bool {
			return strings.HasPrefix(r.key, prefix) && yield(r.value)
		})
	}
}

// by yields the rows whose key in the n-th index starts with prefix, in order of that key.
func (t *table[R]) by(n int, prefix string) iter.Seq[*R] {
	return func(yield func(*R) bool) {
		t.indexes[n].entries.AscendGreaterOrEqual(entry{key: prefix}, func(e entry) bool {
			return strings.HasPrefix(e.key, prefix) && yield(t.get(e.primary))
		})
	}
}

// first returns the first row of a sequence, or nil.
func first[R any](seq iter.Seq[*R]) *R {
	for r := range seq {
		return r
	}
	return nil
}

// replace puts the row, or removes what is there if it is the zero row, and returns what was there.
func (t *table[R]) replace(key string, next row[R]) (old row[R]) {
	if next.value == nil {
		old, _ = t.rows.Delete(row[R]{key: key})
	} else {
		old, _ = t.rows.ReplaceOrInsert(next)
	}
	for _, x := range t.indexes {
		x.move(key, x.of(old.value), x.of(next.value))
	}
	return old
}

func (x *index[R]) of(value *R) string {
	if value == nil {
		return ""
	}
	return x.key(value)
}

func (x *index[R]) move(primary, from, to string) {
	if from == to {
		return
	}
	if from != "" {
		x.entries.Delete(entry{from, primary})
	}
	if to != "" {
		x.entries.ReplaceOrInsert(entry{to, primary})
	}
}

// rowCodec encodes and hashes rows; it reuses its buffer and is not safe for concurrent use.
type rowCodec struct {
	buf  bytes.Buffer
	enc  *msgpack.Encoder
	hash *xxhash.Digest
}

func newRowCodec() *rowCodec {
	c := &rowCodec{hash: xxhash.New()}
	c.enc = newEncoder(&c.buf)
	return c
}

// encode returns the bytes of the row; they are good until the next call.
func (c *rowCodec) encode(value any) ([]byte, error) {
	c.buf.Reset()
	if err := c.enc.Encode(value); err != nil {
		return nil, err
	}
	return c.buf.Bytes(), nil
}

// sum hashes one row. The separators keep ("ab", "c") apart from ("a", "bc").
func (c *rowCodec) sum(name Table, key string, value []byte) uint64 {
	c.hash.Reset()
	c.hash.WriteString(string(name))
	c.hash.WriteString("\x00")
	c.hash.WriteString(key)
	c.hash.WriteString("\x00")
	c.hash.Write(value)
	return c.hash.Sum64()
}
