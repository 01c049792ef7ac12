package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/cairn-storage/cairn"
)

// probe asks the server something to which it needs a word of rpc.mountd about the asker, and returns when it has answered,
// whatever the answer. It needs no rule that lets us in. Of a server that does not run nothing is asked: it serves nobody.
//
// The server may listen on some addresses only, so each that is ours is tried.
func (k kernel) probe(ctx context.Context, addresses []netip.Addr) error {
	if err := k.check(ctx); errors.Is(err, cairn.ErrUnavailable) {
		return nil
	} else if err != nil {
		return err
	}
	candidates := append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, addresses...)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		var failures []error
		for _, addr := range candidates {
			err := exchange(ctx, netip.AddrPortFrom(addr, nfsPort))
			if err == nil {
				return nil
			}
			failures = append(failures, err)
		}
		if wait(ctx, pause) != nil { // the server closes connections of those whom it cannot ask about yet
			return fmt.Errorf("the NFS server or rpc.mountd does not answer: %w: %w: %w", cairn.ErrTimeout, context.Cause(ctx), errors.Join(failures...))
		}
	}
}

const nfsPort = 2049

// exchange sends a COMPOUND of NFSv4 without operations and waits for any reply.
func exchange(ctx context.Context, to netip.AddrPort) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	defer conn.Close() // nothing is lost: the reply has come, or has not
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(emptyCompound()); err != nil {
		return err
	}
	var reply [12]byte // record mark, xid, message type
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return fmt.Errorf("%s: no reply: %w", to, err)
	}
	return nil
}

// emptyCompound is one record of ONC RPC (RFC 5531): a call of NFSv4's COMPOUND (RFC 7530) as user 0 of an unnamed machine.
func emptyCompound() []byte {
	call := []uint32{
		0x63616972, 0, 2, 100003, 4, 1, // xid, call, RPC version, NFS, version, COMPOUND
		1, 20, 0, 0, 0, 0, 0, // AUTH_SYS of 20 bytes: stamp, machine "", uid, gid, no other groups
		0, 0, // no verifier
		0, 0, 0, // tag "", minor version 0, no operations
	}
	message := binary.BigEndian.AppendUint32(nil, 1<<31|uint32(4*len(call))) // the last fragment
	for _, word := range call {
		message = binary.BigEndian.AppendUint32(message, word)
	}
	return message
}
