package replication

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

// ServerOption is what a gRPC server needs that a Server is registered with.
func ServerOption() grpc.ServerOption { return grpc.ForceServerCodecV2(newCodec()) }

// codec is gRPC's own for all messages but those of a stream. Their bytes are the same, but protobuf copies a chunk twice on its
// way, into memory that is cleared before. That is a fifth of what a stream costs.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// chunk is sent in the place of a PullResponse with a chunk. Its buffer belongs to gRPC from then on.
type chunk struct{ mem.Buffer }

// part is received in the place of a PullResponse.
type part struct {
	message *peerv1.PullResponse // nil if it is a chunk
	chunk   *mem.Reader          // whose buffers are used again when they are read
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	data, ok := v.(chunk)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	head := protowire.AppendTag(nil, chunkField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(data.Len()))
	return mem.BufferSlice{mem.SliceBuffer(head), data.Buffer}, nil
}

// chunkField is the number of the field in a PullResponse.
const chunkField = 2

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	p, ok := v.(*part)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if p.chunk = chunkOf(data); p.chunk != nil {
		p.message = nil
		return nil
	}
	p.message = new(peerv1.PullResponse)
	if err := c.CodecV2.Unmarshal(data, p.message); err != nil {
		return err
	}
	if in, ok := p.message.GetPart().(*peerv1.PullResponse_Chunk); ok { // and something that this version does not know
		p.message, p.chunk = nil, readerOf(in.Chunk)
	}
	return nil
}

// chunkOf returns what follows the head of a message that is a chunk and nothing else, nil if it is not.
func chunkOf(data mem.BufferSlice) *mem.Reader {
	var head [16]byte
	known := head[:data.CopyTo(head[:])]
	field, kind, tag := protowire.ConsumeTag(known)
	if tag < 0 || field != chunkField || kind != protowire.BytesType {
		return nil
	}
	size, length := protowire.ConsumeVarint(known[tag:])
	if length < 0 || size != uint64(data.Len()-tag-length) {
		return nil
	}
	r := data.Reader()
	_, _ = r.Discard(tag + length) // which are there
	return r
}

func readerOf(data []byte) *mem.Reader { return mem.BufferSlice{mem.SliceBuffer(data)}.Reader() }

// buffers are those of chunks that are sent. gRPC's own pool would clear them before each use.
type buffers struct{ pool sync.Pool }

// Get implements mem.BufferPool, for no more than chunkBytes.
func (b *buffers) Get(n int) *[]byte {
	if data, ok := b.pool.Get().(*[]byte); ok {
		*data = (*data)[:n]
		return data
	}
	data := make([]byte, n, chunkBytes)
	return &data
}

// Put implements mem.BufferPool.
func (b *buffers) Put(data *[]byte) { b.pool.Put(data) }
