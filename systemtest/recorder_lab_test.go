//go:build lab

package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// recorder writes numbered records to a file that it has open, each to its own place, and each is on disk before the next one
// begins.
type recorder struct {
	t     *testing.T
	file  *os.File
	goOn  bool // with the next record after one that failed
	ended chan struct{}

	mu     sync.Mutex
	stop   bool
	begun  int                  // how many records
	acked  map[int]acknowledged // by record
	latest time.Time            // when the newest one began that was acknowledged
	moved  chan struct{}        // closed, and made anew, with each record
	err    error
}

type acknowledged struct{ began, ended time.Time }

const (
	recordSize = 32
	// recordEvery leaves the emulated processor to the servers.
	recordEvery = 100 * time.Millisecond
)

func recordText(n int) []byte {
	return fmt.Appendf(nil, "%-*s\n", recordSize-1, fmt.Sprint("this is record ", n))
}

// startRecorder begins with a file that is not there yet.
func startRecorder(t *testing.T, path string, goOn bool) *recorder {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, file: file, goOn: goOn, ended: make(chan struct{}), acked: make(map[int]acknowledged), moved: make(chan struct{})}
	go r.run()
	return r
}

func (r *recorder) run() {
	defer close(r.ended)
	pace := time.NewTicker(recordEvery)
	defer pace.Stop()
	for n := 0; r.begin(n); n++ {
		<-pace.C
		began := time.Now()
		_, err := r.file.WriteAt(recordText(n), int64(n*recordSize))
		if err == nil {
			err = r.file.Sync()
		}
		r.note(n, began, err)
		if err != nil && !r.goOn {
			return
		}
	}
}

func (r *recorder) begin(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = n + 1
	return !r.stop
}

func (r *recorder) note(n int, began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.acked[n], r.latest = acknowledged{began, time.Now()}, began
	} else if !r.goOn {
		r.err = fmt.Errorf("record %d: %w", n, err)
	}
	close(r.moved)
	r.moved = make(chan struct{})
}

// next is the first record that has not begun.
func (r *recorder) next() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun
}

// flow waits until so many records that begin after the call are acknowledged, and returns the last one of them.
func (r *recorder) flow(records int) int {
	r.t.Helper()
	limit := time.After(labPatience)
	for last := r.next() + records - 1; ; {
		r.mu.Lock()
		_, done := r.acked[last]
		err, moved := r.err, r.moved
		r.mu.Unlock()
		switch {
		case err != nil:
			r.t.Fatalf("%s: %v", r.file.Name(), err)
		case done:
			return last
		}
		select {
		case <-moved:
		case <-limit:
			r.t.Fatalf("%s: record %d is not acknowledged", r.file.Name(), last)
		}
	}
}

// end stops the recorder and returns when the newest record began that was acknowledged. One that waits for a server is given
// up with its mount.
func (r *recorder) end() time.Time {
	r.t.Helper()
	r.mu.Lock()
	r.stop = true
	r.mu.Unlock()
	select {
	case <-r.ended:
	case <-time.After(labPatience):
		r.t.Errorf("%s: a write does not end", r.file.Name())
	}
	if err := r.file.Close(); err != nil && !r.goOn {
		r.t.Errorf("%s: %v", r.file.Name(), err)
	}
	return r.latest
}

// missing lists, of the acknowledged records in a range, those that content does not have.
func (r *recorder) missing(content []byte, from, to int) (missing []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := from; n < to; n++ {
		if _, ok := r.acked[n]; !ok {
			continue
		}
		at := n * recordSize
		if at+recordSize > len(content) || !bytes.Equal(content[at:at+recordSize], recordText(n)) {
			missing = append(missing, n)
		}
	}
	return missing
}

// caughtUp waits until the standbys have everything that was written before, while more is written.
func (s *copied) caughtUp() {
	s.t.Helper()
	began := time.Now()
	s.await(30*time.Second, "standbys that have what was written before", func(ctx context.Context) (bool, error) {
		api, err := s.API()
		if err != nil {
			return false, err
		}
		answer, err := api.Replicas().ListReplicas(ctx, &cairnv1.ListReplicasRequest{Share: s.name})
		for _, r := range answer.GetReplicas() {
			state, lag := r.GetReplica().GetState(), time.Duration(r.GetLagMs())*time.Millisecond
			if state == "out_of_sync" || state == "in_sync" && (lag < 0 || lag > time.Since(began)) {
				return false, fmt.Errorf("%v", r)
			}
		}
		return err == nil, err
	})
}

func (r *recorder) name() string { return filepath.Base(r.file.Name()) }
