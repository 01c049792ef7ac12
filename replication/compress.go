package replication

import (
	"github.com/klauspost/compress/zstd"
)

// Compression is what a node does to the streams that it sends, where the other side can undo it.
type Compression string

// Kinds of compression; the zero value is none.
const (
	CompressNone Compression = "none"
	CompressZstd Compression = "zstd"
)

// Every chunk is compressed for itself. That costs a few percent of what one stream of zstd would save, and for that nothing waits
// for more to come, a chunk is either whole or not, and nobody keeps a window: beyond the chunks on their way a stream needs twice
// maxInflated at most, whatever is sent.
const maxInflated = 4 << 20

// newDeflater returns what compresses chunks, of many streams at once.
func newDeflater() *zstd.Encoder {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(chunkBytes))
	if err != nil {
		panic(err) // the options are these
	}
	return encoder
}

// newInflater returns what decompresses them. A chunk that becomes larger than maxInflated is an error.
func newInflater() *zstd.Decoder {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxInflated), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // the options are these
	}
	return decoder
}
