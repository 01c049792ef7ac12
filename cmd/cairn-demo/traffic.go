package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn/chaos/dav"
)

// traffic is clients that read and write the share all the time. Every read is checked; the first thing that goes wrong ends
// it.
type traffic struct {
	files *dav.Client
	group *errgroup.Group
	stop  chan struct{}
	over  <-chan struct{} // closed when a client has failed
	moved chan struct{}   // gets a value after every operation that somebody waits for

	mu      sync.Mutex
	reads   int
	writes  int
	slowest time.Duration // operation
	written manifest
}

const (
	trafficReaders = 2
	trafficWriters = 2
)

// startTraffic reads what is in content, which must not change meanwhile, and writes files of its own below dir.
func startTraffic(ctx context.Context, files *dav.Client, content manifest, dir string) (*traffic, error) {
	if err := files.Mkdir(ctx, dir); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	t := &traffic{files: files, group: group, stop: make(chan struct{}), over: ctx.Done(), moved: make(chan struct{}), written: manifest{}}
	names := slices.Sorted(maps.Keys(content))
	for i := range trafficReaders {
		group.Go(func() error {
			return t.repeat(ctx, func(n int) error {
				name := names[(n*trafficReaders+i)*7919%len(names)] // a prime: all over the tree
				return t.read(ctx, name, content[name])
			})
		})
	}
	for i := range trafficWriters {
		group.Go(func() error {
			return t.repeat(ctx, func(n int) error { return t.write(ctx, fmt.Sprintf("%s/%d-%d", dir, i, n)) })
		})
	}
	return t, nil
}

func (t *traffic) repeat(ctx context.Context, do func(n int) error) error {
	for n := 0; ; n++ {
		select {
		case <-t.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		began := time.Now()
		if err := do(n); err != nil {
			return err
		}
		t.mu.Lock()
		t.slowest = max(t.slowest, time.Since(began))
		t.mu.Unlock()
		select {
		case t.moved <- struct{}{}:
		default:
		}
	}
}

func (t *traffic) read(ctx context.Context, name string, want sum) error {
	got, _, err := downloadFile(ctx, t.files, name)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("mismatch: %q was read with another content during the failover", name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads++
	return nil
}

// write writes a file and reads it back.
func (t *traffic) write(ctx context.Context, name string) error {
	content := []byte("written during the failover: " + name + " " + strconv.FormatInt(time.Now().UnixNano(), 10))
	if err := t.files.Put(ctx, name, bytes.NewReader(content), int64(len(content))); err != nil {
		return err
	}
	want := sum(sha256.Sum256(content))
	t.mu.Lock()
	t.written[name] = want
	t.writes++
	t.mu.Unlock()
	return t.read(ctx, name, want)
}

// flow waits for so many operations. If a client fails it returns early; end tells why.
func (t *traffic) flow(operations int) {
	for range operations {
		select {
		case <-t.moved:
		case <-t.over:
			return
		}
	}
}

// end stops the clients and returns the first error that one of them had.
func (t *traffic) end() error {
	close(t.stop)
	return t.group.Wait()
}
