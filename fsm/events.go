package fsm

import (
	"fmt"

	"github.com/cairn-storage/cairn"
)

// eventsKept bounds the journal of events: the newest ones are kept.
const eventsKept = 16384

// event appends to the journal. Seq has no gaps, so a reader can tell that it missed nothing.
func (tx *Tx) event(kind string, project cairn.ProjectID, ref cairn.Ref, format string, args ...any) {
	put(tx, tx.events, &cairn.Event{
		Seq: tx.LastEvent() + 1, Index: tx.index, At: tx.meta.At,
		Kind: kind, Project: project, Ref: ref, Message: fmt.Sprintf(format, args...),
	})
	if tx.events.rows.Len() > eventsKept {
		remove(tx, tx.events, numberKey(tx.FirstEvent()))
	}
}
