package replication

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// script is a stream of messages, each after a pause, and how it ends: nil with io.EOF.
type script struct {
	ctx      context.Context
	messages []*peerv1.PullResponse
	pause    time.Duration
	silent   bool // it does not end
	end      error
}

func (s *script) RecvMsg(m any) error {
	if s.pause > 0 && !pause(s.ctx, s.pause) {
		return status.FromContextError(s.ctx.Err()).Err()
	}
	switch {
	case len(s.messages) > 0:
	case s.silent:
		<-s.ctx.Done()
		return status.FromContextError(s.ctx.Err()).Err()
	case s.end != nil:
		return s.end
	default:
		return io.EOF
	}
	data, err := proto.Marshal(s.messages[0])
	if err != nil {
		return err
	}
	s.messages = s.messages[1:]
	return newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, m)
}

// play reads a script as a client does.
func play(ctx context.Context, s *script, take func(replica.Offer, io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.ctx = ctx
	in := &incoming{ctx: ctx, cancel: cancel, stall: NewClient(nil, 0).stall}
	offer, err := in.open(func() (receiver, error) { return s, nil })
	if err != nil || offer.Snapshot == "" {
		return err
	}
	return in.deliver(offer, take)
}

func chunkMessage(data []byte) *peerv1.PullResponse {
	return &peerv1.PullResponse{Part: &peerv1.PullResponse_Chunk{Chunk: data}}
}

// streamOf is a stream with an XXH64, streamFor one for a node that knows no such thing.
func streamOf(chunks ...string) []*peerv1.PullResponse { return streamFor(true, chunks...) }

func streamFor(xxh64 bool, chunks ...string) []*peerv1.PullResponse {
	messages := []*peerv1.PullResponse{offerMessage(replica.Offer{Snapshot: "snap"})}
	messages[0].GetOffer().Xxh64 = xxh64
	all := strings.Join(chunks, "")
	for _, chunk := range chunks {
		messages = append(messages, chunkMessage([]byte(chunk)))
	}
	sum := sha256.Sum256([]byte(all))
	if xxh64 {
		return append(messages, endMessage(true, binary.BigEndian.AppendUint64(nil, xxhash.Sum64String(all)), int64(len(all))))
	}
	return append(messages, endMessage(false, sum[:], int64(len(all))))
}

// TestDamagedStream: every way in which a stream of three chunks can be damaged. None of them looks whole.
func TestDamagedStream(t *testing.T) {
	broken := status.Error(codes.Unavailable, "connection reset")
	whole := func() []*peerv1.PullResponse { return streamOf("first", "second", "third") }
	type damaged struct {
		messages []*peerv1.PullResponse
		end      error
		want     error
	}
	cases := map[string]damaged{
		"swapped":                {slices.Concat(whole()[:1], whole()[2:3], whole()[1:2], whole()[3:]), nil, cairn.ErrCorrupt},
		"doubled":                {slices.Concat(whole()[:2], whole()[1:]), nil, cairn.ErrCorrupt},
		"end twice":              {slices.Concat(whole(), whole()[4:]), nil, cairn.ErrCorrupt},
		"more behind the end":    {slices.Concat(whole(), whole()[1:2]), nil, cairn.ErrCorrupt},
		"two offers":             {slices.Concat(whole()[:1], whole()), nil, cairn.ErrCorrupt},
		"offer in the middle":    {slices.Concat(whole()[:2], whole()[:1], whole()[2:]), nil, cairn.ErrCorrupt},
		"message of nothing":     {slices.Concat(whole()[:2], []*peerv1.PullResponse{{}}, whole()[2:]), nil, cairn.ErrCorrupt},
		"empty chunk":            {slices.Concat(whole()[:2], []*peerv1.PullResponse{chunkMessage(nil)}, whole()[2:]), nil, cairn.ErrCorrupt},
		"end without a sum":      {slices.Concat(whole()[:4], []*peerv1.PullResponse{endMessage(true, nil, 16)}), nil, cairn.ErrCorrupt},
		"end with another sum":   {slices.Concat(whole()[:4], streamFor(false, "first", "second", "third")[4:]), nil, cairn.ErrCorrupt},
		"call fails at the end":  {whole(), broken, cairn.ErrUnavailable},
		"end of an empty stream": {slices.Concat(whole()[:4], streamOf()[1:]), nil, cairn.ErrCorrupt},
	}
	for i := range whole() {
		name := string(rune('0' + i))
		cases["message "+name+" missing"] = damaged{slices.Delete(whole(), i, i+1), nil, cairn.ErrCorrupt}
		cases["ends before message "+name] = damaged{whole()[:i], nil, cairn.ErrCorrupt}
		cases["breaks before message "+name] = damaged{whole()[:i], broken, cairn.ErrUnavailable}
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			for reader, read := range map[string]func(io.Reader, *taken) error{
				"to the end": func(r io.Reader, got *taken) error { return got.take(replica.Offer{}, r) },
				"as much as there should be": func(r io.Reader, _ *taken) error {
					_, err := io.ReadFull(r, make([]byte, len("firstsecondthird")))
					return err
				},
				"one byte at a time": func(r io.Reader, got *taken) error { return got.take(replica.Offer{}, stepping{r, 0}) },
			} {
				var got taken
				err := play(t.Context(), &script{messages: slices.Clone(test.messages), end: test.end}, func(_ replica.Offer, r io.Reader) error { return read(r, &got) })
				if !errors.Is(err, test.want) || got.whole {
					t.Errorf("read %s: %v, want %v; whole %t", reader, err, test.want, got.whole)
				}
			}
		})
	}
	for _, xxh64 := range []bool{true, false} {
		var got taken
		if err := play(t.Context(), &script{messages: streamFor(xxh64, "first", "second", "third")}, got.take); err != nil || string(got.data) != "firstsecondthird" {
			t.Errorf("undamaged, xxh64 %t: %q, %v", xxh64, got.data, err)
		}
	}
}

// TestEveryFlippedBit: a stream whose messages differ in one bit from what was sent is never taken as whole.
func TestEveryFlippedBit(t *testing.T) {
	for _, xxh64 := range []bool{true, false} {
		flipEveryBit(t, func() []*peerv1.PullResponse { return streamFor(xxh64, "first", "second") })
	}
}

func flipEveryBit(t *testing.T, stream func() []*peerv1.PullResponse) {
	for i, sent := range stream()[1:] {
		data, err := proto.Marshal(sent)
		must(t, err)
		for bit := range 8 * len(data) {
			messages := stream()
			flipped := slices.Clone(data)
			flipped[bit/8] ^= 1 << (bit % 8)
			end := error(nil)
			changed := new(peerv1.PullResponse)
			if proto.Unmarshal(flipped, changed) == nil {
				messages[i+1] = changed
			} else {
				messages, end = messages[:i+1], status.Error(codes.Internal, "cannot be decoded")
			}
			var got taken
			if err := play(t.Context(), &script{messages: messages, end: end}, got.take); err == nil || got.whole {
				t.Fatalf("message %d, bit %d: %v, %q is whole", i+1, bit, err, got.data)
			}
		}
	}
}

// TestSilence: a stream may take for ever, as long as something comes. One that falls silent is given up on time.
func TestSilence(t *testing.T) {
	limit := NewClient(nil, 0).stall
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var got taken
		must(t, play(t.Context(), &script{messages: streamOf(slices.Repeat([]string{"x"}, 100)...), pause: limit - time.Millisecond}, got.take))
		if took := time.Since(began); len(got.data) != 100 || took < 100*(limit-time.Millisecond) {
			t.Errorf("%d bytes in %s", len(got.data), took)
		}
	})
	for silentAt := range streamOf("first", "second") {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			var got taken
			err := play(t.Context(), &script{messages: streamOf("first", "second")[:silentAt], silent: true}, got.take)
			if took := time.Since(began); !errors.Is(err, cairn.ErrTimeout) || got.whole || took != limit {
				t.Errorf("silent before message %d: %v after %s", silentAt, err, took)
			}
		})
	}
}

// FuzzStream: whatever messages come, the reader does not panic, and it says that a stream is whole exactly if it is.
func FuzzStream(f *testing.F) {
	for _, messages := range [][]*peerv1.PullResponse{
		streamOf(), streamOf("first", "second"), streamFor(false, "first", "second"), streamOf("first", "second")[:2], append(streamOf("first"), streamOf("second")...),
	} {
		var data []byte
		for _, message := range messages {
			encoded, err := proto.Marshal(message)
			must(f, err)
			data = append(binary.AppendUvarint(data, uint64(len(encoded))), encoded...)
		}
		f.Add(data, byte(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, step byte) {
		messages, end := decode(data)
		want, whole := content(messages)
		whole = whole && end == nil
		var got taken
		err := play(t.Context(), &script{messages: messages, end: end}, func(offer replica.Offer, r io.Reader) error {
			return got.take(offer, stepping{r, int(step)})
		})
		if got.whole != whole || got.called && whole != (err == nil) || whole && !bytes.Equal(got.data, want) {
			t.Fatalf("whole %t, want %t; %d of %d bytes; %v", got.whole, whole, len(got.data), len(want), err)
		}
	})
}

// decode reads messages, each behind its length, and how the stream ends after them.
func decode(data []byte) (messages []*peerv1.PullResponse, end error) {
	for len(data) > 0 {
		size, n := binary.Uvarint(data)
		message := new(peerv1.PullResponse)
		if n <= 0 || size > uint64(len(data)-n) || proto.Unmarshal(data[n:][:size], message) != nil {
			return messages, status.Error(codes.Internal, "cannot be decoded")
		}
		messages, data = append(messages, message), data[n:][size:]
	}
	return messages, nil
}

// content is what a stream holds, and whether it is whole: an offer of something, chunks, and one end that fits them.
func content(messages []*peerv1.PullResponse) (data []byte, whole bool) {
	last := len(messages) - 1
	if last < 1 || messages[0].GetOffer().GetSnapshot() == "" || messages[0].GetOffer().GetZstd() {
		return nil, false
	}
	for _, message := range messages[1:last] {
		if len(message.GetChunk()) == 0 {
			return nil, false
		}
		data = append(data, message.GetChunk()...)
	}
	end, sum := messages[last].GetEnd(), sha256.Sum256(data)
	same := bytes.Equal(end.GetSha256(), sum[:])
	if messages[0].GetOffer().GetXxh64() {
		same = bytes.Equal(end.GetXxh64(), binary.BigEndian.AppendUint64(nil, xxhash.Sum64(data)))
	}
	return data, end.GetSize() == int64(len(data)) && same
}

// stepping reads little at a time.
type stepping struct {
	io.Reader
	step int
}

// Read implements io.Reader.
func (r stepping) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1+r.step)]) }
