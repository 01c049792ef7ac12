package systemtest

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	wires "github.com/cairn-storage/cairn/chaos/network"
)

// within runs something in the network namespace of a server: sockets that it makes belong to that one.
func within(t *testing.T, server string, do func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		fd, err := unix.Open("/run/netns/"+server, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in the namespace of %s: %v", server, err)
	}
}

// TestLatency: what one server sends to another comes late, whole and in order, and no later than before once that has ended. The chaos
// harness relies on it.
func TestLatency(t *testing.T) {
	withNetwork(t, 2, func(t *testing.T, n *network) {
		if n.wires.NoLatency != nil {
			t.Skip(n.wires.NoLatency)
		}
		var listener net.Listener
		var conn net.Conn
		within(t, "n2", func() (err error) {
			listener, err = net.Listen("tcp", wires.Address(2)+":7000")
			return err
		})
		defer listener.Close()
		go func() {
			other, err := listener.Accept()
			if err != nil {
				return
			}
			defer other.Close()
			_, _ = io.Copy(other, other)
		}()
		within(t, "n1", func() (err error) {
			conn, err = net.DialTimeout("tcp", wires.Address(2)+":7000", 30*time.Second)
			return err
		})
		defer conn.Close()
		n.check(conn.SetDeadline(time.Now().Add(2 * time.Minute)))
		const late = 100 * time.Millisecond
		n.check(n.wires.Delay(t.Context(), wires.Address(1), wires.Address(2), late))
		if took := n.echo(conn, 1<<20); took < late {
			t.Errorf("a megabyte and its echo took %s one way of which is %s late", took, late)
		}
		n.check(n.wires.Delay(t.Context(), wires.Address(2), wires.Address(1), late))
		if took := n.echo(conn, 1); took < 2*late {
			t.Errorf("a byte and its echo took %s, both ways of which are %s late", took, late)
		}
		for _, way := range [][2]string{{wires.Address(1), wires.Address(2)}, {wires.Address(2), wires.Address(1)}} {
			n.check(n.wires.Delay(t.Context(), way[0], way[1], 0))
		}
		for tries := 1; n.echo(conn, 1) >= late; tries++ {
			if tries == 100 {
				t.Fatal("what one server sends to another is late still")
			}
		}
	})
}

// echo sends numbered bytes and expects them back, and returns how long that took.
func (n *network) echo(conn net.Conn, size int) time.Duration {
	n.t.Helper()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i ^ i>>8)
	}
	began := time.Now()
	go func() { _, _ = conn.Write(data) }() // what is not sent does not come back
	back := make([]byte, size)
	if _, err := io.ReadFull(conn, back); err != nil {
		n.t.Fatal(err)
	}
	if string(back) != string(data) {
		n.t.Fatalf("%d bytes came back as others", size)
	}
	return time.Since(began)
}
