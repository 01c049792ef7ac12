package consensus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn/cluster/consensus"
)

// TestRoundsNeverServeALateCaller is the rule of ReadIndex: whoever asks while a round is under way needs another one.
func TestRoundsNeverServeALateCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var state, ran atomic.Uint64
		rounds := consensus.NewRounds(t.Context(), func(context.Context) (uint64, error) {
			found := state.Load()
			ran.Add(1)
			<-time.After(time.Second)
			return found, nil
		})
		first := make(chan uint64, 1)
		go func() {
			got, _ := rounds.Do(t.Context())
			first <- got
		}()
		synctest.Wait() // the first round has read the state
		state.Store(7)
		var late [10]chan uint64
		for i := range late {
			late[i] = make(chan uint64, 1)
			go func() {
				got, _ := rounds.Do(t.Context())
				late[i] <- got
			}()
		}
		if got := <-first; got != 0 {
			t.Errorf("first caller got %d", got)
		}
		for _, l := range late {
			if got := <-l; got != 7 {
				t.Errorf("a caller that asked after the change got %d, want 7", got)
			}
		}
		if ran.Load() != 2 {
			t.Errorf("%d rounds for 11 callers, want 2", ran.Load())
		}
	})
}

func TestRoundsHonourTheCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		rounds := consensus.NewRounds(ctx, func(ctx context.Context) (uint64, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := rounds.Do(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
		synctest.Wait()
	})
}
