package fsm

import (
	"fmt"

	"github.com/cairn-storage/cairn"
)

// Tx is the state while one command is applied. It reads through View and sees its own writes. What it replaced it
// remembers, so that a refused command leaves no trace.
type Tx struct {
	*View
	meta    Meta
	codec   *rowCodec
	undo    []func()
	changes []Change
	each    []error // of a command that has parts
}

// newTx has room for what most commands write.
func newTx(v *View, meta Meta, codec *rowCodec) *Tx {
	const room = 16
	return &Tx{View: v, meta: meta, codec: codec, undo: make([]func(), 0, room), changes: make([]Change, 0, room)}
}

// Change says that a row was written or removed. It carries no payload: whoever cares reads the newest View, so changes may
// be merged, doubled or late.
type Change struct {
	Table Table
	Key   string
}

// put writes the row. A row that is equal to the one that is there changes nothing.
func put[R any](tx *Tx, t *table[R], value *R) {
	data, err := tx.codec.encode(value)
	if err != nil {
		panic(fmt.Errorf("fsm: row of %s cannot be encoded: %w", t.name, err)) // a type that msgpack does not know
	}
	key := t.key(value)
	next := row[R]{key, value, tx.codec.sum(t.name, key, data)}
	if old := t.replace(key, next); old.value == nil || old.hash != next.hash {
		wrote(tx, t, key, old, next)
	}
}

// remove deletes the row; it is nothing if there is none.
func remove[R any](tx *Tx, t *table[R], key string) {
	if old := t.replace(key, row[R]{}); old.value != nil {
		wrote(tx, t, key, old, row[R]{})
	}
}

// wrote keeps the digest, and remembers how to go back.
func wrote[R any](tx *Tx, t *table[R], key string, old, next row[R]) {
	digest := tx.digest
	tx.digest ^= old.hash ^ next.hash // the zero row has the hash 0
	tx.undo = append(tx.undo, func() {
		t.replace(key, old)
		tx.digest = digest
	})
	tx.changes = append(tx.changes, Change{t.name, key})
}

// wake names the replicas of a share as changed, whose rows are not: what they are served with depends on the share's.
func (tx *Tx) wake(id cairn.ShareID) {
	for r := range tx.ReplicasOf(id) {
		tx.changes = append(tx.changes, Change{TableReplicas, string(r.ID)})
	}
}

// run applies the command and either keeps all of it or nothing.
func (tx *Tx) run(c Command) Result {
	result := Result{Index: tx.index}
	if done := tx.requests.get(tx.meta.Token); done != nil {
		if result.Err = done.match(tx.meta, c); result.Err == nil {
			result.ID, result.Replayed = done.ID, true
		}
		return result
	}
	result.Err = tx.attempt(func() (err error) {
		result.ID, err = c.apply(tx)
		return err
	})
	if result.Err != nil {
		return Result{Index: tx.index, Err: result.Err}
	}
	result.Each = tx.each
	tx.remember(c, result.ID)
	return result
}

// attempt takes back what change has written if it fails.
func (tx *Tx) attempt(change func() error) error {
	undo, changes := len(tx.undo), len(tx.changes)
	err := change()
	if err == nil {
		return nil
	}
	for i := len(tx.undo) - 1; i >= undo; i-- {
		tx.undo[i]()
	}
	tx.undo, tx.changes = tx.undo[:undo], tx.changes[:changes]
	return err
}

// cause wraps a sentinel with what a person has to know.
func cause(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), sentinel)
}

// missing says that there is no such object.
func missing[ID ~string](kind cairn.Kind, id ID) error {
	return fmt.Errorf("%s %q: %w", kind, string(id), cairn.ErrNotFound)
}

// plural renders "1 snapshot" or "3 snapshots".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
