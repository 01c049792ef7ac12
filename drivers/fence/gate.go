package fence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Gate is a table of the kernel's packet filter, ours alone, that decides about the traffic of one port of this machine. While
// the port is in its set the table lets everything pass; else it drops what clients send and resets connections on which the
// server answers, so that an answer that was late does not come later still. The element in the set has a timeout: it goes
// unless it is renewed, whatever has become of who renews it.
//
// What local programs ask over 127.0.0.1 and ::1 passes always: the exporter asks the server for its own purposes. The table
// accepts for nobody: what other tables drop stays dropped.
//
// It is safe for concurrent use. The kernel counts timeouts on a clock that cannot be set, and that stands still in suspend.
type Gate struct {
	Runner tool.Runner
	Table  string // of family inet
	Port   uint16 // TCP and UDP, of the NFS server
	// Ports is the file that says what the server listens on, KernelPorts; "" if it listens on Port alone, as it was told to.
	Ports string

	mu     sync.Mutex
	ticket uint16
	shape  string // of the table when it was made
}

// errLost: the gate is not as the caller thought, closed for example. Nothing has been changed.
var errLost = errors.New("the gate has closed")

// safety is taken off every timeout, for the resolution of the kernel's clock.
const safety = 20 * time.Millisecond

// Check returns nil if this process can make the gate here. It changes nothing. cairn.ErrNotSupported if nft is not installed
// or the server listens where the gate is not; without the right to change the packet filter it is what nft says.
func (g *Gate) Check(ctx context.Context) error {
	if err := g.CheckPorts(); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be started later, and is looked at again
		return err
	}
	_, err := g.nft(ctx, g.script(true), "-c")
	return err
}

// Make puts the table there, whole and in one step, in the place of any that is there. open lets everything pass for good,
// which is the same as no table; else it is closed.
func (g *Gate) Make(ctx context.Context, open bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.nft(ctx, g.script(open)); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	shape, _, err := g.list(ctx)
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	g.shape = shape
	return nil
}

func (g *Gate) script(open bool) string {
	elements := ""
	if open {
		elements = fmt.Sprintf(" elements = { %d };", g.Port)
	}
	return fmt.Sprintf(`add table inet %[1]s
delete table inet %[1]s
table inet %[1]s {
	set open { type inet_service; flags timeout;%[3]s }
	set ticket { type inet_service; flags timeout; }
	chain requests {
		type filter hook input priority filter - 10; policy accept;
		meta l4proto { tcp, udp } th dport %[2]d th dport != @open goto refused
	}
	chain refused {
		iifname "lo" ip daddr 127.0.0.0/8 accept
		iifname "lo" ip6 daddr ::1 accept
		iifname "lo" tcp flags & rst == rst accept
		drop
	}
	chain replies {
		type filter hook output priority filter - 10; policy accept;
		meta l4proto { tcp, udp } th sport %[2]d th sport != @open goto withheld
	}
	chain withheld {
		oifname "lo" ip saddr 127.0.0.0/8 accept
		oifname "lo" ip6 saddr ::1 accept
		meta l4proto tcp reject with tcp reset
		drop
	}
}
`, g.Table, g.Port, elements)
}

// Remove takes the table away: everything passes. Of one that is not there it succeeds.
func (g *Gate) Remove(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shape = ""
	if _, err := g.nft(ctx, fmt.Sprintf("add table inet %[1]s\ndelete table inet %[1]s\n", g.Table)); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// Shut closes the gate now.
func (g *Gate) Shut(ctx context.Context) error {
	if _, err := g.nft(ctx, fmt.Sprintf("flush set inet %s open\n", g.Table)); err != nil {
		return fmt.Errorf("gate: shut: %w", err)
	}
	return nil
}

// Renew keeps an open gate open until the lease ends, less a part, and returns for how long. errLost if it is closed already.
func (g *Gate) Renew(ctx context.Context, lease Lease) (time.Duration, error) {
	return g.pass(ctx, lease, "delete element inet %[1]s open { %[2]d }\n", func(context.Context) error { return nil })
}

// Open opens the gate under a lease if verify, which is called after the lease was found to be valid, finds nothing in the
// way. errLost if that took so long that it proves nothing any more.
func (g *Gate) Open(ctx context.Context, lease Lease, verify func(context.Context) error) (time.Duration, error) {
	return g.pass(ctx, lease, "flush set inet %[1]s open\n", verify)
}

// pass puts a timeout into the set that certainly is over before the lease. The kernel counts it from when it gets it, and
// nothing bounds how late that is: this process may be stopped right before. So the command spends a ticket that was put down
// before the lease was looked at, and has a timeout itself. A command that comes later than that changes nothing.
//
//	t1 ticket put down, for a quarter of what was left        t2 the lease has L left        t3 < t1 + quarter: the kernel acts
//	the gate closes at t3 + (L - quarter) < t1 + L <= t2 + L, the end of the lease
func (g *Gate) pass(ctx context.Context, lease Lease, before string, verify func(context.Context) error) (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	quarter := (lease() / 4).Truncate(time.Millisecond)
	if quarter <= safety {
		return 0, fmt.Errorf("gate: this node holds no lease: %w", cairn.ErrUnavailable)
	}
	g.ticket = g.ticket%65535 + 1 // each its own: a command that was given up cannot spend another one's
	if _, err := g.nft(ctx, fmt.Sprintf("add element inet %s ticket { %d timeout %dms }\n", g.Table, g.ticket, quarter.Milliseconds())); err != nil {
		return 0, fmt.Errorf("gate: %w", err)
	}
	timeout := (lease() - quarter - safety).Truncate(time.Millisecond)
	if timeout <= 0 {
		return 0, fmt.Errorf("gate: the lease ends: %w", cairn.ErrUnavailable)
	}
	if err := verify(ctx); err != nil {
		return 0, err
	}
	_, err := g.nft(ctx, fmt.Sprintf("delete element inet %[1]s ticket { %[3]d }\n"+before+"add element inet %[1]s open { %[2]d timeout %[4]dms }\n",
		g.Table, g.Port, g.ticket, timeout.Milliseconds()))
	if err != nil {
		return 0, fmt.Errorf("gate: %w", err)
	}
	return timeout, nil
}

// Whole reports whether the table is as it was made, whoever has been at it since.
func (g *Gate) Whole(ctx context.Context) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shape, _, err := g.list(ctx)
	if errors.Is(err, errLost) {
		return false, nil
	}
	return err == nil && g.shape != "" && shape == g.shape, err
}

// IsOpen reports whether traffic passes now because the port is in the set.
func (g *Gate) IsOpen(ctx context.Context) (bool, error) {
	_, open, err := g.list(ctx)
	return open, err
}

// list reads the table: what does not change, and whether it is open. errLost if there is none.
func (g *Gate) list(ctx context.Context) (shape string, open bool, err error) {
	out, err := g.nft(ctx, "", "list", "table", "inet", g.Table)
	if err != nil {
		return "", false, err
	}
	var all struct {
		Objects []map[string]map[string]any `json:"nftables"`
	}
	decoder := json.NewDecoder(bytes.NewReader(out))
	decoder.UseNumber()
	if err := decoder.Decode(&all); err != nil {
		return "", false, fmt.Errorf("nft list table: %w: %w", err, cairn.ErrCorrupt)
	}
	var text strings.Builder
	for _, object := range all.Objects {
		for _, kind := range slices.Sorted(maps.Keys(object)) {
			fields := object[kind]
			if kind == "metainfo" {
				continue
			}
			if elements, ok := fields["elem"].([]any); ok && kind == "set" && fields["name"] == "open" && len(elements) > 0 {
				open = true
			}
			delete(fields, "elem")
			delete(fields, "handle")
			line, err := json.Marshal(fields) // keys sorted
			if err != nil {
				return "", false, fmt.Errorf("nft list table: %w", err)
			}
			fmt.Fprintf(&text, "%s %s\n", kind, line)
		}
	}
	return text.String(), open, nil
}

// nft runs a script, or the command in args. What names something that is not there is errLost.
func (g *Gate) nft(ctx context.Context, script string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c := tool.Cmd{Name: "nft", Args: append([]string{"-j"}, args...)}
	if script != "" {
		c = tool.Cmd{Name: "nft", Args: append(args, "-f", "-"), Stdin: []byte(script)}
	}
	result, err := g.Runner.Run(ctx, c)
	var exit *tool.ExitError
	if errors.As(err, &exit) && exit.Code == 1 && strings.Contains(string(exit.Stderr), "No such file or directory") {
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	return result.Stdout, err
}
