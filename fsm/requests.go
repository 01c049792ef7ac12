package fsm

import "github.com/cairn-storage/cairn"

// requestsKept bounds the memory of idempotency tokens: the newest ones count.
const requestsKept = 65536

// request remembers what a command with an idempotency token did, so that a retry gets the same answer. Commands that were
// refused are not remembered: they changed nothing, and a retry may find that the reason is gone.
type request struct {
	Token  string
	Seq    uint64
	Op     Op
	Actor  string
	Target string
	ID     string
}

// match returns an error unless the command repeats the request.
func (r *request) match(meta Meta, c Command) error {
	switch {
	case r.Op != c.op():
		return cause(cairn.ErrInvalid, "idempotency token %q: was used for another operation", r.Token)
	case r.Actor != meta.Actor:
		return cause(cairn.ErrInvalid, "idempotency token %q: was used by %s", r.Token, r.Actor)
	case r.Target != c.target():
		return cause(cairn.ErrInvalid, "idempotency token %q: was used for %s, not for %s", r.Token, r.Target, c.target())
	}
	return nil
}

func (tx *Tx) remember(c Command, id string) {
	if tx.meta.Token == "" {
		return
	}
	seq, ages := uint64(1), tx.requests.indexes[requestsByAge].entries
	if newest, ok := ages.Max(); ok {
		seq += tx.requests.get(newest.primary).Seq
	}
	put(tx, tx.requests, &request{Token: tx.meta.Token, Seq: seq, Op: c.op(), Actor: tx.meta.Actor, Target: c.target(), ID: id})
	if ages.Len() > requestsKept {
		oldest, _ := ages.Min()
		remove(tx, tx.requests, oldest.primary)
	}
}
