package nfs

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

const (
	walked    = 2 // operations that lead to the root of the share
	unstable  = 0
	statusBad = 5
)

// answer is what a scripted server says to one call; nil: it ends the connection instead.
type answer []byte

// said is the success of so many operations, the last of which answers with more than that.
func said(ops int, more encoder) answer {
	m := args().u32(0).opaque("").u32(uint32(ops))
	for range ops {
		m = m.u32(0).u32(0)
	}
	return answer(m.raw(more))
}

func refused(status uint32) answer {
	return answer(args().u32(status).opaque("").u32(0))
}

// encoder writes what decoder reads.
type encoder []byte

func args() encoder { return nil }

func (e encoder) raw(data []byte) encoder { return append(e, data...) }
func (e encoder) u32(n uint32) encoder    { return binary.BigEndian.AppendUint32(e, n) }
func (e encoder) u64(n uint64) encoder    { return binary.BigEndian.AppendUint64(e, n) }
func (e encoder) opaque(text string) encoder {
	return e.u32(uint32(len(text))).raw([]byte(text)).raw(make([]byte, (4-len(text)%4)%4))
}

// serve answers calls on any number of connections with the script, and returns a client of it and how many calls there were.
func serve(t *testing.T, script ...answer) (*Client, func() int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			for answerCall(conn, &script) {
				calls++
			}
			_ = conn.Close()
		}
	}()
	client := New(Config{Address: listener.Addr().String(), Path: "/share", Name: "tester", Timeout: 5 * time.Second})
	return client, func() int {
		client.Close()
		_ = listener.Close()
		<-ended
		return calls
	}
}

func answerCall(conn net.Conn, script *[]answer) bool {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return false
	}
	call := make([]byte, binary.BigEndian.Uint32(head[:])&^(1<<31))
	if _, err := io.ReadFull(conn, call); err != nil || len(*script) == 0 {
		return false
	}
	next := (*script)[0]
	*script = (*script)[1:]
	if next == nil {
		return false
	}
	reply := args().raw(call[:4]).u32(1).u32(0).u32(0).u32(0).u32(0).raw(next)
	_, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(reply))), reply...))
	return err == nil
}

// TestPut: a record is acknowledged when the server says of all of it that it is stable, and of nothing less. A server that asks for patience
// is asked again; what may have been carried out is not repeated.
func TestPut(t *testing.T) {
	hello := []answer{said(1, args().u64(7).u64(8)), said(1, args())}
	opened := said(walked+1, args().raw(make([]byte, stateBytes+20)).u32(0))
	confirm := said(walked+1, args().raw(make([]byte, stateBytes+20)).u32(confirmOpen))
	written := func(count, committed uint32) answer {
		return said(walked+2, args().u32(count).u32(committed).u64(0))
	}
	done := said(walked+2, args())
	for name, test := range map[string]struct {
		script []answer
		ok     bool
		calls  int
	}{
		"stable":                    {append(hello, opened, written(4, fileSync), done), true, 5},
		"stable, after a confirm":   {append(hello, confirm, said(walked+2, args().raw(make([]byte, stateBytes))), written(4, fileSync), done), true, 6},
		"in the server's memory":    {append(hello, opened, written(4, unstable), done), false, 4},
		"half of it":                {append(hello, opened, written(2, fileSync), done), false, 4},
		"refused":                   {append(hello, opened, refused(statusBad)), false, 4},
		"no answer":                 {append(hello, opened, nil), false, 3},
		"half an answer":            {append(hello, opened, said(walked+2, args().u32(4))), false, 4},
		"not closed":                {append(hello, opened, written(4, fileSync), refused(statusBad)), false, 5},
		"after the period of grace": {slices.Concat(hello, []answer{refused(uint32(statusGrace))}, hello, []answer{opened, written(4, fileSync), done}), true, 8},
	} {
		t.Run(name, func(t *testing.T) {
			client, calls := serve(t, slices.Clone(test.script)...)
			err := client.Put(t.Context(), "record", []byte("data"))
			if (err == nil) != test.ok {
				t.Errorf("%v, want success: %t", err, test.ok)
			}
			if n := calls(); n != test.calls {
				t.Errorf("%d calls were answered, want %d", n, test.calls)
			}
		})
	}
}

// TestDecoder: after what is cut off nothing is made up.
func TestDecoder(t *testing.T) {
	in := decoder{rest: args().u32(1).opaque("abc").u64(2)}
	if n, text, long := in.u32(), string(in.opaque()), in.u64(); n != 1 || text != "abc" || long != 2 || in.err != nil || len(in.rest) != 0 {
		t.Errorf("%d %q %d, %d bytes left: %v", n, text, long, len(in.rest), in.err)
	}
	for name, data := range map[string][]byte{"nothing": nil, "a long text": args().u32(1<<32 - 1).u32(0), "no padding": args().opaque("abc")[:7]} {
		in := decoder{rest: data}
		if in.opaque(); !errors.Is(in.err, errAnswer) {
			t.Errorf("%s: %v", name, in.err)
		}
		if n := in.u32(); n != 0 {
			t.Errorf("%s: %d is read behind the end", name, n)
		}
	}
}
