package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn/cmd/cairn-demo/dav"
	"github.com/cairn-storage/cairn/cmd/cairn-demo/local"
)

// attempt bounds one attempt to append a record.
const attempt = 2 * time.Second

// ack is the answer to one record.
type ack struct {
	at time.Time
	by string // the server that gave it
}

// journal appends numbered records to a share, one after another, and remembers what was acknowledged. A record that is not
// acknowledged is written again, where the share is served by then.
type journal struct {
	// locate finds the server that serves the share now.
	locate func(ctx context.Context) (by string, files *dav.Client, err error)

	mu    sync.Mutex
	acks  []ack         // of record 0, 1, …
	moved chan struct{} // closed at the next acknowledgement

	stop context.CancelFunc
	done chan struct{}
}

// startJournal writes until end.
func startJournal(ctx context.Context, locate func(context.Context) (string, *dav.Client, error)) *journal {
	ctx, stop := context.WithCancel(ctx)
	j := &journal{locate: locate, moved: make(chan struct{}), stop: stop, done: make(chan struct{})}
	go j.run(ctx)
	return j
}

// end stops the writer and returns what was acknowledged.
func (j *journal) end() []ack {
	j.stop()
	<-j.done
	return j.acks
}

func recordName(n int) string { return fmt.Sprintf("record-%06d", n) }

func recordText(n int) string { return fmt.Sprintf("this is record %d\n", n) }

func (j *journal) run(ctx context.Context) {
	defer close(j.done)
	var by string
	var files *dav.Client
	for n := 0; ctx.Err() == nil; {
		var err error
		if files == nil {
			by, files, err = j.locate(ctx)
		}
		if err == nil {
			err = appendRecord(ctx, files, n)
		}
		if err == nil {
			j.acknowledged(ack{time.Now(), by})
			n++
			continue
		}
		if files != nil {
			files.Close()
			files = nil
		}
		local.Pause(ctx, 10*time.Millisecond)
	}
	if files != nil {
		files.Close()
	}
}

func appendRecord(ctx context.Context, files *dav.Client, n int) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	text := recordText(n)
	return files.Put(ctx, recordName(n), strings.NewReader(text), int64(len(text)))
}

func (j *journal) acknowledged(a ack) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acks = append(j.acks, a)
	close(j.moved)
	j.moved = make(chan struct{})
}

// await waits until so many acknowledgements satisfy the condition, and returns the first of them.
func (j *journal) await(ctx context.Context, count int, condition func(ack) bool) (ack, error) {
	for {
		j.mu.Lock()
		var found []ack
		for _, a := range j.acks {
			if condition(a) {
				found = append(found, a)
			}
		}
		moved := j.moved
		j.mu.Unlock()
		if len(found) >= count {
			return found[0], nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ack{}, fmt.Errorf("%d of %d records were acknowledged: %w", len(found), count, ctx.Err())
		}
	}
}

// loss is what a failover has left behind.
type loss struct {
	records  []int     // that were acknowledged by the old server and are not at the new one
	earliest time.Time // when the first of them was acknowledged
}

// compare says which acknowledged records did not survive. What the new server has acknowledged must be there; what is missing
// must be the end of what the old one has acknowledged, and nothing of it from before oldest, until when the new server is said
// to have had everything.
func compareRecords(acks []ack, old string, oldest time.Time, survived func(n int) bool) (loss, error) {
	var l loss
	for n, a := range acks {
		switch here := survived(n); {
		case here && len(l.records) > 0 && a.by == old:
			return l, fmt.Errorf("mismatch: record %d is there, and record %d, which was acknowledged before it, is not", n, l.records[0])
		case here:
		case a.by != old:
			return l, fmt.Errorf("mismatch: record %d is missing, and was acknowledged by %s, which took over", n, a.by)
		case a.at.Before(oldest):
			return l, fmt.Errorf("mismatch: record %d is missing, and was acknowledged %s before the shown window", n, round(oldest.Sub(a.at)))
		default:
			if len(l.records) == 0 {
				l.earliest = a.at
			}
			l.records = append(l.records, n)
		}
	}
	return l, nil
}
