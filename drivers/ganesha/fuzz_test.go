package ganesha

import (
	"bytes"
	"testing"
)

// FuzzLines: however the log of Ganesha is cut into pieces, the same lines come out.
func FuzzLines(f *testing.F) {
	f.Add([]byte("01/01/2026 00:00:00 : epoch 1 : n1 : ganesha.nfsd-1[main] init :NFS STARTUP :EVENT :Export 7 pseudo (/a)\nrest"), 5)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		if piece < 1 || len(data) > maxLine {
			return
		}
		read := func(pieces [][]byte) (all []string) {
			l := &lines{each: func(text string) {
				if parsed, ok := parseLine(text); ok {
					_ = parsed.severe()
					number(listed, parsed.text)
				}
				all = append(all, text)
			}}
			for _, p := range pieces {
				_, _ = l.Write(p)
			}
			return all
		}
		var cut [][]byte
		for rest := data; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			cut = append(cut, rest[:min(piece, len(rest))])
		}
		whole, pieces := read([][]byte{data}), read(cut)
		if len(whole) != bytes.Count(data, []byte("\n")) || len(pieces) != len(whole) {
			t.Fatalf("%d lines at once, %d in pieces", len(whole), len(pieces))
		}
		for i := range whole {
			if whole[i] != pieces[i] {
				t.Errorf("line %d is %q at once, %q in pieces", i, whole[i], pieces[i])
			}
		}
	})
}
