package cluster

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// goAway is a server that takes a connection, and at the first request says that it has processed none and goes.
func goAway(conn net.Conn) error {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		if _, ok := frame.(*http2.HeadersFrame); ok {
			return framer.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
	}
}

// A leader whose process ends before it has looked at a stream of heartbeats, and cannot be reached again: the stream ends, so that the node
// looks for a leader. gRPC would wait for a connection and open it anew, with a lock that Send needs.
func TestHeartbeatsEndWithTheirConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = goAway(conn)
		}
		served <- err
	}()
	dials := make(chan struct{}, 1)
	conn, err := grpc.NewClient("passthrough:///leader", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			select {
			case dials <- struct{}{}: // the first one
				return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
			default:
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := openHeartbeats(ctx, conn)
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v, want unavailable at once", err)
	}
	if err := <-served; err != nil {
		t.Errorf("server: %v", err)
	}
}
