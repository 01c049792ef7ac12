package guard

import (
	"log/slog"
	"runtime"
	"time"
)

// Persistence repeats writes whose failure Raft cannot cope with, until the disk takes them or Stopped is closed. Without a Logger their
// errors go to Raft.
type Persistence struct {
	Stopped <-chan struct{}
	Logger  *slog.Logger
}

// writeRetry is how soon a write that failed is repeated.
const writeRetry = time.Second

// insist repeats a write until it has succeeded: Raft stands still meanwhile, as it has to. The write is the same every time, and nobody
// was told of it. When the engine stops, Raft's goroutine ends here: there is nothing that it could be answered.
func (p Persistence) insist(what string, write func() error) error {
	err := write()
	if err == nil || p.Logger == nil {
		return err
	}
	p.Logger.Error("raft: "+what+" cannot be written, so this node takes no part until the disk is good again", "error", err)
	for err != nil {
		select {
		case <-time.After(writeRetry):
			err = write()
		case <-p.Stopped:
			runtime.Goexit()
		}
	}
	p.Logger.Info("raft: " + what + " could be written, so this node takes part again")
	return nil
}
