package fence

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/lease"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// The tests in this file use the real tools on the real kernel, in network namespaces of their own: `make test-root`.

const (
	inNamespace = "CAIRN_FENCE_NAMESPACE" // names the test that this process was started for
	keeperChild = "CAIRN_FENCE_KEEPER"    // this process keeps a gate
	patience    = 60 * time.Second
)

// alone runs body in a process with a network namespace of its own, in which eth0, 10.0.0.1/24, leads to another namespace.
func alone(t *testing.T, body func(t *testing.T, n *network)) {
	t.Helper()
	if os.Getenv(inNamespace) == t.Name() {
		body(t, newNetwork(t))
		return
	}
	if os.Getenv("CAIRN_TEST_ROOT") == "" {
		t.Skip("changes the packet filter of a network namespace: run make test-root, as root")
	}
	if os.Geteuid() != 0 {
		t.Skip("changes the packet filter of a network namespace: needs root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), inNamespace+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skipf("%s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("in a network namespace of its own:\n%s", out)
}

// network is the node's namespace, which is that of this process, and a client's.
type network struct {
	t      *testing.T
	client int // a file of the client's namespace
	gate   *Gate
}

func newNetwork(t *testing.T) *network {
	peer, err := tool.Start(tool.Spec{Name: "unshare", Args: []string{"--net", "sh", "-c", "echo ready; exec sleep infinity"}, Stdout: &readyWriter{}, OwnGroup: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Kill() })
	n := &network{t: t, gate: &Gate{Runner: tool.NewMachine(), Table: "cairn_nfs", Port: 2049}}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/ns/net", peer.Pid())
	n.await("the client's namespace", func() bool {
		theirs, err := os.Readlink(path)
		return err == nil && theirs != own
	})
	if n.client, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	n.must("ip", "link", "set", "lo", "up")
	n.must("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(peer.Pid()))
	n.must("ip", "address", "add", "10.0.0.1/24", "dev", "eth0")
	n.must("ip", "address", "add", "fd00::1/64", "dev", "eth0", "nodad")
	n.must("ip", "link", "set", "eth0", "up")
	for _, args := range [][]string{
		{"link", "set", "lo", "up"}, {"address", "add", "10.0.0.2/24", "dev", "eth0"}, {"address", "add", "fd00::2/64", "dev", "eth0", "nodad"}, {"link", "set", "eth0", "up"},
	} {
		n.there("ip", args...)
	}
	return n
}

type readyWriter struct{}

func (*readyWriter) Write(data []byte) (int, error) { return len(data), nil }

func (n *network) must(name string, args ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	result, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: name, Args: args})
	if err != nil {
		n.t.Fatal(err)
	}
	return string(result.Stdout)
}

// there runs a tool in the client's namespace.
func (n *network) there(name string, args ...string) string {
	n.t.Helper()
	return n.must("nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), n.client), name}, args...)...)
}

func (n *network) await(what string, is func() bool) {
	n.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			n.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// dial connects from the client's namespace.
func (n *network) dial(address string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	done := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is in the other namespace, and ends with this goroutine
		if err := unix.Setns(n.client, unix.CLONE_NEWNET); err != nil {
			done <- answer{nil, err}
			return
		}
		conn, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		done <- answer{conn, err}
	}()
	a := <-done
	return a.conn, a.err
}

// echo answers every line that a client sends, on all addresses.
func (n *network) echo() {
	listener, err := net.Listen("tcp", ":2049")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
}

// ask makes one exchange with the server from the client's namespace, and says when it began.
func (n *network) ask(address string) (began time.Duration, ok bool) {
	began = lease.Boottime()
	conn, err := n.dial(address)
	if err != nil {
		return began, false
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return began, false
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return began, false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return began, err == nil && line == "hello\n"
}

func (n *network) awaitReach(address string, want bool) {
	n.t.Helper()
	n.await(fmt.Sprintf("%s is reached: %t", address, want), func() bool { _, ok := n.ask(address); return ok == want })
}

var servers = []string{"10.0.0.1:2049", "[fd00::1]:2049"}

func TestRootGate(t *testing.T) {
	alone(t, func(t *testing.T, n *network) {
		n.echo()
		n.must("nft", "add", "table", "inet", "others")
		n.must("nft", "add", "chain", "inet", "others", "in", "{ type filter hook input priority 0; policy accept; }")
		before := n.must("nft", "list", "ruleset")
		g := n.gate
		if err := g.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := n.must("nft", "list", "ruleset"); after != before {
			t.Fatalf("Check has changed the packet filter:\n%s", after)
		}
		for _, server := range servers {
			n.awaitReach(server, true)
		}
		if err := g.Make(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		for _, server := range servers {
			n.awaitReach(server, false)
		}
		for _, local := range []string{"127.0.0.1:2049", "[::1]:2049"} { // what the exporter asks for itself
			conn, err := net.DialTimeout("tcp", local, patience)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		if conn, err := net.DialTimeout("tcp", "10.0.0.1:2049", 300*time.Millisecond); err == nil {
			_ = conn.Close()
			t.Error("a client on the node itself passes a closed gate")
		}
		for range 2 {
			if _, err := g.Open(t.Context(), func() time.Duration { return time.Hour }, func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
			for _, server := range servers {
				n.awaitReach(server, true)
			}
			if err := g.Shut(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, server := range servers {
				n.awaitReach(server, false)
			}
		}
		if whole, err := g.Whole(t.Context()); err != nil || !whole {
			t.Errorf("whole %t, %v", whole, err)
		}
		n.must("nft", "flush", "chain", "inet", "cairn_nfs", "refused")
		if whole, err := g.Whole(t.Context()); err != nil || whole {
			t.Errorf("a chain was flushed: whole %t, %v", whole, err)
		}
		for range 2 {
			if err := g.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if after := n.must("nft", "list", "ruleset"); after != before {
			t.Errorf("others' rules were\n%s\nand are\n%s", before, after)
		}
	})
}

// A ticket that is over opens nothing, however the command was delayed; nor does a renewal of what has closed.
func TestRootLateCommand(t *testing.T) {
	alone(t, func(t *testing.T, n *network) {
		g := n.gate
		if err := g.Make(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		stopped := func(context.Context) error {
			n.await("the end of the ticket", func() bool {
				return !strings.Contains(n.must("nft", "list", "set", "inet", "cairn_nfs", "ticket"), "elements")
			})
			return nil
		}
		isOpen := func() bool {
			open, err := g.IsOpen(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return open
		}
		if _, err := g.Open(t.Context(), func() time.Duration { return 2 * time.Second }, stopped); !errors.Is(err, errLost) || isOpen() {
			t.Errorf("late: %v, open %t", err, isOpen())
		}
		if _, err := g.Renew(t.Context(), func() time.Duration { return time.Hour }); !errors.Is(err, errLost) || isOpen() {
			t.Errorf("renewed although closed: %v, open %t", err, isOpen())
		}
		nothing := func(context.Context) error { return nil }
		n.await("open", func() bool {
			_, err := g.Open(t.Context(), func() time.Duration { return 8 * time.Second }, nothing)
			return err == nil
		})
		n.await("closed by itself", func() bool { return !isOpen() })
		if _, err := g.Renew(t.Context(), func() time.Duration { return time.Hour }); !errors.Is(err, errLost) {
			t.Errorf("renewed after it had closed: %v", err)
		}
	})
}

// An answer that the server gives while the gate is closed is not sent when it opens: the connection is reset.
func TestRootLateAnswer(t *testing.T) {
	alone(t, func(t *testing.T, n *network) {
		listener, err := net.Listen("tcp", "10.0.0.1:2049")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		client, err := n.dial("10.0.0.1:2049")
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if err := n.gate.Make(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintln(server, "done"); err != nil {
			t.Fatal(err)
		}
		if err := server.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server's connection: %v, want that it is reset", err)
		}
		if err := n.gate.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintln(client, "well?")
		if got, err := io.ReadAll(client); len(got) > 0 {
			t.Errorf("the client got %q, %v", got, err)
		}
	})
}

// A process that keeps the gate is stopped, and killed: from TTL after that on nobody is let through.
func TestRootNobodyRenews(t *testing.T) {
	alone(t, func(t *testing.T, n *network) {
		n.echo()
		child := n.keeper()
		for _, server := range append(servers, "10.0.0.9:2049") {
			n.awaitReach(server, true)
		}
		for _, end := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			stopped := lease.Boottime()
			if err := syscall.Kill(child.Pid(), end); err != nil {
				t.Fatal(err)
			}
			last := time.Duration(0)
			n.await("closed", func() bool {
				began, ok := n.ask(servers[0])
				if ok {
					last = began - stopped
				}
				return !ok && began-stopped > 2*ttl
			})
			t.Logf("%v: the last exchange that was answered began %v later; the lease has %v", end, last, ttl)
			if last > ttl {
				t.Errorf("%v: an exchange that began %v later was answered", end, last)
			}
			n.await("no address", func() bool { return !strings.Contains(n.must("ip", "-j", "address", "show"), "10.0.0.9") })
			if end == syscall.SIGSTOP {
				if err := syscall.Kill(child.Pid(), syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			} else {
				child = n.keeper()
			}
			for _, server := range append(servers, "10.0.0.9:2049") {
				n.awaitReach(server, true)
			}
		}
	})
}

// An address that arrives is made known: who remembered it elsewhere finds it here.
func TestRootAnnounce(t *testing.T) {
	alone(t, func(t *testing.T, n *network) {
		a := &Addresses{Runner: tool.NewMachine(), Announce: Announce, Logger: slog.New(slog.DiscardHandler)}
		card, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		yes := func() bool { return true }
		for _, address := range []string{"10.0.0.9/24", "fd00::9/64"} {
			prefix := netip.MustParsePrefix(address)
			n.await("the client knows where "+address+" is", func() bool {
				if !strings.Contains(n.there("ip", "neighbour", "show", prefix.Addr().String()), "lladdr") { // a link that comes up forgets
					n.there("ip", "neighbour", "replace", prefix.Addr().String(), "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "stale")
				}
				a.held = nil // it arrives anew: announcements are bounded, and the link may still be coming up
				if err := a.Hold(t.Context(), prefix, time.Minute, yes); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
					t.Fatal(err)
				}
				return strings.Contains(n.there("ip", "neighbour", "show", prefix.Addr().String()), card.HardwareAddr.String())
			})
			for range 2 {
				if err := a.Drop(t.Context(), prefix); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(n.must("ip", "-j", "address", "show"), prefix.Addr().String()) {
				t.Errorf("%s is still there", address)
			}
		}
		mine := netip.MustParsePrefix("10.0.0.1/24")
		if err := a.Hold(t.Context(), mine, time.Minute, yes); !errors.Is(err, cairn.ErrExists) {
			t.Errorf("an address that somebody has configured: %v, want cairn.ErrExists", err)
		}
		if err := a.Drop(t.Context(), mine); err != nil || !strings.Contains(n.must("ip", "-j", "address", "show"), "10.0.0.1") {
			t.Errorf("an address that somebody has configured was taken away: %v", err)
		}
		if err := a.Hold(t.Context(), netip.MustParsePrefix("10.9.0.9/24"), time.Minute, yes); !errors.Is(err, cairn.ErrPrecondition) {
			t.Errorf("no interface: %v, want cairn.ErrPrecondition", err)
		}
	})
}

// TestRootRecord holds the recorded transcript to the tools, and writes it anew with CAIRN_RECORD set.
func TestRootRecord(t *testing.T) {
	alone(t, func(t *testing.T, n *network) {
		version := strings.TrimSpace(n.must("nft", "--version")) + ", " + strings.TrimSpace(n.must("ip", "-V"))
		recorder := &transcript.Recorder{Tools: tool.NewMachine(), Names: volatile(), Header: []string{version}}
		useTools(t, recorder)
		recorded, err := recorder.Transcript()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "tools.txt")
		if os.Getenv("CAIRN_RECORD") != "" {
			if err := os.WriteFile(path, []byte(recorded.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		if diff := transcript.Diff(read(t), recorded); diff != "" {
			t.Logf("the tools of this machine answer otherwise (CAIRN_RECORD=1 writes the transcript anew):\n%s", diff)
		}
	})
}
