package compound

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/cairn-storage/cairn"
)

func TestParse(t *testing.T) {
	for location, want := range map[string]struct {
		address string
		path    []string
	}{
		"10.0.0.1:/srv/cairn/a":           {"10.0.0.1:2049", []string{"srv", "cairn", "a"}},
		"[fd00::1]:/srv/cairn/a":          {"[fd00::1]:2049", []string{"srv", "cairn", "a"}},
		"nfs://10.0.0.1:2050/srv/cairn/a": {"10.0.0.1:2050", []string{"srv", "cairn", "a"}},
		"nfs://[fd00::1]:2050/srv":        {"[fd00::1]:2050", []string{"srv"}},
		"10.0.0.1:/":                      {"10.0.0.1:2049", nil},
		"n1:/srv":                         {}, "": {}, "https://10.0.0.1/srv": {}, "nfs://n1:2050/srv": {}, "nfs://%zz": {},
	} {
		address, path, err := parse(location)
		if address != want.address || !slices.Equal(path, want.path) || (err == nil) != (want.address != "") {
			t.Errorf("%q: %q, %q, %v", location, address, path, err)
		}
	}
}

// scripted answers calls with results, each in fragments of three bytes.
func scripted(t *testing.T, results ...[]byte) *Conn {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	go func() {
		defer theirs.Close()
		for _, result := range results {
			var head [4]byte
			if _, err := io.ReadFull(theirs, head[:]); err != nil {
				return
			}
			call := make([]byte, binary.BigEndian.Uint32(head[:])&^last)
			if _, err := io.ReadFull(theirs, call); err != nil {
				return
			}
			reply := append(call[:4:4], result...) // its serial
			for len(reply) > 0 {
				n := min(3, len(reply))
				size := uint32(n)
				if n == len(reply) {
					size |= last
				}
				if _, err := theirs.Write(append(binary.BigEndian.AppendUint32(nil, size), reply[:n]...)); err != nil {
					return
				}
				reply = reply[n:]
			}
		}
	}()
	return &Conn{conn: ours}
}

func accepted() *Args { return new(Args).U32(1).U32(0).U32(0).U32(0).U32(0) }

func TestCall(t *testing.T) {
	for name, test := range map[string]struct {
		result []byte
		answer string
		status Status
		fails  bool
	}{
		"success":   {accepted().U32(0).Opaque("").U32(2).U32(24).U32(0).U32(9).U32(0).Raw([]byte("data")).data, "data", OK, false},
		"refused":   {accepted().U32(13).Opaque("").U32(1).U32(24).U32(13).data, "", 13, false},
		"cut":       {accepted().U32(0).Opaque("").U32(2).U32(24).data, "", 0, true},
		"nothing":   {accepted().data, "", 0, true},
		"denied":    {new(Args).U32(1).U32(1).U32(1).U32(1).data, "", 0, true},
		"not a RPC": {[]byte("HTTP"), "", 0, true},
	} {
		answer, status, err := scripted(t, test.result).Call(t.Context(), Op(24), Op(9))
		if string(answer) != test.answer || status != test.status || (err != nil) != test.fails {
			t.Errorf("%s: %q, %d, %v", name, answer, status, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := scripted(t).Call(ended, Op(24)); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestIsDirectory(t *testing.T) {
	for name, test := range map[string]struct {
		attributes []byte
		want       bool
	}{
		"a directory":    {new(Args).U32(1).U32(2).U32(4).U32(2).data, true},
		"two words":      {new(Args).U32(2).U32(2).U32(0).U32(4).U32(2).data, true},
		"a file":         {new(Args).U32(1).U32(2).U32(4).U32(1).data, false},
		"no attributes":  {new(Args).U32(0).U32(0).data, false},
		"nothing":        {nil, false},
		"cut":            {new(Args).U32(1).U32(2).U32(4).data, false},
		"too many words": {new(Args).U32(1<<32 - 1).U32(2).U32(4).U32(2).data, false},
	} {
		if got := isDirectory(test.attributes); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestReachNowhere(t *testing.T) {
	if err := Reach(t.Context(), "n1:/srv"); !errors.Is(err, cairn.ErrInvalid) {
		t.Errorf("a name: %v, want cairn.ErrInvalid", err)
	}
}
