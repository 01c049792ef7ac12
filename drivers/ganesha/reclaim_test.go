package ganesha_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Operations and statuses of RFC 7530.
const (
	opLock, opLookup, opOpen, opOpenConfirm, opPutRootFH = 12, 15, 18, 20, 24
	opSetClientID, opSetClientIDConfirm                  = 35, 36

	statusOK, statusGrace, statusNoGrace, statusReclaimBad = 0, 10013, 10033, 10034
)

// client is an NFSv4.0 client that opens a file and locks it: libnfs cannot reclaim what it had.
type client struct {
	ctx    context.Context
	t      *testing.T
	addr   string
	name   string
	path   []string // of the directory that is exported
	conn   net.Conn
	id     uint64
	serial uint32 // of the owner's requests
}

// connect introduces the client, as the same one again after a restart.
func (c *client) connect() {
	c.t.Helper()
	c.serial = 0
	for {
		conn, err := new(net.Dialer).DialContext(c.ctx, "tcp", c.addr)
		if err == nil {
			c.conn = conn
			break
		}
		if c.ctx.Err() != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Cleanup(func() { _ = c.conn.Close() })
	known := new(xdr).u32(opSetClientID).raw([]byte("boot0001")).opaque(c.name)
	known.u32(0x40000000).opaque("tcp").opaque("127.0.0.1.0.0").u32(1)
	answer, status := c.call(known)
	if status != statusOK {
		c.t.Fatalf("SETCLIENTID of %s: status %d", c.name, status)
	}
	c.id = binary.BigEndian.Uint64(answer)
	if _, status := c.call(new(xdr).u32(opSetClientIDConfirm).raw(answer[:16])); status != statusOK {
		c.t.Fatalf("SETCLIENTID_CONFIRM of %s: status %d", c.name, status)
	}
}

// open opens a file, which the client had open before if it is reclaimed, and returns the state.
func (c *client) open(file string, reclaim bool) (state []byte, status uint32) {
	c.t.Helper()
	const both = 3
	open := new(xdr).u32(opOpen).u32(c.serial).u32(both).u32(0).u64(c.id).opaque(c.name).u32(0)
	path := c.path
	if reclaim {
		path = append(path[:len(path):len(path)], file)
		open.u32(1).u32(0) // CLAIM_PREVIOUS, of no delegation
	} else {
		open.u32(0).opaque(file) // CLAIM_NULL
	}
	answer, status := c.call(append(c.walk(path), open)...)
	if status == statusGrace || status == statusNoGrace || status == statusReclaimBad {
		c.serial++ // they count, and change nothing
	}
	if status != statusOK {
		return nil, status
	}
	c.serial++
	state = answer[:16]
	const confirm = 2
	if flags := binary.BigEndian.Uint32(answer[16+20:]); flags&confirm != 0 {
		answer, status = c.call(append(c.walk(append(c.path[:len(c.path):len(c.path)], file)), new(xdr).u32(opOpenConfirm).raw(state).u32(c.serial))...)
		if status != statusOK {
			c.t.Fatalf("OPEN_CONFIRM of %s: status %d", c.name, status)
		}
		c.serial++
		state = answer[:16]
	}
	return state, statusOK
}

// lock locks the whole of a file that is open, or does so again.
func (c *client) lock(file string, state []byte, reclaim bool) (status uint32) {
	c.t.Helper()
	const write = 2
	again := uint32(0)
	if reclaim {
		again = 1
	}
	lock := new(xdr).u32(opLock).u32(write).u32(again).u64(0).u64(1<<64 - 1)
	lock.u32(1).u32(c.serial).raw(state).u32(0).u64(c.id).opaque("lock of " + c.name)
	_, status = c.call(append(c.walk(append(c.path[:len(c.path):len(c.path)], file)), lock)...)
	c.serial++
	return status
}

func (c *client) walk(path []string) []*xdr {
	ops := []*xdr{new(xdr).u32(opPutRootFH)}
	for _, name := range path {
		ops = append(ops, new(xdr).u32(opLookup).opaque(name))
	}
	return ops
}

// call makes a COMPOUND of operations, of which all but the last answer with their status alone, and returns what the last
// has answered, or the status of the one that failed.
func (c *client) call(ops ...*xdr) (answer []byte, status uint32) {
	c.t.Helper()
	const callType, rpcVersion, program, version, compound, authSys = 0, 2, 100003, 4, 1, 1
	who := new(xdr).u32(0).opaque("client").u32(0).u32(0).u32(0)
	request := new(xdr).u32(7).u32(callType).u32(rpcVersion).u32(program).u32(version).u32(compound)
	request.u32(authSys).opaque(who.String()).u32(0).u32(0) // and no verifier
	request.opaque("").u32(0).u32(uint32(len(ops)))
	for _, op := range ops {
		request.raw(op.Bytes())
	}
	const last = 1 << 31
	if _, err := c.conn.Write(append(binary.BigEndian.AppendUint32(nil, last|uint32(request.Len())), request.Bytes()...)); err != nil {
		c.t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		c.t.Fatal(err)
	}
	reply := make([]byte, binary.BigEndian.Uint32(head[:])&^last)
	if _, err := io.ReadFull(c.conn, reply); err != nil {
		c.t.Fatal(err)
	}
	// xid, reply, accepted, verifier, success; then the status of all, an empty tag, how many have answered.
	const front = 6*4 + 3*4
	if len(reply) < front || !bytes.Equal(reply[4:24], append(binary.BigEndian.AppendUint32(nil, 1), make([]byte, 16)...)) {
		c.t.Fatalf("RPC was answered with %x", reply)
	}
	status = binary.BigEndian.Uint32(reply[24:])
	if status != statusOK {
		return nil, status
	}
	return reply[front+8*len(ops):], statusOK
}

// xdr is what an operation is encoded in.
type xdr struct{ bytes.Buffer }

func (x *xdr) raw(data []byte) *xdr { x.Write(data); return x }
func (x *xdr) u32(n uint32) *xdr    { return x.raw(binary.BigEndian.AppendUint32(nil, n)) }
func (x *xdr) u64(n uint64) *xdr    { return x.raw(binary.BigEndian.AppendUint64(nil, n)) }

func (x *xdr) opaque(text string) *xdr {
	return x.u32(uint32(len(text))).raw([]byte(text)).raw(make([]byte, (4-len(text)%4)%4))
}

// TestNativeReclaim: who had a file open and locked gets both back from the Ganesha that is started after one that was killed,
// before anybody else can, because the records outlive it. Whoever is in no record is refused.
func TestNativeReclaim(t *testing.T) {
	n := newNative(t)
	n.ok(n.e.Close())
	n.config.Grace = 90 * time.Second // a busy machine takes long to come back
	n.open()
	n.export(n.spec)
	known := &client{ctx: n.ctx, t: t, addr: fmt.Sprintf("127.0.0.1:%d", n.config.Port), name: "known", path: []string{"srv", "cairn", string(shareID)}}
	stranger := &client{ctx: n.ctx, t: t, addr: known.addr, name: "stranger", path: known.path}
	known.connect()
	state, status := known.open("hello", false)
	for status == statusGrace && n.ctx.Err() == nil {
		state, status = known.open("hello", false)
	}
	if status != statusOK {
		t.Fatalf("OPEN: status %d", status)
	}
	if status := known.lock("hello", state, false); status != statusOK {
		t.Fatalf("LOCK: status %d", status)
	}

	killed := n.e.PID()
	n.kill()
	for n.e.PID() == killed { // until it certainly answers to nobody
		n.ok(n.ctx.Err())
	}
	known.connect()
	if state, status = known.open("hello", true); status != statusOK {
		t.Fatalf("OPEN that reclaims, after a kill: status %d", status)
	}
	if status := known.lock("hello", state, true); status != statusOK {
		t.Errorf("LOCK that reclaims, after a kill: status %d", status)
	}
	stranger.connect()
	if _, status := stranger.open("hello", false); status != statusGrace {
		t.Errorf("OPEN of a stranger during the grace period: status %d, want %d", status, statusGrace)
	}
	if _, status := stranger.open("hello", true); status != statusReclaimBad && status != statusNoGrace {
		t.Errorf("OPEN of a stranger that reclaims what it never had: status %d", status)
	}

	// Without the records nothing can be reclaimed.
	n.ok(n.e.Close())
	recovery := filepath.Join(n.config.StateDir, "recovery")
	if records, err := filepath.Glob(filepath.Join(recovery, "*", "*", "*")); err != nil || len(records) == 0 {
		t.Errorf("no record in %s: %v", recovery, err)
	}
	n.ok(os.RemoveAll(recovery))
	n.open()
	n.export(n.spec)
	known.connect()
	if _, status := known.open("hello", true); status != statusReclaimBad && status != statusNoGrace {
		t.Errorf("OPEN that reclaims without a record: status %d", status)
	}
}
