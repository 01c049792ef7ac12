//go:build lab

// Package netlab makes several nodes out of one guest of the lab: network namespaces joined by a bridge, with partitions and
// bad links that are real.
//
// A node has a network, a host name, a process tree and its own /run and /var/lib/nfs, and so its own NFS server, its own
// rpcbind and its own NFS client identity. It shares the kernel, the disks, the rest of the file system and what is mounted
// there: ZFS pools are known in every node, and a file system that one node mounts is mounted for the test too, with its
// traffic still going through that node's network. The package does not know what runs on the nodes.
//
// It is for tests in the lab (root, Linux, one Net at a time), and its functions fail the test instead of returning errors.
package netlab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// setupTime bounds each command that makes or changes the network. The lab's processor is emulated.
const setupTime = time.Minute

// Net is a number of nodes on one bridge. Every node reaches every other until Cut says otherwise. The test itself is on no
// network but its own loopback.
type Net struct {
	Nodes []*Node
	t     testing.TB
}

// Node is one machine of a Net.
type Node struct {
	Name string     // the host name: n1, n2, …
	IPv4 netip.Addr // 10.77.0.1/24, 10.77.0.2/24, …
	IPv6 netip.Addr // fd77::1/64, fd77::2/64, …

	t      testing.TB
	anchor *tool.Process // holds the namespaces
	port   string        // of the bridge, where this node is plugged in
}

// New makes a network. It is gone, with every process on its nodes, when the test ends.
func New(t testing.TB, nodes int) *Net {
	t.Helper()
	n := &Net{t: t}
	host(t, "ip", "link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { host(t, "ip", "link", "delete", bridge) })
	host(t, "ip", "link", "set", bridge, "up")
	rules(t, fmt.Sprintf(`table bridge %s {
		set cut { type ifname . ifname; }
		chain forward { type filter hook forward priority 0; iifname . oifname @cut drop; }
	}`, bridge))
	t.Cleanup(func() { rules(t, "delete table bridge "+bridge) })
	for i := range nodes {
		n.Nodes = append(n.Nodes, newNode(t, i+1))
	}
	return n
}

const bridge = "lab0"

// Cut drops every frame from one node to another, and none in the other direction. The nodes are told nothing.
func (n *Net) Cut(from, to *Node) {
	n.t.Helper()
	rules(n.t, fmt.Sprintf("add element bridge %s cut { %s . %s }", bridge, from.port, to.port))
}

// Isolate cuts the given nodes off from all others, both ways. Among themselves they still talk.
func (n *Net) Isolate(nodes ...*Node) {
	n.t.Helper()
	inside := map[*Node]bool{}
	for _, node := range nodes {
		inside[node] = true
	}
	for _, node := range nodes {
		for _, other := range n.Nodes {
			if !inside[other] {
				n.Cut(node, other)
				n.Cut(other, node)
			}
		}
	}
}

// Heal takes back every Cut and Isolate.
func (n *Net) Heal() {
	n.t.Helper()
	rules(n.t, fmt.Sprintf("flush set bridge %s cut", bridge))
}

func newNode(t testing.TB, number int) *Node {
	t.Helper()
	node := &Node{
		Name: fmt.Sprintf("n%d", number),
		IPv4: netip.AddrFrom4([4]byte{10, 77, 0, byte(number)}),
		IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 15: byte(number)}),
		port: fmt.Sprintf("lab-n%d", number),
		t:    t,
	}
	node.hold()
	t.Cleanup(node.remove)
	pid := strconv.Itoa(node.anchor.Pid())
	host(t, "ip", "link", "add", node.port, "type", "veth", "peer", "name", "eth0", "netns", pid)
	host(t, "ip", "link", "set", node.port, "master", bridge, "up")
	node.Must("ip", "link", "set", "lo", "up")
	node.Must("ip", "address", "add", node.IPv4.String()+"/24", "dev", "eth0")
	node.Must("ip", "address", "add", node.IPv6.String()+"/64", "dev", "eth0", "nodad")
	node.Must("ip", "link", "set", "eth0", "up")
	return node
}

// hold makes the namespaces and the process that keeps them. A mount below / is seen everywhere and one below /proc, /run and
// /var/lib/nfs is not: the guest's init has made it so.
func (n *Node) hold() {
	n.t.Helper()
	const machine = `set -e
hostname "$1"
mount -t proc proc /proc
mount -t nfsd nfsd /proc/fs/nfsd
mount -t tmpfs run /run
mkdir /run/lock /run/rpc_pipefs
mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
mount -t tmpfs nfs /var/lib/nfs
mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/v4recovery /var/lib/nfs/nfsdcld
: >/var/lib/nfs/etab
: >/var/lib/nfs/rmtab
echo ready
exec sleep infinity`
	output := &firstLine{seen: make(chan struct{})}
	anchor, err := tool.Start(tool.Spec{
		Name: "unshare",
		Args: []string{
			"--net", "--uts", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child",
			"sh", "-c", machine, "sh", n.Name,
		},
		Stdout: output, Stderr: output,
		OwnGroup: true,
	})
	if err != nil {
		n.t.Fatalf("node %s: %v", n.Name, err)
	}
	n.anchor = anchor
	select {
	case <-output.seen:
	case <-anchor.Done():
	case <-time.After(setupTime):
	}
	if line := output.String(); line != "ready\n" {
		n.t.Errorf("node %s: namespaces: %s", n.Name, line)
		n.remove()
		n.t.FailNow()
	}
}

// remove ends every process of the node. The kernel's NFS threads are none and hold the network namespace, so they go first.
func (n *Node) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), setupTime)
	defer cancel()
	stop := tool.Cmd{Name: "sh", Args: []string{"-c", "[ ! -e /proc/fs/nfsd/threads ] || echo 0 >/proc/fs/nfsd/threads"}}
	if _, err := n.Run(ctx, stop); err != nil {
		n.t.Logf("node %s: NFS server: not stopped: %v", n.Name, err)
	}
	if err := n.anchor.Kill(); err != nil {
		n.t.Errorf("node %s: %v", n.Name, err)
	}
}

// Run implements tool.Runner: the tool runs on the node.
func (n *Node) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	c.Args = n.enter(c.Name, c.Args)
	c.Name = "nsenter"
	return tool.NewMachine().Run(ctx, c)
}

// Start starts a long-running process on the node. It ends with the node at the latest.
func (n *Node) Start(s tool.Spec) (*tool.Process, error) {
	s.Args = n.enter(s.Name, s.Args)
	s.Name = "nsenter"
	return tool.Start(s)
}

// Must runs a tool on the node, fails the test if the tool fails, and returns what it has printed.
func (n *Node) Must(name string, args ...string) string {
	n.t.Helper()
	return must(n.t, n, tool.Cmd{Name: name, Args: args})
}

// Command is the command line that runs a tool on the node, for a program that starts it itself.
func (n *Node) Command(name string, args ...string) []string {
	return append([]string{"nsenter"}, n.enter(name, args)...)
}

func (n *Node) enter(name string, args []string) []string {
	space := fmt.Sprintf("/proc/%d/ns/", n.anchor.Pid())
	return append([]string{
		"--net=" + space + "net", "--uts=" + space + "uts", "--mount=" + space + "mnt", "--pid=" + space + "pid_for_children",
		"--", name,
	}, args...)
}

// Link is what the node's cable does to what the node sends. The zero value is a good cable.
type Link struct {
	Delay, Jitter time.Duration
	Loss          float64 // share of the packets that are lost, 0 to 1
	Down          bool
}

// SetLink replaces the node's cable.
func (n *Node) SetLink(l Link) {
	n.t.Helper()
	n.Must("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "limit", "10000",
		"delay", microseconds(l.Delay), microseconds(l.Jitter), "loss", fmt.Sprintf("%.3f%%", l.Loss*100))
	state := "up"
	if l.Down {
		state = "down"
	}
	host(n.t, "ip", "link", "set", n.port, state)
}

func microseconds(d time.Duration) string { return fmt.Sprintf("%dus", d.Microseconds()) }

func host(t testing.TB, name string, args ...string) {
	t.Helper()
	must(t, tool.NewMachine(), tool.Cmd{Name: name, Args: args})
}

func rules(t testing.TB, text string) {
	t.Helper()
	must(t, tool.NewMachine(), tool.Cmd{Name: "nft", Args: []string{"-f", "-"}, Stdin: []byte(text)})
}

func must(t testing.TB, r tool.Runner, c tool.Cmd) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTime)
	defer cancel()
	result, err := r.Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(result.Stdout), "\n")
}

// firstLine is a writer that says when a line has come.
type firstLine struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen chan struct{}
}

// Write implements io.Writer.
func (f *firstLine) Write(data []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := bytes.IndexByte(f.text.Bytes(), '\n')
	f.text.Write(data)
	if before < 0 && bytes.IndexByte(f.text.Bytes(), '\n') >= 0 {
		close(f.seen)
	}
	return len(data), nil
}

func (f *firstLine) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}
