package consensus

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// TransferLeadership hands leadership to a server, or to whichever Raft finds best if it is nil. Two at a time can make the first stick.
func (e *Engine) TransferLeadership(ctx context.Context, to *raft.Server) error {
	i := e.instance.Load()
	answer, done := make(chan error, 1), make(chan struct{})
	earlier := i.transfer.Swap(&done)
	future := i.LeadershipTransfer
	if to != nil {
		future = func() raft.Future { return i.LeadershipTransferToServer(to.ID, to.Address) }
	}
	go func() {
		defer close(done)
		answer <- future().Error()
		if earlier != nil {
			<-*earlier
		}
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle waits until Raft has answered all transfers, or the limit is over: those that it has not looked at when it is shut down are never
// answered.
func (i *instance) settle(limit time.Duration) {
	transfer := i.transfer.Load()
	if transfer == nil {
		return
	}
	select {
	case <-*transfer:
	case <-time.After(limit):
	}
}
