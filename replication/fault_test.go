package replication

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// cutter is a connection that breaks when it has received so many bytes.
type cutter struct {
	net.Conn
	left *atomic.Int64
}

func (c *cutter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:max(min(int64(len(p)), c.left.Load()), 1)])
	if c.left.Add(-int64(n)) <= 0 {
		return n, errors.Join(err, c.Conn.Close())
	}
	return n, err
}

// TestConnectionCut cuts the connection everywhere: in the handshake, in the offer, in chunks and between them, in the end. A
// stream is whole if all of it came, and otherwise it says so.
func TestConnectionCut(t *testing.T) {
	l := newLab(t)
	data := noise(2*chunkBytes + 100)
	h := l.serve("n1", sendingBytes(data))
	pull := func(bytesLeft int64) (got taken, used int64, err error) {
		var left atomic.Int64
		left.Store(bytesLeft)
		cut := &host{dial: func(ctx context.Context) (net.Conn, error) {
			conn, err := h.dial(ctx)
			return &cutter{conn, &left}, err
		}}
		_, err = l.client("n2", "n1", cut).Pull(t.Context(), "n1", request(), got.take)
		return got, bytesLeft - left.Load(), err
	}
	_, total, err := pull(1 << 40)
	must(t, err)
	cuts := []int64{1, 1000, 3000, total / 3, total / 2, total - 5000}
	for near := int64(0); near < 400; near += 13 {
		cuts = append(cuts, total-near)
	}
	for _, at := range cuts {
		got, _, err := pull(at)
		switch {
		case got.whole != (err == nil) || got.whole && !bytes.Equal(got.data, data):
			t.Errorf("cut at %d of %d: %v, whole %t, %d bytes", at, total, err, got.whole, len(got.data))
		case err != nil && !errors.Is(err, cairn.ErrUnavailable):
			t.Errorf("cut at %d of %d: %v", at, total, err)
		case err == nil && at < total-1000:
			t.Errorf("cut at %d of %d and did not notice", at, total)
		}
	}
}

// TestServerGone: nobody listens any more, before a pull and in the middle of one.
func TestServerGone(t *testing.T) {
	l := newLab(t)
	h := l.serve("n1", sendingZeros(1<<40))
	client := l.client("n2", "n1", h)
	_, err := client.Pull(t.Context(), "n1", request(), func(_ replica.Offer, r io.Reader) error {
		if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
			return err
		}
		h.grpc.Stop()
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("in the middle: %v", err)
	}
	if _, err := client.Pull(t.Context(), "n1", request(), nil); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("before: %v", err)
	}
}

// liar sends one bit more than it has summed.
type liar struct {
	peerv1.UnimplementedReplicationServiceServer
}

func (liar) Pull(_ *peerv1.PullRequest, stream grpc.ServerStreamingServer[peerv1.PullResponse]) error {
	messages := streamOf("first", "second")
	messages[1].GetChunk()[0] ^= 1
	for _, message := range messages {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return nil
}

func TestServerLies(t *testing.T) {
	l := newLab(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer(l.serverCredentials("n1"))
	peerv1.RegisterReplicationServiceServer(server, liar{})
	l.background(func() { _ = server.Serve(listener) }, server.Stop)
	h := &host{dial: func(context.Context) (net.Conn, error) { return net.Dial("tcp", listener.Addr().String()) }}
	var got taken
	if _, err := l.client("n2", "n1", h).Pull(t.Context(), "n1", request(), got.take); !errors.Is(err, cairn.ErrCorrupt) || got.whole {
		t.Errorf("%v, whole %t", err, got.whole)
	}
}

// TestPullerStalls: a standby whose disk hangs does not hold the source for ever, and both sides keep little of what it
// does not take.
func TestPullerStalls(t *testing.T) {
	const most = 64 << 20
	l := newLab(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var sent atomic.Int64
	ended := make(chan error, 1)
	var before, during int64
	h := l.serveOn(listener, "n1", sending(func(_ context.Context, w io.Writer) (err error) {
		for chunk := make([]byte, writes); err == nil; {
			var n int
			n, err = w.Write(chunk)
			sent.Add(int64(n))
		}
		during = heap()
		ended <- err
		return err
	}), ServerConfig{Stall: time.Second})
	client := l.client("n2", "n1", h)
	before = heap()
	_, err = client.Pull(t.Context(), "n1", request(), func(_ replica.Offer, r io.Reader) error {
		if err := await(t, "the source is let go", ended); !errors.Is(err, cairn.ErrTimeout) {
			t.Errorf("the source: %v", err)
		}
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("the puller, when it goes on: %v", err)
	}
	if held := max(during-before, sent.Load()); held > most {
		t.Errorf("%d bytes were sent to a puller that takes none, and %d are in use", sent.Load(), during-before)
	}
	t.Logf("%.1f MiB sent, %.1f MiB in use on both sides", float64(sent.Load())/(1<<20), float64(during-before)/(1<<20))
}

// TestMemory: a long stream takes no more memory than a short one.
func TestMemory(t *testing.T) {
	const most = 64 << 20
	l := newLab(t)
	client := l.client("n2", "n1", l.serve("n1", sendingZeros(128<<20)))
	before := heap()
	var peak int64
	_, err := client.Pull(t.Context(), "n1", request(), func(_ replica.Offer, r io.Reader) error {
		for {
			if _, err := io.CopyN(io.Discard, r, 16<<20); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			peak = max(peak, heap()-before)
		}
	})
	must(t, err)
	if peak > most {
		t.Errorf("%d bytes in use", peak)
	}
	t.Logf("%.1f MiB in use on both sides", float64(peak)/(1<<20))
}
