package sim

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// magic begins every stream.
const magic = "sim zfs stream 1\n"

// recordSize is how much of a stream zfs reads before it looks at any of it.
const recordSize = 312

// chunkSize is how much of a stream is checked, and kept when it breaks off, at a time.
const chunkSize = 64 << 10

// header says what a stream carries. Its body is the packed tree of the snapshot, whole also if the stream is incremental.
type header struct {
	Name      string // of the snapshot at the sender
	To, From  uint64 // guids; From is 0 for a full stream
	Creation  int64
	Offset    int // of the body, at which it goes on
	Size      int // of the whole body
	WithProps bool
	Props     [][2]string // of the file system, with WithProps
	SnapProps [][2]string // of the snapshot, with WithProps
	Raw       *sealed     // how it is encrypted, if it is sent as it is on disk
}

// sealed is what a raw stream carries of a lock.
type sealed struct{ Cipher, Format, Key string }

// encode writes a stream of body from h.Offset on.
func encode(h header, body []byte) ([]byte, error) {
	var head bytes.Buffer
	h.Size = len(body)
	if err := gob.NewEncoder(&head).Encode(h); err != nil {
		return nil, err
	}
	out := bytes.NewBufferString(magic)
	chunk(out, head.Bytes())
	for rest := body[min(h.Offset, len(body)):]; len(rest) > 0; {
		n := min(chunkSize, len(rest))
		chunk(out, rest[:n])
		rest = rest[n:]
	}
	return out.Bytes(), nil
}

func chunk(out *bytes.Buffer, data []byte) {
	_ = binary.Write(out, binary.BigEndian, [2]uint32{uint32(len(data)), crc32.ChecksumIEEE(data)}) // to memory
	out.Write(data)
}

// flaw is what is wrong with a stream.
type flaw int

const (
	sound flaw = iota
	foreign
	truncated
	damaged
)

// decode reads a stream as far as it is good: its header and what there is of the body. It is nothing without a header.
func decode(stream []byte) (*header, []byte, flaw) {
	rest, ok := bytes.CutPrefix(stream, []byte(magic))
	if !ok {
		if len(stream) < recordSize {
			return nil, nil, truncated
		}
		return nil, nil, foreign
	}
	head, rest, bad := cutChunk(rest)
	if bad != sound {
		return nil, nil, bad
	}
	h := &header{}
	if err := gob.NewDecoder(bytes.NewReader(head)).Decode(h); err != nil {
		return nil, nil, foreign
	}
	var body []byte
	for h.Offset+len(body) < h.Size {
		var part []byte
		if part, rest, bad = cutChunk(rest); bad != sound {
			return h, body, bad
		}
		body = append(body, part...)
	}
	return h, body, sound
}

func cutChunk(s []byte) (data, rest []byte, bad flaw) {
	if len(s) < 8 {
		return nil, nil, truncated
	}
	n, sum := binary.BigEndian.Uint32(s), binary.BigEndian.Uint32(s[4:])
	switch s = s[8:]; {
	case n > 64<<20:
		return nil, nil, damaged
	case uint32(len(s)) < n:
		return nil, nil, truncated
	case crc32.ChecksumIEEE(s[:n]) != sum:
		return nil, nil, damaged
	}
	return s[:n], s[n:], sound
}

func packBody(nodes []node) ([]byte, error) {
	var body bytes.Buffer
	err := gob.NewEncoder(&body).Encode(nodes)
	return body.Bytes(), err
}

func unpackBody(body []byte) (nodes []node, err error) {
	err = gob.NewDecoder(bytes.NewReader(body)).Decode(&nodes)
	return nodes, err
}

// partial is what a receive that broke off has kept.
type partial struct {
	header
	body []byte
}

// resumeToken has the look of those of zfs.
func (d *dataset) resumeToken() string {
	if d.partial == nil {
		return "-"
	}
	p := d.partial
	packed := fmt.Sprintf("%016x%016x%016x%s", p.To, p.From, len(p.body), p.Name)
	if p.Raw != nil {
		packed += "\x00raw"
	}
	return fmt.Sprintf("1-%010x-%x-%x", crc32.ChecksumIEEE([]byte(packed)), len(packed), packed)
}

// parseToken is the inverse of resumeToken.
func parseToken(token string) (_ header, at int, err error) {
	parts := strings.Split(token, "-")
	if len(parts) != 4 || parts[0] != "1" {
		return header{}, 0, resumeFailure("resume token is corrupt (invalid format)")
	}
	packed, err := hex.DecodeString(parts[3])
	if err != nil || fmt.Sprintf("%010x", crc32.ChecksumIEEE(packed)) != parts[1] {
		return header{}, 0, resumeFailure("resume token is corrupt (incorrect checksum)")
	}
	var numbers [3]uint64
	for i := range numbers { // the checksum says that they are ours
		if numbers[i], err = strconv.ParseUint(string(packed[16*i:16*i+16]), 16, 64); err != nil {
			return header{}, 0, err
		}
	}
	h := header{To: numbers[0], From: numbers[1]}
	if name, _, raw := strings.Cut(string(packed[48:]), "\x00"); raw {
		h.Name, h.Raw = name, &sealed{}
	} else {
		h.Name = name
	}
	return h, int(numbers[2]), nil
}
