package compound

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
)

const (
	opGetAttr, opLookup, opPutRootFH = 9, 15, 24

	attrType      = 1 // the first word of a bitmap that asks for the type alone is 1<<attrType
	typeDirectory = 2

	defaultPort = "2049"
	pause       = 50 * time.Millisecond // before a server that has asked for it is asked again
)

// Walk are the operations that lead from the server's root to a path.
func Walk(path ...string) []*Args {
	ops := []*Args{Op(opPutRootFH)}
	for _, name := range path {
		ops = append(ops, Op(opLookup).Opaque(name))
	}
	return ops
}

// Reach asks for the directory at a location, host:/path or nfs://host:port/path with the IP address of a host, and returns nil
// if the server lets this machine get there. It needs no right to read it. Errors: cairn.ErrInvalid for another location,
// cairn.ErrUnavailable if there is no answer or another one.
func Reach(ctx context.Context, location string) error {
	address, path, err := parse(location)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", location, cairn.ErrInvalid, err)
	}
	conn, err := Dial(ctx, address)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", location, cairn.ErrUnavailable, err)
	}
	defer conn.Close()
	for {
		answer, status, err := conn.Call(ctx, append(Walk(path...), Op(opGetAttr).U32(1).U32(1<<attrType))...)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w: %w", location, cairn.ErrUnavailable, err)
		case status == Delay:
			if err := wait(ctx); err != nil {
				return fmt.Errorf("%s: the server asks for patience: %w: %w", location, cairn.ErrUnavailable, err)
			}
		case status != OK:
			return fmt.Errorf("%s: is answered with NFSv4 status %d: %w", location, status, cairn.ErrUnavailable)
		case !isDirectory(answer):
			return fmt.Errorf("%s: is no directory (attributes %x): %w", location, answer, cairn.ErrUnavailable)
		default:
			return nil
		}
	}
}

func wait(ctx context.Context) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isDirectory reads the attributes: a bitmap, and a list of bytes that is the type alone.
func isDirectory(attributes []byte) bool {
	if len(attributes) < 4 {
		return false
	}
	words := binary.BigEndian.Uint32(attributes)
	rest := attributes[4:]
	if words == 0 || uint64(len(rest)) < 4*uint64(words)+8 {
		return false
	}
	rest = rest[4*words+4:]
	return binary.BigEndian.Uint32(rest) == typeDirectory
}

// parse takes a location apart.
func parse(location string) (address string, path []string, err error) {
	host, port, dir := "", defaultPort, ""
	if strings.HasPrefix(location, "nfs://") {
		u, err := url.Parse(location)
		if err != nil {
			return "", nil, err
		}
		host, dir = u.Hostname(), u.Path
		if u.Port() != "" {
			port = u.Port()
		}
	} else {
		host, dir, _ = strings.Cut(location, ":/")
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if net.ParseIP(host) == nil {
		return "", nil, fmt.Errorf("%q is no IP address", host)
	}
	for name := range strings.SplitSeq(dir, "/") {
		if name != "" {
			path = append(path, name)
		}
	}
	return net.JoinHostPort(host, port), path, nil
}
