package guard_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/cluster/guard"
)

// failing is a stable store whose next writes fail.
type failing struct {
	raft.StableStore
	writes int
}

func (f *failing) SetUint64(key []byte, value uint64) error {
	if f.writes > 0 {
		f.writes--
		return syscall.EIO
	}
	return f.StableStore.SetUint64(key, value)
}

// TestTermOnAFailingDisk: Raft panics if it is told that a term cannot be written. It stands still instead, says why in one line,
// and goes on when the disk is good again, or ends when the engine does.
func TestTermOnAFailingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		stopped := make(chan struct{})
		disk := &failing{StableStore: raft.NewInmemStore(), writes: 5}
		vote := &guard.VoteStore{StableStore: disk, Persistence: guard.Persistence{Stopped: stopped, Logger: slog.New(slog.NewTextHandler(&log, nil))}}
		if err := vote.SetUint64([]byte("CurrentTerm"), 7); err != nil {
			t.Error(err)
		}
		if got, err := vote.GetUint64([]byte("CurrentTerm")); got != 7 || err != nil {
			t.Errorf("term %d, %v", got, err)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), syscall.EIO.Error()) {
			t.Errorf("%d lines: %s", lines, log.String())
		}
		disk.writes = 1 << 30
		ended := make(chan error, 1)
		go func() {
			defer close(ended)
			ended <- vote.SetUint64([]byte("CurrentTerm"), 8)
		}()
		synctest.Wait()
		close(stopped)
		if err, answered := <-ended; answered {
			t.Errorf("after the engine has stopped Raft was answered: %v", err)
		}
		vote.Logger = nil
		if err := vote.SetUint64([]byte("CurrentTerm"), 9); !errors.Is(err, syscall.EIO) {
			t.Errorf("without a logger: %v", err)
		}
	})
}
