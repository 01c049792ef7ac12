//go:build lab

package netlab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers/tool"
)

func TestLabPartition(t *testing.T) {
	net := netlab.New(t, 3)
	a, b, c := net.Nodes[0], net.Nodes[1], net.Nodes[2]
	for _, from := range net.Nodes {
		for _, to := range net.Nodes {
			wantReach(t, from, to, true)
		}
	}

	net.Cut(b, a)
	before := echoes(t, b)
	wantReach(t, a, b, false)
	if after := echoes(t, b); after == before {
		t.Error("b to a is cut, and nothing of a reaches b either: the cut is not one-way")
	}
	wantReach(t, a, c, true)
	wantReach(t, b, c, true)
	net.Heal()

	net.Cut(a, b)
	before = echoes(t, b)
	wantReach(t, a, b, false)
	if after := echoes(t, b); after != before {
		t.Errorf("a to b is cut, and %d requests of a reached b", after-before)
	}
	net.Heal()
	wantReach(t, a, b, true)

	net.Isolate(a, b)
	wantReach(t, a, b, true)
	wantReach(t, a, c, false)
	wantReach(t, c, b, false)
	net.Heal()
	wantReach(t, a, c, true)
	wantReach(t, c, b, true)
}

func TestLabLink(t *testing.T) {
	net := netlab.New(t, 2)
	a, b := net.Nodes[0], net.Nodes[1]
	const delay = 900 * time.Millisecond
	if rtt := roundTrip(t, a, b); rtt >= delay {
		t.Fatalf("a round trip takes %v on a good link: too long to see a delay of %v", rtt, delay)
	}
	a.SetLink(netlab.Link{Delay: delay})
	if rtt := roundTrip(t, a, b); rtt < delay {
		t.Errorf("a round trip takes %v with a delay of %v", rtt, delay)
	}
	a.SetLink(netlab.Link{Loss: 1})
	wantReach(t, b, a, false)
	a.SetLink(netlab.Link{Down: true})
	wantReach(t, b, a, false)
	a.SetLink(netlab.Link{})
	if rtt := roundTrip(t, a, b); rtt >= delay {
		t.Errorf("a round trip takes %v after the link was made good", rtt)
	}
}

func TestLabNodesAreMachines(t *testing.T) {
	net := netlab.New(t, 2)
	a, b := net.Nodes[0], net.Nodes[1]
	shared := t.TempDir()
	for _, node := range net.Nodes {
		if got := node.Must("hostname"); got != node.Name {
			t.Errorf("node %s calls itself %s", node.Name, got)
		}
		if ids := node.Must("pgrep", "-x", "sleep"); ids != "1" {
			t.Errorf("node %s sees the processes %q; it has one of its own, 1", node.Name, ids)
		}
	}

	a.Must("touch", "/run/mine", "/var/lib/nfs/mine")
	for _, private := range []string{"/run/mine", "/var/lib/nfs/mine"} {
		if _, err := b.Run(t.Context(), tool.Cmd{Name: "test", Args: []string{"-e", private}}); err == nil {
			t.Errorf("%s of node a is seen on node b", private)
		}
		if _, err := os.Lstat(private); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of node a: on the host: %v; want that it does not exist", private, err)
		}
	}

	a.Must("mount", "-t", "tmpfs", "shared", shared)
	a.Must("touch", filepath.Join(shared, "file"))
	b.Must("test", "-e", filepath.Join(shared, "file"))
	if _, err := os.Lstat(filepath.Join(shared, "file")); err != nil {
		t.Errorf("what node a mounts is not seen by the test: %v", err)
	}
	a.Must("umount", shared)

	a.Must("rpc.nfsd", "--no-nfs-version", "3", "--host", a.IPv4.String(), "1")
	if threads := a.Must("cat", "/proc/fs/nfsd/threads"); threads != "1" {
		t.Errorf("node a has %s NFS threads, want 1", threads)
	}
	if threads := b.Must("cat", "/proc/fs/nfsd/threads"); threads != "0" {
		t.Errorf("node b has %s NFS threads, and only node a's server was started", threads)
	}
}

func TestLabNodesEnd(t *testing.T) {
	var process *tool.Process
	t.Run("node", func(t *testing.T) {
		node := netlab.New(t, 1).Nodes[0]
		var err error
		if process, err = node.Start(tool.Spec{Name: "sleep", Args: []string{"infinity"}}); err != nil {
			t.Fatal(err)
		}
	})
	select {
	case <-process.Done():
	case <-time.After(time.Minute):
		t.Error("a process of a node lives on after the test")
	}
	left, err := tool.NewMachine().Run(t.Context(), tool.Cmd{Name: "ip", Args: []string{"-brief", "link"}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(left.Stdout), "lab") {
		t.Errorf("links left behind:\n%s", left.Stdout)
	}
}

func wantReach(t *testing.T, from, to *netlab.Node, want bool) {
	t.Helper()
	patience := 2 // seconds: what is cut does not answer later either
	if want {
		patience = 60
	}
	for _, address := range []string{to.IPv4.String(), to.IPv6.String()} {
		if _, err := ping(t, from, "-c", "1", "-w", strconv.Itoa(patience), address); (err == nil) != want {
			t.Errorf("%s reaches %s: %t, want %t (%v)", from.Name, address, err == nil, want, err)
		}
	}
}

// ping runs ping, which fails if there was no answer.
func ping(t *testing.T, from *netlab.Node, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := from.Run(ctx, tool.Cmd{Name: "ping", Args: append([]string{"-n"}, args...)})
	var exit *tool.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.Code == 1) {
		t.Fatal(err) // 1 is: no answer
	}
	return string(result.Stdout), err
}

var pingTime = regexp.MustCompile(`time=([0-9.]+) ms`)

// roundTrip is the shortest of some: the processor may be busy with something else for most of them.
func roundTrip(t *testing.T, from, to *netlab.Node) time.Duration {
	t.Helper()
	text, err := ping(t, from, "-c", "5", "-w", "60", "-W", "10", to.IPv4.String())
	if err != nil {
		t.Fatal(err)
	}
	shortest := time.Hour
	for _, match := range pingTime.FindAllStringSubmatch(text, -1) {
		rtt, err := time.ParseDuration(match[1] + "ms")
		if err != nil {
			t.Fatal(err)
		}
		shortest = min(shortest, rtt)
	}
	if shortest == time.Hour {
		t.Fatalf("ping: no time in %q", text)
	}
	return shortest
}

// echoes is the number of ICMP echo requests that the node's kernel has received.
func echoes(t *testing.T, node *netlab.Node) int {
	t.Helper()
	text := node.Must("nstat", "-az", "IcmpInEchos")
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "IcmpInEchos" {
			count, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(fmt.Errorf("nstat: %w", err))
			}
			return count
		}
	}
	t.Fatalf("nstat: no IcmpInEchos in %q", text)
	return 0
}
