package ganesha_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/drivers/nfs/compound"
)

// Operations and statuses of RFC 7530.
const (
	opLock, opOpen, opOpenConfirm, opSetClientID, opSetClientIDConfirm = 12, 18, 20, 35, 36

	statusGrace, statusNoGrace, statusReclaimBad compound.Status = 10013, 10033, 10034
)

// client is an NFSv4.0 client that opens a file and locks it: libnfs cannot reclaim what it had.
type client struct {
	ctx    context.Context
	t      *testing.T
	addr   string
	name   string
	path   []string // of the directory that is exported
	conn   *compound.Conn
	id     uint64
	serial uint32 // of the owner's requests
}

// connect introduces the client, as the same one again after a restart.
func (c *client) connect() {
	c.t.Helper()
	c.serial = 0
	for {
		conn, err := compound.Dial(c.ctx, c.addr)
		if err == nil {
			c.conn = conn
			break
		}
		if c.ctx.Err() != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Cleanup(func() { _ = c.conn.Close() })
	known := compound.Op(opSetClientID).Raw([]byte("boot0001")).Opaque(c.name)
	known.U32(0x40000000).Opaque("tcp").Opaque("127.0.0.1.0.0").U32(1)
	answer, status := c.call(known)
	if status != compound.OK {
		c.t.Fatalf("SETCLIENTID of %s: status %d", c.name, status)
	}
	c.id = binary.BigEndian.Uint64(answer)
	if _, status := c.call(compound.Op(opSetClientIDConfirm).Raw(answer[:16])); status != compound.OK {
		c.t.Fatalf("SETCLIENTID_CONFIRM of %s: status %d", c.name, status)
	}
}

// open opens a file, which the client had open before if it is reclaimed, and returns the state.
func (c *client) open(file string, reclaim bool) (state []byte, status compound.Status) {
	c.t.Helper()
	const both = 3
	open := compound.Op(opOpen).U32(c.serial).U32(both).U32(0).U64(c.id).Opaque(c.name).U32(0)
	path := c.path
	if reclaim {
		path = append(path[:len(path):len(path)], file)
		open.U32(1).U32(0) // CLAIM_PREVIOUS, of no delegation
	} else {
		open.U32(0).Opaque(file) // CLAIM_NULL
	}
	answer, status := c.call(append(compound.Walk(path...), open)...)
	if status == statusGrace || status == statusNoGrace || status == statusReclaimBad {
		c.serial++ // they count, and change nothing
	}
	if status != compound.OK {
		return nil, status
	}
	c.serial++
	state = answer[:16]
	const confirm = 2
	if flags := binary.BigEndian.Uint32(answer[16+20:]); flags&confirm != 0 {
		answer, status = c.call(append(compound.Walk(append(c.path[:len(c.path):len(c.path)], file)...), compound.Op(opOpenConfirm).Raw(state).U32(c.serial))...)
		if status != compound.OK {
			c.t.Fatalf("OPEN_CONFIRM of %s: status %d", c.name, status)
		}
		c.serial++
		state = answer[:16]
	}
	return state, compound.OK
}

// lock locks the whole of a file that is open, or does so again.
func (c *client) lock(file string, state []byte, reclaim bool) (status compound.Status) {
	c.t.Helper()
	const write = 2
	again := uint32(0)
	if reclaim {
		again = 1
	}
	lock := compound.Op(opLock).U32(write).U32(again).U64(0).U64(1<<64 - 1)
	lock.U32(1).U32(c.serial).Raw(state).U32(0).U64(c.id).Opaque("lock of " + c.name)
	_, status = c.call(append(compound.Walk(append(c.path[:len(c.path):len(c.path)], file)...), lock)...)
	c.serial++
	return status
}

// call makes a COMPOUND, and fails the test if there is no answer.
func (c *client) call(ops ...*compound.Args) (answer []byte, status compound.Status) {
	c.t.Helper()
	answer, status, err := c.conn.Call(c.ctx, ops...)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer, status
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
	if status != compound.OK {
		t.Fatalf("OPEN: status %d", status)
	}
	if status := known.lock("hello", state, false); status != compound.OK {
		t.Fatalf("LOCK: status %d", status)
	}

	killed := n.e.PID()
	n.kill()
	for n.e.PID() == killed { // until it certainly answers to nobody
		n.ok(n.ctx.Err())
	}
	known.connect()
	if state, status = known.open("hello", true); status != compound.OK {
		t.Fatalf("OPEN that reclaims, after a kill: status %d", status)
	}
	if status := known.lock("hello", state, true); status != compound.OK {
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
