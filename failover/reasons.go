package failover

import (
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/cairn-storage/cairn"
)

// reason is why a share waits.
type reason struct {
	cause string // the same for all shares that wait for the same thing; "" is not worth a line in the log
	text  string // about this one
	// refused is what the state machine has refused. The same is not proposed again before one of its rows has changed.
	refused attempt
}

func undecided(err error) reason {
	return reason{cause: "the cluster did not decide", text: "the cluster did not decide: " + err.Error()}
}

// attempt is a decision with the rows that it rests on. Rows are never changed in place, so equal pointers are equal rows.
type attempt struct {
	share        *cairn.Share
	task         *cairn.Task
	from, to     *cairn.Replica
	fromNode     *cairn.Node
	toNode       *cairn.Node
	newest       cairn.SnapshotID
	withinPolicy *cairn.ShareType
}

// reasons is what shares wait for, as the last pass found it.
type reasons struct {
	mu      sync.Mutex
	byShare map[cairn.ShareID]reason
}

func (r *reasons) of(share cairn.ShareID) reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byShare[share]
}

// replace takes over what a pass found. It logs a line for each cause that is new for some shares: a node that holds a
// thousand of them is one thing to look at.
func (r *reasons) replace(logger *slog.Logger, found map[cairn.ShareID]reason) {
	r.mu.Lock()
	before := r.byShare
	r.byShare = found
	r.mu.Unlock()
	news := make(map[string][]cairn.ShareID)
	for share, why := range found {
		if why.cause != "" && before[share].cause != why.cause {
			news[why.cause] = append(news[why.cause], share)
		}
	}
	for _, cause := range slices.Sorted(maps.Keys(news)) {
		example := slices.Min(news[cause])
		logger.Warn("failover: shares wait: "+cause, "shares", len(news[cause]), "for_example", example, "why", found[example].text)
	}
}
