package main

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
)

// journal appends numbered records to a share, one after another and always by the same URL, and remembers when each was
// acknowledged. A record that is not acknowledged is written again.
type journal struct {
	files *dav.Client

	mu    sync.Mutex
	acks  []time.Time   // of record 0, 1, …
	moved chan struct{} // closed at the next acknowledgement

	stop context.CancelFunc
	done chan struct{}
}

// startJournal writes until end.
func startJournal(ctx context.Context, files *dav.Client) *journal {
	ctx, stop := context.WithCancel(ctx)
	j := &journal{files: files, moved: make(chan struct{}), stop: stop, done: make(chan struct{})}
	go j.run(ctx)
	return j
}

// end stops the writer and returns what was acknowledged.
func (j *journal) end() []time.Time {
	j.stop()
	<-j.done
	return j.acks
}

func recordName(n int) string { return fmt.Sprintf("record-%06d", n) }

func recordText(n int) string { return fmt.Sprintf("this is record %d\n", n) }

func (j *journal) run(ctx context.Context) {
	defer close(j.done)
	for n := 0; ctx.Err() == nil; {
		text := recordText(n)
		if err := j.files.Put(ctx, recordName(n), strings.NewReader(text), int64(len(text))); err != nil {
			local.Pause(ctx, 10*time.Millisecond)
			continue
		}
		j.acknowledged()
		n++
	}
}

func (j *journal) acknowledged() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acks = append(j.acks, time.Now())
	close(j.moved)
	j.moved = make(chan struct{})
}

// await waits until so many records were acknowledged after a moment, and returns when the first of them was.
func (j *journal) await(ctx context.Context, count int, after time.Time) (first time.Time, err error) {
	for {
		j.mu.Lock()
		began := sort.Search(len(j.acks), func(i int) bool { return j.acks[i].After(after) })
		found, moved := j.acks[began:], j.moved
		j.mu.Unlock()
		if len(found) >= count {
			return found[0], nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return first, fmt.Errorf("%d of %d records were acknowledged: %w", len(found), count, ctx.Err())
		}
	}
}

// loss is what a failover has left behind.
type loss struct {
	records  []int     // that were acknowledged before it and are not there any more
	earliest time.Time // when the first of them was acknowledged
}

// compareRecords says which records did not survive. What was acknowledged after fenced, before which nobody can have taken over,
// must be there. What is missing must be the end of what was acknowledged before, and nothing of it from before oldest, until
// when the new server is said to have had everything.
func compareRecords(acks []time.Time, fenced, oldest time.Time, survived func(n int) bool) (loss, error) {
	var l loss
	for n, at := range acks {
		switch here := survived(n); {
		case here && len(l.records) > 0 && at.Before(fenced):
			return l, fmt.Errorf("mismatch: record %d is there, and record %d, which was acknowledged before it, is not", n, l.records[0])
		case here:
		case !at.Before(fenced):
			return l, fmt.Errorf("mismatch: record %d is missing, and was acknowledged after the failover", n)
		case at.Before(oldest):
			return l, fmt.Errorf("mismatch: record %d is missing, and was acknowledged %s before the shown window", n, round(oldest.Sub(at)))
		default:
			if len(l.records) == 0 {
				l.earliest = at
			}
			l.records = append(l.records, n)
		}
	}
	return l, nil
}
