package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// receiver is what a stream of responses is read from; io.EOF says that the call succeeded.
type receiver interface {
	Recv() (*peerv1.PullResponse, error)
}

// incoming reads one stream. Its Read returns io.EOF only if what it has returned is all that was sent.
type incoming struct {
	ctx    context.Context // of the call
	cancel context.CancelCauseFunc
	stall  time.Duration
	stream receiver
	// inflater is nil if compression was not asked for.
	inflater *zstd.Decoder

	mu   sync.Mutex // held by Read: one that is in progress may outlive the tool that it feeds
	rest []byte     // of the newest chunk
	sum  hash.Hash
	size int64
	err  error // why it ended; io.EOF if it is whole
	zstd bool  // the chunks are compressed
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
	in.stream, in.sum = stream, sha256.New()
	message, err := stream.Recv()
	switch offer := message.GetOffer(); {
	case err != nil && err != io.EOF:
		return replica.Offer{}, failure(in.ctx, err)
	case offer == nil:
		return replica.Offer{}, violation("begins without an offer")
	case offer.GetZstd() && in.inflater == nil:
		return replica.Offer{}, violation("is compressed, which was not asked for")
	case offer.GetSnapshot() != "":
		in.zstd = offer.GetZstd()
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
	if err == nil && in.err == nil && in.size > 0 && len(in.rest) == 0 {
		in.next() // whoever knows where the stream ends has not asked for more
	}
	broken := in.err
	if broken == io.EOF || errors.Is(broken, errGivenUp) {
		broken = nil
	}
	unverified := in.err == nil && in.size > 0
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
	for len(in.rest) == 0 && in.err == nil && len(p) > 0 {
		in.next()
	}
	if len(in.rest) == 0 {
		return 0, in.err
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
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
	}
	switch part := message.GetPart().(type) {
	case *peerv1.PullResponse_Chunk:
		in.rest, in.err = in.inflated(part.Chunk)
		in.sum.Write(in.rest)
		in.size += int64(len(in.rest))
	case *peerv1.PullResponse_End:
		in.err = in.verify(part.End)
	default:
		in.err = violation("has something else between its chunks")
	}
}

// inflated is what a chunk stands for.
func (in *incoming) inflated(chunk []byte) ([]byte, error) {
	if in.zstd {
		var err error
		if chunk, err = in.inflater.DecodeAll(chunk, nil); err != nil {
			return nil, violation("has a chunk that cannot be decompressed: " + err.Error())
		}
	}
	if len(chunk) == 0 {
		return nil, violation("has an empty chunk")
	}
	return chunk, nil
}

// verify compares what came with what the sender says it sent.
func (in *incoming) verify(end *peerv1.PullEnd) error {
	switch {
	case end.GetSize() != in.size:
		return violation(fmt.Sprintf("has %d bytes, and the sender sent %d", in.size, end.GetSize()))
	case !bytes.Equal(end.GetSha256(), in.sum.Sum(nil)):
		return violation(fmt.Sprintf("of %d bytes has another SHA-256 than the sender's", in.size))
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
func (in *incoming) receive() (*peerv1.PullResponse, error) {
	alarm := in.alarm()
	defer alarm.Stop()
	return in.stream.Recv()
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
