package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// TestCompression: what comes out is what went in, and what can be compressed takes less of the connection if the sender is told so.
func TestCompression(t *testing.T) {
	l := newLab(t)
	same := bytes.Repeat([]byte("what is written here is written often; "), 100_000)
	for name, c := range map[string]struct {
		compression Compression
		data        []byte
		most        int // of the bytes on the wire, percent of data
		least       int
	}{
		"none":            {CompressNone, same, 110, 100},
		"by default none": {"", same, 110, 100},
		"zstd":            {CompressZstd, same, 10, 0},
		"noise":           {CompressZstd, noise(len(same)), 110, 100},
		"little":          {CompressZstd, []byte("x"), 1 << 30, 0},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			h := l.serveOn(listener, "n1", sendingBytes(c.data), ServerConfig{Compression: c.compression})
			var left atomic.Int64
			left.Store(1 << 40)
			counted := &host{dial: func(ctx context.Context) (net.Conn, error) {
				conn, err := h.dial(ctx)
				return &cutter{conn, &left}, err
			}}
			var got taken
			_, err = l.client("n2", "n1", counted).Pull(t.Context(), "n1", request(), got.take)
			if must(t, err); !got.whole || !bytes.Equal(got.data, c.data) {
				t.Errorf("whole %t, %d of %d bytes", got.whole, len(got.data), len(c.data))
			}
			used := int(1<<40 - left.Load())
			if used > c.most*len(c.data)/100 || used < c.least*len(c.data)/100 {
				t.Errorf("%d bytes on the wire for %d", used, len(c.data))
			}
		})
	}
}

// TestOlderNode: who does not say that it can decompress need not, and the sum is the one that everybody knows.
func TestOlderNode(t *testing.T) {
	l := newLab(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h := l.serveOn(listener, "n1", sendingBytes([]byte("plain")), ServerConfig{Compression: CompressZstd})
	conn, err := l.dialer("n2", map[cairn.NodeID]*host{"n1": h})(t.Context(), "n1")
	must(t, err)
	stream, err := peerv1.NewReplicationServiceClient(conn).Pull(t.Context(), requestMessage(request()))
	must(t, err)
	offer, err := stream.Recv()
	must(t, err)
	chunk, err := stream.Recv()
	must(t, err)
	end, err := stream.Recv()
	must(t, err)
	sum := sha256.Sum256([]byte("plain"))
	if offer.GetOffer().GetZstd() || string(chunk.GetChunk()) != "plain" || !bytes.Equal(end.GetEnd().GetSha256(), sum[:]) {
		t.Errorf("%v, %v, %v", offer, chunk, end)
	}
}

// TestDamagedCompression: no chunk that is not what a sender makes is taken for data, or for more memory than a chunk may have.
func TestDamagedCompression(t *testing.T) {
	deflater := newDeflater()
	good := deflater.EncodeAll([]byte("good"), nil)
	for name, chunk := range map[string][]byte{
		"not zstd": []byte("good"),
		"cut":      good[:len(good)-1],
		"nothing":  deflater.EncodeAll(nil, nil),
		"empty":    {},
		"bomb":     deflater.EncodeAll(make([]byte, 64<<20), nil),
	} {
		messages := streamOf("good", "good")
		messages[0].GetOffer().Zstd = true
		messages[1], messages[2] = chunkMessage(good), chunkMessage(chunk)
		in := &incoming{cancel: func(error) {}, stall: NewClient(nil, 0).stall, inflater: newInflater()}
		var cancel context.CancelFunc
		in.ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		offer, err := in.open(func() (receiver, error) { return &script{ctx: in.ctx, messages: messages}, nil })
		must(t, err)
		err = in.deliver(offer, func(_ replica.Offer, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if !errors.Is(err, cairn.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMemoryOfAStream holds a compressed stream in its middle, where both sides have all that they need.
func TestMemoryOfAStream(t *testing.T) {
	const limit, all = 64 << 20, 256 << 20
	l := newLab(t)
	block := noise(chunkBytes) // the same again and again: each chunk for itself does not get smaller
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h := l.serveOn(listener, "n1", sending(func(_ context.Context, w io.Writer) error {
		for range all / len(block) {
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	}), ServerConfig{Compression: CompressZstd})
	heap := func() int64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	before := heap()
	_, err = l.client("n2", "n1", h).Pull(t.Context(), "n1", request(), func(_ replica.Offer, r io.Reader) error {
		if _, err := io.CopyN(io.Discard, r, all/2); err != nil {
			return err
		}
		if more := heap() - before; more > limit {
			t.Errorf("%d MiB for both sides of a stream, want less than %d", more>>20, limit>>20)
		}
		_, err := io.Copy(io.Discard, r)
		return err
	})
	must(t, err)
}
