package replication

import (
	"context"
	"fmt"
	"hash"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/mem"

	"github.com/cairn-storage/cairn"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

const (
	// chunkBytes is how much of a stream goes into one message.
	chunkBytes = 256 << 10
	// linger is how long data waits for more before it goes out by itself, so that a slow source is told from a stalled one.
	linger = time.Second
)

// sender is what a stream of responses is written to: each is a PullResponse or a chunk.
type sender interface {
	SendMsg(any) error
}

// outgoing turns what a source writes into messages. The offer goes out with the first of them: a source that cannot even
// begin fails the call, and nothing has been offered.
//
// Messages are sent by a goroutine of their own. gRPC cannot be told to give up a Send before its call ends, and the call
// has to end when the puller stalls.
type outgoing struct {
	ctx      context.Context
	offer    *peerv1.PullResponse // nil once it is sent
	messages chan any
	pumped   chan struct{} // closed when the goroutine has ended
	rate     *limiter
	stall    time.Duration
	deflater *zstd.Encoder // nil without compression
	buffers  *buffers

	chunk   *[]byte // that is being filled; nil if it would be empty
	flushed time.Time
	xxh64   bool // sum is that, and not a SHA-256
	sum     hash.Hash
	size    int64
}

// pump sends messages until there are no more or the call ends.
func (o *outgoing) pump(stream sender, cancel context.CancelCauseFunc) {
	defer close(o.pumped)
	for {
		select {
		case <-o.ctx.Done():
			return
		case message, more := <-o.messages:
			if !more {
				return
			}
			if err := stream.SendMsg(message); err != nil {
				cancel(fmt.Errorf("puller: %w: %w", err, cairn.ErrUnavailable))
				return
			}
		}
	}
}

// Write implements io.Writer for one source. It does not keep p.
func (o *outgoing) Write(p []byte) (int, error) {
	written := 0
	for limit := o.rate.piece(chunkBytes); len(p) > 0; {
		if o.chunk == nil {
			o.chunk = o.buffers.Get(0)
		}
		n := min(len(p), limit-len(*o.chunk))
		*o.chunk = append(*o.chunk, p[:n]...)
		written, p = written+n, p[n:]
		if len(*o.chunk) < limit && time.Since(o.flushed) < linger {
			continue
		}
		if err := o.flush(); err != nil {
			return written, err
		}
	}
	return written, nil
}

// flush sends the chunk that is being filled, if there is one.
func (o *outgoing) flush() error {
	if o.chunk == nil {
		return nil
	}
	data := o.chunk
	o.chunk = nil
	o.sum.Write(*data)
	o.size += int64(len(*data))
	var out mem.Buffer
	if o.deflater != nil {
		out = mem.SliceBuffer(o.deflater.EncodeAll(*data, nil))
		o.buffers.Put(data)
	} else {
		out = mem.NewBuffer(data, o.buffers)
	}
	if err := o.rate.wait(o.ctx, out.Len()); err != nil {
		return err
	}
	o.flushed = time.Now()
	return o.hand(chunk{out})
}

// finish sends the end, and waits until everything has been taken over by gRPC.
func (o *outgoing) finish() error {
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.hand(endMessage(o.xxh64, o.sum.Sum(nil), o.size)); err != nil {
		return err
	}
	close(o.messages)
	return o.await(func(stalled <-chan time.Time) error {
		select {
		case <-o.pumped:
			return context.Cause(o.ctx)
		case <-stalled:
			return o.stalled()
		}
	})
}

// hand gives a message to the goroutine that sends, behind the offer.
func (o *outgoing) hand(message any) error {
	if offer := o.offer; offer != nil {
		o.offer = nil
		if err := o.hand(offer); err != nil {
			return err
		}
	}
	return o.await(func(stalled <-chan time.Time) error {
		select {
		case o.messages <- message:
			return nil
		case <-o.ctx.Done():
			return context.Cause(o.ctx)
		case <-stalled:
			return o.stalled()
		}
	})
}

func (o *outgoing) await(wait func(stalled <-chan time.Time) error) error {
	timer := time.NewTimer(o.stall)
	defer timer.Stop()
	return wait(timer.C)
}

func (o *outgoing) stalled() error {
	return fmt.Errorf("puller: has taken nothing for %s: %w", o.stall, cairn.ErrTimeout)
}
