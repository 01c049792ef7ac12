package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/cairn-storage/cairn"
)

// bundleMark is the first byte of a log entry that holds several commands. It is no op number and never becomes one.
const bundleMark = 0xff

// BundleVersion is the version of the command set that introduced bundles. They may be proposed only when
// View.CommandVersion is at least that.
const BundleVersion uint32 = 2

// Bundle renders commands, each as Encode wrote it, as one log entry: the byte 0xff, then of each command its length (4
// bytes, big-endian) and its bytes. There are at least two, and none is a bundle.
//
// Each command is applied by itself, in order: one that is refused does not touch the others. What they share is the index
// of the entry, so no View and no snapshot shows some of them only.
func Bundle(commands [][]byte) []byte {
	size := 1
	for _, c := range commands {
		size += 4 + len(c)
	}
	entry := append(make([]byte, 0, size), bundleMark)
	for _, c := range commands {
		entry = binary.BigEndian.AppendUint32(entry, uint32(len(c)))
		entry = append(entry, c...)
	}
	return entry
}

// stamped is a command of an entry, with who asked for it and when.
type stamped struct {
	Meta
	Command
}

// decodeEntry reads a log entry: what Encode wrote, or Bundle. All of it is decoded before anything is applied. Bytes that
// neither can have written are cairn.ErrCorrupt.
func decodeEntry(entry []byte) ([]stamped, error) {
	if len(entry) == 0 || entry[0] != bundleMark {
		meta, c, err := Decode(entry)
		return []stamped{{meta, c}}, err
	}
	var commands []stamped
	for rest := entry[1:]; len(rest) > 0; {
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return nil, fmt.Errorf("bundle: command %d ends early: %w", len(commands)+1, cairn.ErrCorrupt)
		}
		size := 4 + int(binary.BigEndian.Uint32(rest))
		meta, c, err := decodeBundled(rest[4:size])
		if err != nil {
			return nil, fmt.Errorf("bundle: command %d: %w", len(commands)+1, err)
		}
		commands, rest = append(commands, stamped{meta, c}), rest[size:]
	}
	if len(commands) < 2 {
		return nil, fmt.Errorf("bundle: holds fewer than two commands: %w", cairn.ErrCorrupt)
	}
	return commands, nil
}

func decodeBundled(data []byte) (Meta, Command, error) {
	if len(data) > 0 && data[0] == bundleMark {
		return Meta{}, nil, fmt.Errorf("is a bundle itself: %w", cairn.ErrCorrupt)
	}
	return Decode(data)
}
