package replication

import (
	"bytes"
	"io"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn/actors/replica"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// TestChunkOnTheWire: what is sent of a chunk is what protobuf would send.
func TestChunkOnTheWire(t *testing.T) {
	for _, size := range []int{1, 127, 128, writes, chunkBytes} {
		want, err := proto.Marshal(chunkMessage(noise(size)))
		must(t, err)
		got, err := newCodec().Marshal(chunk{mem.SliceBuffer(noise(size))})
		must(t, err)
		if !bytes.Equal(got.Materialize(), want) {
			t.Errorf("a chunk of %d bytes is %d bytes, not the %d of protobuf", size, got.Len(), len(want))
		}
	}
}

// TestPartFromTheWire: every message that protobuf understands is understood, however it is cut into buffers.
func TestPartFromTheWire(t *testing.T) {
	encode := func(messages ...*peerv1.PullResponse) (data []byte) {
		for _, message := range messages {
			encoded, err := proto.Marshal(message)
			must(t, err)
			data = append(data, encoded...)
		}
		return data
	}
	offer, piece := offerMessage(replica.Offer{Snapshot: "snap"}), chunkMessage(noise(300))
	for name, data := range map[string][]byte{
		"chunk": encode(piece), "empty chunk": encode(chunkMessage(nil)), "offer": encode(offer), "nothing": {},
		"chunk twice": encode(piece, piece), "chunk before an offer": encode(piece, offer), "chunk behind an offer": encode(offer, piece),
		"chunk and an unknown field": append(encode(piece), 0x78, 1), "an unknown field and a chunk": append([]byte{0x78, 1}, encode(piece)...),
		"cut": encode(piece)[:200], "length that is too long": {0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, "half a tag": {0x92},
	} {
		want := new(peerv1.PullResponse)
		wrong := proto.Unmarshal(data, want)
		for _, cut := range []int{1, 2, 3, 100, 1 << 20} {
			var buffers mem.BufferSlice
			for rest := data; len(rest) > 0; rest = rest[min(cut, len(rest)):] {
				buffers = append(buffers, mem.SliceBuffer(rest[:min(cut, len(rest))]))
			}
			var got part
			if err := newCodec().Unmarshal(buffers, &got); (err == nil) != (wrong == nil) {
				t.Errorf("%s, cut at %d: %v, and protobuf says %v", name, cut, err, wrong)
			}
			if wrong != nil {
				continue
			}
			found := got.message
			if got.chunk != nil {
				data, err := io.ReadAll(got.chunk)
				must(t, err)
				found = chunkMessage(data)
			}
			want := proto.CloneOf(want)
			want.ProtoReflect().SetUnknown(nil)
			if !proto.Equal(found, want) {
				t.Errorf("%s, cut at %d: %v", name, cut, found)
			}
		}
	}
}
