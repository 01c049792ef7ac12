// Package compound is as much of an NFSv4.0 client as it takes to ask a server one thing at a time: a connection, calls of
// COMPOUND (RFC 7530) as the superuser (AUTH_SYS), and Reach, which asks for a directory as a client that mounts it would.
//
// It knows no more operations than its callers bring along, keeps no state, and repeats nothing but what the server asks to.
package compound

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
)

// Status is what a server says of a COMPOUND: that of its last operation.
type Status uint32

// The statuses that are more than "no".
const (
	OK    Status = 0
	Delay Status = 10008 // ask again
)

// maxReply bounds what is read of an answer.
const maxReply = 1 << 20

// Conn is a connection to a server. One call at a time.
type Conn struct {
	conn   net.Conn
	serial uint32
}

// Dial connects to a server at host:port from a port that only a superuser can have, if this process can: many servers answer
// no other. The host is an IP address of this machine or of another one; in the first case clients come from it, too.
func Dial(ctx context.Context, address string) (*Conn, error) {
	const lowest, highest, tries = 665, 1023, 20 // as the kernel's client has it
	var err error
	for range tries {
		var conn net.Conn
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{Port: lowest + rand.IntN(highest-lowest+1)}}
		if conn, err = dialer.DialContext(ctx, "tcp", address); err == nil {
			return &Conn{conn: conn}, nil
		}
		if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
			if conn, err = new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
				return &Conn{conn: conn}, nil
			}
		}
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	return nil, err
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Call makes a COMPOUND of operations, of which all but the last answer with their status alone, and returns what the last one
// has answered. If a status is not OK, it is that of the operation that failed, which was the last to be carried out.
func (c *Conn) Call(ctx context.Context, ops ...*Args) (answer []byte, status Status, err error) {
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	c.serial++
	if _, err := c.conn.Write(c.request(ops)); err != nil {
		return nil, 0, errors.Join(err, ctx.Err())
	}
	reply, err := c.reply()
	if err != nil {
		return nil, 0, errors.Join(err, ctx.Err())
	}
	// The status of all, an empty tag, and how many have answered; then the operation and the status of each.
	const front, each = 3 * 4, 2 * 4
	if len(reply) < front {
		return nil, 0, fmt.Errorf("COMPOUND is answered with %d bytes", len(reply))
	}
	if status = Status(binary.BigEndian.Uint32(reply)); status != OK {
		return nil, status, nil
	}
	if len(reply) < front+each*len(ops) {
		return nil, 0, fmt.Errorf("COMPOUND of %d operations is answered with %d bytes", len(ops), len(reply))
	}
	return reply[front+each*len(ops):], OK, nil
}

const last = 1 << 31 // of the fragments that a message is cut into: we send one

func (c *Conn) request(ops []*Args) []byte {
	const call, rpcVersion, program, version, compound, authSys = 0, 2, 100003, 4, 1, 1
	superuser := new(Args).U32(0).Opaque("").U32(0).U32(0).U32(0)
	m := new(Args).U32(c.serial).U32(call).U32(rpcVersion).U32(program).U32(version).U32(compound)
	m.U32(authSys).Opaque(string(superuser.data)).U32(0).U32(0) // and no verifier
	m.Opaque("").U32(0).U32(uint32(len(ops)))
	for _, op := range ops {
		m.Raw(op.data)
	}
	return append(binary.BigEndian.AppendUint32(nil, last|uint32(len(m.data))), m.data...)
}

// reply reads one message, and returns the result in it.
func (c *Conn) reply() ([]byte, error) {
	var message []byte
	for more := true; more; {
		var head [4]byte
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			return nil, err
		}
		size := binary.BigEndian.Uint32(head[:])
		more, size = size&last == 0, size&^last
		if int(size)+len(message) > maxReply {
			return nil, fmt.Errorf("answer of more than %d bytes", maxReply)
		}
		fragment := make([]byte, size)
		if _, err := io.ReadFull(c.conn, fragment); err != nil {
			return nil, err
		}
		message = append(message, fragment...)
	}
	// The serial; that it is a reply, and accepted; an empty verifier; that the call succeeded.
	const reply, accepted, none, success = 1, 0, 0, 0
	want := new(Args).U32(c.serial).U32(reply).U32(accepted).U32(none).U32(0).U32(success).data
	if !bytes.HasPrefix(message, want) {
		return nil, fmt.Errorf("call is answered with %.48x", message)
	}
	return message[len(want):], nil
}

// Args are an operation with its arguments, in the encoding of RFC 4506.
type Args struct{ data []byte }

// Op begins with the number of an operation.
func Op(number uint32) *Args { return new(Args).U32(number) }

// Raw adds bytes as they are, in multiples of four.
func (a *Args) Raw(data []byte) *Args { a.data = append(a.data, data...); return a }

// U32 adds a number of 32 bits.
func (a *Args) U32(n uint32) *Args { a.data = binary.BigEndian.AppendUint32(a.data, n); return a }

// U64 adds a number of 64 bits.
func (a *Args) U64(n uint64) *Args { a.data = binary.BigEndian.AppendUint64(a.data, n); return a }

// Opaque adds a text or bytes with their length.
func (a *Args) Opaque(text string) *Args {
	return a.U32(uint32(len(text))).Raw([]byte(text)).Raw(make([]byte, (4-len(text)%4)%4))
}
