package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/cairn-storage/cairn"
)

// wellFormed checks that data is exactly one msgpack value of the kinds that commands and rows are made of. The decoder
// trusts lengths and allocates what they claim; after this check a length cannot claim more than the data holds.
func wellFormed(data []byte) error {
	pos := 0
	for pending := 1; pending > 0; pending-- {
		if pos >= len(data) {
			return fmt.Errorf("ends early: %w", cairn.ErrCorrupt)
		}
		header, children, content, ok := shape(data[pos:])
		if !ok || header+content > len(data)-pos {
			return fmt.Errorf("value at byte %d: %w", pos, cairn.ErrCorrupt)
		}
		pos += header + content
		// Every child takes at least one byte.
		if pending += children; pending > len(data)-pos+1 {
			return fmt.Errorf("count at byte %d: %w", pos, cairn.ErrCorrupt)
		}
	}
	if pos != len(data) {
		return fmt.Errorf("%d bytes too many: %w", len(data)-pos, cairn.ErrCorrupt)
	}
	return nil
}

// shape reads the head of the value that data starts with: the bytes of the head, how many values it holds, and how many
// bytes of content follow.
func shape(data []byte) (header, children, content int, ok bool) {
	code := data[0]
	switch {
	case msgpcode.IsFixedNum(code), code == msgpcode.Nil, code == msgpcode.True, code == msgpcode.False:
		return 1, 0, 0, true
	case msgpcode.IsFixedString(code):
		return 1, 0, int(code & msgpcode.FixedStrMask), true
	case msgpcode.IsFixedArray(code):
		return 1, int(code & msgpcode.FixedArrayMask), 0, true
	case msgpcode.IsFixedMap(code):
		return 1, 2 * int(code&msgpcode.FixedMapMask), 0, true
	}
	switch code {
	case msgpcode.Uint8, msgpcode.Int8:
		return 1, 0, 1, true
	case msgpcode.Uint16, msgpcode.Int16:
		return 1, 0, 2, true
	case msgpcode.Uint32, msgpcode.Int32:
		return 1, 0, 4, true
	case msgpcode.Uint64, msgpcode.Int64:
		return 1, 0, 8, true
	case msgpcode.Str8, msgpcode.Bin8:
		n, ok := length(data, 1)
		return 2, 0, n, ok
	case msgpcode.Str16, msgpcode.Bin16:
		n, ok := length(data, 2)
		return 3, 0, n, ok
	case msgpcode.Str32, msgpcode.Bin32:
		n, ok := length(data, 4)
		return 5, 0, n, ok
	case msgpcode.Array16:
		n, ok := length(data, 2)
		return 3, n, 0, ok
	case msgpcode.Array32:
		n, ok := length(data, 4)
		return 5, n, 0, ok
	case msgpcode.Map16:
		n, ok := length(data, 2)
		return 3, 2 * n, 0, ok
	case msgpcode.Map32:
		n, ok := length(data, 4)
		return 5, 2 * n, 0, ok
	}
	return 0, 0, 0, false
}

// length reads the big-endian length of the given width behind the code.
func length(data []byte, width int) (int, bool) {
	if len(data) < 1+width {
		return 0, false
	}
	switch width {
	case 1:
		return int(data[1]), true
	case 2:
		return int(binary.BigEndian.Uint16(data[1:])), true
	}
	return int(binary.BigEndian.Uint32(data[1:])), true
}
