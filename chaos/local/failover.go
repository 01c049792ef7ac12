package local

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Failover is what it took to get over the loss of a leader.
type Failover struct {
	Old, New *Server
	// Took is the time from the kill to the answer of the first write that began after it.
	Took     time.Duration
	Attempts int // writes that failed before
}

const (
	// attemptTimeout bounds one attempt of a write; the next one has the same token.
	attemptTimeout = 500 * time.Millisecond
	attemptPause   = 5 * time.Millisecond
	// failoverTimeout is when a cluster that takes no write counts as broken.
	failoverTimeout = 30 * time.Second
)

// KillLeader kills the leader with SIGKILL and writes metadata of a share through every server that is left, each attempt
// repeated with its token, until one write is committed. It checks that the write can be read and that the term has risen.
func (c *Cluster) KillLeader(ctx context.Context, share string) (Failover, error) {
	ctx, cancel := context.WithTimeout(ctx, failoverTimeout)
	defer cancel()
	old, err := c.Leader(ctx)
	if err != nil {
		return Failover{}, err
	}
	before, err := c.Status(ctx, old)
	if err != nil {
		return Failover{}, err
	}
	writers, err := c.writers(ctx, share, old)
	if err != nil {
		return Failover{}, err
	}
	killed := time.Now()
	if err := old.Kill(); err != nil {
		return Failover{}, err
	}
	first, attempts := firstWrite(ctx, writers)
	result := Failover{Old: old, Took: first.at.Sub(killed), Attempts: attempts}
	if first.server == nil {
		return result, fmt.Errorf("no write was committed in %s after the leader was killed; the last error: %w", failoverTimeout, first.err)
	}
	result.New, err = c.Leader(ctx)
	if err != nil {
		return result, err
	}
	return result, c.checkWrite(ctx, first, share, before.GetTerm())
}

// writer writes through one server.
type writer struct {
	server *Server
	api    *client.Client
	share  string
	value  string // that it writes
}

// writers makes one for every server that runs, without the leader. Each has written once, so that no connection has to be
// made while the time is taken.
func (c *Cluster) writers(ctx context.Context, share string, leader *Server) ([]writer, error) {
	var writers []writer
	for i, s := range c.running() {
		if s == leader {
			continue
		}
		api, err := c.API(s)
		if err != nil {
			return nil, err
		}
		w := writer{s, api, share, "warm"}
		if err := w.write(ctx, uuid.NewString()); err != nil {
			return nil, fmt.Errorf("write through %s before the kill: %w", s.Name, err)
		}
		w.value = strconv.Itoa(i) + "-" + uuid.NewString()
		writers = append(writers, w)
	}
	return writers, nil
}

// key is the metadata that is written.
func (w writer) key() string { return "failover-" + w.server.Name }

func (w writer) write(ctx context.Context, token string) error {
	_, err := w.api.Shares().UpdateShare(ctx, &cairnv1.UpdateShareRequest{
		Mutation: &cairnv1.Mutation{Token: token}, Share: w.share, SetMetadata: map[string]string{w.key(): w.value},
	})
	return err
}

// written is the first write that was committed. server is nil if none was.
type written struct {
	writer
	at  time.Time
	err error
}

// firstWrite returns when the first of the writers has had its answer, with the number of failed attempts of all.
func firstWrite(ctx context.Context, writers []writer) (written, int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	var first written
	attempts := 0
	for _, w := range writers {
		group.Go(func() {
			token := uuid.NewString()
			for ctx.Err() == nil {
				attempt, done := context.WithTimeout(ctx, attemptTimeout)
				err := w.write(attempt, token)
				done()
				at := time.Now()
				mu.Lock()
				switch {
				case err == nil && first.server == nil:
					first = written{writer: w, at: at}
					cancel()
				case err != nil && ctx.Err() == nil:
					attempts, first.err = attempts+1, err
				}
				mu.Unlock()
				Pause(ctx, attemptPause)
			}
		})
	}
	group.Wait()
	return first, attempts
}

// Pause returns after d, or when ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// checkWrite reads, linearizably and from every server that is left, what was written.
func (c *Cluster) checkWrite(ctx context.Context, w written, share string, oldTerm uint64) error {
	for _, s := range c.running() {
		api, err := c.API(s)
		if err != nil {
			return err
		}
		answer, err := api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: share})
		if err != nil {
			return fmt.Errorf("read through %s after the failover: %w", s.Name, err)
		}
		if got := answer.GetShare().GetMetadata()[w.key()]; got != w.value {
			return fmt.Errorf("%s does not have the write that %s has acknowledged: %q, want %q", s.Name, w.server.Name, got, w.value)
		}
		status, err := c.Status(ctx, s)
		if err != nil {
			return err
		}
		if status.GetTerm() <= oldTerm {
			return fmt.Errorf("%s is still in term %d of the leader that was killed", s.Name, oldTerm)
		}
	}
	return nil
}
