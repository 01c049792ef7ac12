// Package nfs is what a chaos run needs to have shares over NFS on a machine whose kernel has no NFS: a small client of NFSv4.0 in this
// process, which knows of a write whether it is stable, and the list of mounts by which a Ganesha finds the subvolumes of btrfs.
//
// The tools of libnfs would not do as a client: nfs-cp asks for a COMMIT when it closes the file, does not look what comes of it, and ends
// with 0 (utils/nfs-cp.c, free_file_context, in 4.0.0 and since).
package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cairn-storage/cairn/drivers/nfs/compound"
)

// Operations, statuses and arguments of RFC 7530.
const (
	opClose, opOpen, opOpenConfirm, opRead, opReaddir, opSetClientID, opSetClientIDConfirm, opWrite = 4, 18, 20, 25, 26, 35, 36, 38

	statusGrace compound.Status = 10013

	accessWrite   = 2
	denyNothing   = 0
	create        = 1
	unchecked     = 0 // create the file, or take the one that is there
	claimNull     = 0
	confirmOpen   = 2
	modeBit       = 1 << (33 - 32) // of the second word of attributes
	fileSync      = 2              // data and metadata are stable before the answer
	stateBytes    = 16
	verifierBytes = 8
)

const (
	chunk = 64 << 10
	pause = 100 * time.Millisecond // before a server that has asked for patience is asked again
)

// Config says what to reach, and as whom.
type Config struct {
	Address string        // host:port of the server
	Path    string        // of the share
	Name    string        // of the client, which is nobody else's
	Timeout time.Duration // of each call; what nobody answers would be waited for without end
}

// Client reads and writes the files in a share's root. Its connection is kept until something goes wrong. One call at a time.
type Client struct {
	config Config
	path   []string
	conn   *compound.Conn // nil: the next call connects
	id     []byte         // that the server has given this client
	boots  uint64         // how often it has connected: as a machine that was started again, which holds nothing
	serial uint32         // of what it has opened and closed since
}

// New makes a client; nothing is sent yet.
func New(cfg Config) *Client {
	return &Client{config: cfg, path: strings.Split(strings.Trim(cfg.Path, "/"), "/")}
}

// Close ends the connection.
func (c *Client) Close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is under way
		c.conn = nil
	}
}

// Put writes a whole file, and returns nil if the server says that all of it is on disk (FILE_SYNC). While the server is in its period of
// grace it waits. What broke off is not repeated: it may have been carried out.
func (c *Client) Put(ctx context.Context, name string, content []byte) error {
	return c.do(ctx, "write of "+name, func(ctx context.Context) error {
		state, err := c.open(ctx, name)
		if err != nil {
			return err
		}
		for at := 0; at < len(content); at += chunk {
			if err := c.write(ctx, name, state, at, content[at:min(at+chunk, len(content))]); err != nil {
				return err
			}
		}
		_, err = c.call(ctx, c.at(name, compound.Op(opClose).U32(c.serial).Raw(state)))
		c.serial++
		return err
	})
}

func (c *Client) write(ctx context.Context, name string, state []byte, at int, data []byte) error {
	answer, err := c.call(ctx, c.at(name, compound.Op(opWrite).Raw(state).U64(uint64(at)).U32(fileSync).Opaque(string(data))))
	if err != nil {
		return err
	}
	in := decoder{answer, nil}
	if count, committed := in.u32(), in.u32(); in.err != nil || int(count) != len(data) || committed != fileSync {
		return fmt.Errorf("%d of %d bytes are written, committed: %d: %w", count, len(data), committed, errors.Join(in.err, errAnswer))
	}
	return nil
}

// open makes a file and opens it.
func (c *Client) open(ctx context.Context, name string) (state []byte, err error) {
	open := compound.Op(opOpen).U32(c.serial).U32(accessWrite).U32(denyNothing).Raw(c.id).Opaque(c.config.Name)
	open.U32(create).U32(unchecked).U32(2).U32(0).U32(modeBit).U32(4).U32(0o644) // with a mode and no other attribute
	open.U32(claimNull).Opaque(name)
	answer, err := c.call(ctx, append(compound.Walk(c.path...), open))
	c.serial++
	if err != nil {
		return nil, err
	}
	in := decoder{answer, nil}
	state = in.bytes(stateBytes)
	in.bytes(4 + 8 + 8) // what has become of the directory
	if in.u32()&confirmOpen == 0 || in.err != nil {
		return state, in.err
	}
	answer, err = c.call(ctx, c.at(name, compound.Op(opOpenConfirm).Raw(state).U32(c.serial)))
	c.serial++
	in = decoder{answer, err}
	return in.bytes(stateBytes), in.err
}

// Get reads a whole file.
func (c *Client) Get(ctx context.Context, name string) (content []byte, err error) {
	err = c.do(ctx, "read of "+name, func(ctx context.Context) error {
		content = nil
		for {
			answer, err := c.call(ctx, c.at(name, compound.Op(opRead).Raw(make([]byte, stateBytes)).U64(uint64(len(content))).U32(chunk)))
			in := decoder{answer, err}
			end := in.u32() != 0
			data := in.opaque()
			if in.err != nil {
				return in.err
			}
			if content = append(content, data...); end || len(data) == 0 {
				return nil
			}
		}
	})
	return content, err
}

// List returns the names of everything in the share's root.
func (c *Client) List(ctx context.Context) (names []string, err error) {
	err = c.do(ctx, "list", func(ctx context.Context) error {
		names = nil
		cookie, verifier := uint64(0), make([]byte, verifierBytes)
		for {
			list := compound.Op(opReaddir).U64(cookie).Raw(verifier).U32(chunk).U32(chunk).U32(0) // and no attributes
			answer, err := c.call(ctx, append(compound.Walk(c.path...), list))
			in := decoder{answer, err}
			verifier = in.bytes(verifierBytes)
			for in.u32() != 0 {
				cookie = in.u64()
				names = append(names, string(in.opaque()))
				in.bytes(4 * int(in.u32()))
				in.opaque()
			}
			if end := in.u32() != 0; in.err != nil || end {
				return in.err
			}
		}
	})
	return names, err
}

// at are an operation on a file, and those that lead there.
func (c *Client) at(name string, op *compound.Args) []*compound.Args {
	return append(compound.Walk(append(c.path[:len(c.path):len(c.path)], name)...), op)
}

// errWait is the answer of a server that has done nothing and wants to be asked again.
var errWait = errors.New("the server asks for patience")

// do connects if need be and does something, again for as long as the server asks for patience. After any failure the connection is given up, and
// with it what the server holds for this client.
func (c *Client) do(ctx context.Context, what string, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	for {
		err := c.connect(ctx)
		if err == nil {
			err = do(ctx)
		}
		if err == nil {
			return nil
		}
		c.Close()
		if !errors.Is(err, errWait) || !wait(ctx) {
			return fmt.Errorf("nfs: %s at %s: %w", what, c.config.Address, err)
		}
	}
}

// connect introduces the client to the server, as one that was started anew.
func (c *Client) connect(ctx context.Context) (err error) {
	if c.conn != nil {
		return nil
	}
	if c.conn, err = compound.Dial(ctx, c.config.Address); err != nil {
		return err
	}
	c.boots, c.serial = c.boots+1, 0
	known := compound.Op(opSetClientID).U64(c.boots).Opaque(c.config.Name)
	known.U32(0x40000000).Opaque("tcp").Opaque("0.0.0.0.0.0").U32(1) // nowhere to be called back
	answer, err := c.call(ctx, []*compound.Args{known})
	in := decoder{answer, err}
	c.id = in.bytes(8)
	confirm := in.bytes(verifierBytes)
	if in.err != nil {
		return in.err
	}
	_, err = c.call(ctx, []*compound.Args{compound.Op(opSetClientIDConfirm).Raw(c.id).Raw(confirm)})
	return err
}

func (c *Client) call(ctx context.Context, ops []*compound.Args) ([]byte, error) {
	answer, status, err := c.conn.Call(ctx, ops...)
	switch {
	case err != nil:
		return nil, err
	case status == compound.Delay || status == statusGrace:
		return nil, fmt.Errorf("NFSv4 status %d: %w", status, errWait)
	case status != compound.OK:
		return nil, fmt.Errorf("NFSv4 status %d: %w", status, errAnswer)
	}
	return answer, nil
}

func wait(ctx context.Context) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

var errAnswer = errors.New("the server's answer is no success")

// decoder takes an answer apart (RFC 4506). After the first error it returns nothing.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) bytes(n int) []byte {
	if d.err == nil && (n < 0 || n > len(d.rest)) {
		d.err = fmt.Errorf("answer is cut off: %d bytes of %d: %w", len(d.rest), n, errAnswer)
	}
	if d.err != nil {
		return nil
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) u32() uint32 {
	if data := d.bytes(4); data != nil {
		return binary.BigEndian.Uint32(data)
	}
	return 0
}

func (d *decoder) u64() uint64 { return uint64(d.u32())<<32 | uint64(d.u32()) }

func (d *decoder) opaque() []byte {
	size := int(d.u32())
	data := d.bytes(size)
	d.bytes((4 - size%4) % 4)
	return data
}
