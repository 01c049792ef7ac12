package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/mem"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// receiver is what a stream of responses is read from, each into a *part; io.EOF says that the call succeeded.
type receiver interface {
	RecvMsg(any) error
}

// incoming reads one stream. Its Read returns io.EOF only if what it has returned is all that was sent.
type incoming struct {
	ctx    context.Context // of the call
	cancel context.CancelCauseFunc
	stall  time.Duration
	stream receiver
	// inflater is nil if compression was not asked for.
	inflater *zstd.Decoder

	mu    sync.Mutex  // held by Read: one that is in progress may outlive the tool that it feeds
	rest  *mem.Reader // of the newest chunk
	sum   hash.Hash   // of what was read
	size  int64
	err   error // why it ended; io.EOF if it is whole
	zstd  bool  // the chunks are compressed
	xxh64 bool  // sum is that, and not a SHA-256
	// packed and plain are the newest chunk, if they are.
	packed, plain []byte
}

// errGivenUp ends a stream that nobody wants any more.
var errGivenUp = errors.New("stream: was given up")

// open makes the call and waits for the offer.
func (in *incoming) open(call func() (receiver, error)) (replica.Offer, error) {
	alarm := in.alarm()
	defer alarm.Stop()
	stream, err := call()
	if err != nil {
		return replica.Offer{}, failure(in.ctx, err)
	}
	in.stream, in.rest = stream, new(mem.Reader)
	var first part
	err = stream.RecvMsg(&first)
	switch offer := first.message.GetOffer(); {
	case err != nil && err != io.EOF:
		return replica.Offer{}, failure(in.ctx, err)
	case offer == nil:
		return replica.Offer{}, violation("begins without an offer")
	case offer.GetZstd() && in.inflater == nil:
		return replica.Offer{}, violation("is compressed, which was not asked for")
	case offer.GetSnapshot() != "":
		in.zstd, in.xxh64 = offer.GetZstd(), offer.GetXxh64()
		in.sum = newSum(in.xxh64)
		return pullOffer(offer), nil
	default:
		return pullOffer(offer), in.ended()
	}
}

// deliver hands the stream to take and judges what became of both.
func (in *incoming) deliver(offer replica.Offer, take func(replica.Offer, io.Reader) error) error {
	err := take(offer, in)
	if err != nil {
		in.cancel(errGivenUp)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err == nil && in.err == nil && in.size > 0 && in.rest.Remaining() == 0 {
		in.next() // whoever knows where the stream ends has not asked for more
	}
	broken := in.err
	if broken == io.EOF || errors.Is(broken, errGivenUp) {
		broken = nil
	}
	unverified := in.err == nil && in.size > 0
	_ = in.rest.Close() // of which nobody reads the rest
	if in.err == nil {
		in.err = errGivenUp // for a Read that comes too late
	}
	switch {
	case broken != nil && err != nil && !errors.Is(err, broken):
		return fmt.Errorf("%w (%v)", broken, err)
	case broken != nil:
		return broken
	case err == nil && unverified:
		return fmt.Errorf("snapshot %s: was taken as whole before the end of its stream: %w", offer.Snapshot, cairn.ErrCorrupt)
	}
	return err
}

// Read implements io.Reader.
func (in *incoming) Read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.rest.Remaining() == 0 && in.err == nil && len(p) > 0 {
		in.next()
	}
	if in.rest.Remaining() == 0 {
		return 0, in.err
	}
	n, _ := in.rest.Read(p) // which fails at its end only
	in.sum.Write(p[:n])
	in.size += int64(n)
	return n, nil
}

// next receives one message.
func (in *incoming) next() {
	message, err := in.receive()
	switch {
	case err == io.EOF:
		in.err = violation("ended too early")
		return
	case err != nil:
		in.err = in.broken(err)
		return
	case message.chunk != nil:
		in.err = in.take(message.chunk)
		return
	}
	if end, ok := message.message.GetPart().(*peerv1.PullResponse_End); ok {
		in.err = in.verify(end.End)
	} else {
		in.err = violation("has something else between its chunks")
	}
}

// take makes a chunk what is read next.
func (in *incoming) take(chunk *mem.Reader) error {
	if in.zstd {
		in.packed = slices.Grow(in.packed[:0], chunk.Remaining())[:chunk.Remaining()]
		_, _ = chunk.Read(in.packed)
		var err error
		if in.plain, err = in.inflater.DecodeAll(in.packed, in.plain[:0]); err != nil {
			return violation("has a chunk that cannot be decompressed: " + err.Error())
		}
		chunk = readerOf(in.plain)
	}
	if chunk.Remaining() == 0 {
		return violation("has an empty chunk")
	}
	in.rest = chunk
	return nil
}

// verify compares what came with what the sender says it sent.
func (in *incoming) verify(end *peerv1.PullEnd) error {
	sum := end.GetSha256()
	if in.xxh64 {
		sum = end.GetXxh64()
	}
	switch {
	case end.GetSize() != in.size:
		return violation(fmt.Sprintf("has %d bytes, and the sender sent %d", in.size, end.GetSize()))
	case !bytes.Equal(sum, in.sum.Sum(nil)):
		return violation(fmt.Sprintf("of %d bytes has another sum than the sender's", in.size))
	}
	if err := in.ended(); err != nil {
		return err
	}
	// failpoint: verified
	return io.EOF
}

// ended makes sure that the call succeeded and has nothing more to say.
func (in *incoming) ended() error {
	switch _, err := in.receive(); {
	case err == io.EOF:
		return nil
	case err != nil:
		return in.broken(err)
	}
	return violation("goes on behind its end")
}

// receive waits for a message, but not for ever.
func (in *incoming) receive() (message part, err error) {
	alarm := in.alarm()
	defer alarm.Stop()
	err = in.stream.RecvMsg(&message)
	return message, err
}

// alarm ends the call unless it is stopped in time.
func (in *incoming) alarm() *time.Timer {
	return time.AfterFunc(in.stall, func() {
		in.cancel(fmt.Errorf("stream: nothing came for %s: %w", in.stall, cairn.ErrTimeout))
	})
}

// broken is the error of a stream that the sender, the network or this side has broken off.
func (in *incoming) broken(err error) error {
	err = failure(in.ctx, err)
	if in.ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("stream: broke off after %d bytes: %v: %w", in.size, err, cairn.ErrUnavailable)
}

func violation(what string) error {
	return fmt.Errorf("stream: %s: %w", what, cairn.ErrCorrupt)
}
