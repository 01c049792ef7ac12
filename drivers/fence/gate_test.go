package fence

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

func read(t *testing.T) *transcript.Transcript {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "tools.txt"))
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := transcript.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return recorded
}

// volatile are link-layer addresses, what is made of them, and what is left of lifetimes.
func volatile() *transcript.Names {
	cells := []struct {
		form    string
		pattern *regexp.Regexp
	}{
		{"02:00:00:00:00:0%d", regexp.MustCompile(`"address":"((?:[0-9a-f]{2}:){5}[0-9a-f]{2})"`)},
		{"fe80::%d", regexp.MustCompile(`"local":"(fe80::[0-9a-f:]+)"`)},
		{"LOWERLAYERDOWN", regexp.MustCompile(`"operstate":"([A-Z]+)"`)},
	}
	return &transcript.Names{Cells: func(argv []string, output string) []transcript.Cell {
		if argv[0] != "ip" {
			return nil
		}
		var found []transcript.Cell
		for at := 0; at < len(output); {
			var next transcript.Cell
			for _, cell := range cells {
				if m := cell.pattern.FindStringSubmatchIndex(output[at:]); m != nil && (next.Form == "" || at+m[2] < next.Start) {
					next = transcript.Cell{Start: at + m[2], End: at + m[3], Form: cell.form}
				}
			}
			if next.Form == "" {
				break
			}
			found = append(found, next)
			at = next.End
		}
		return found
	}}
}

// TestTools plays what the real tools have answered, failures too.
func TestTools(t *testing.T) { useTools(t, transcript.NewPlayer(t, read(t), volatile())) }

// useTools runs every command of the gate and of addresses, and some that fail.
func useTools(t *testing.T, run tool.Runner) {
	ctx := t.Context()
	g := &Gate{Runner: run, Table: "cairn_nfs", Port: 2049}
	check := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	whole := func(want bool) {
		t.Helper()
		if got, err := g.Whole(ctx); err != nil || got != want {
			t.Errorf("whole %t, %v; want %t", got, err, want)
		}
	}
	isOpen := func(want bool) {
		t.Helper()
		if got, err := g.IsOpen(ctx); err != nil || got != want {
			t.Errorf("open %t, %v; want %t", got, err, want)
		}
	}
	hour := func() time.Duration { return time.Hour }
	nothing := func(context.Context) error { return nil }

	check("check", g.Check(ctx), nil)
	check("remove what is not there", g.Remove(ctx), nil)
	whole(false)
	_, err := g.Renew(ctx, hour)
	check("renew what is not there", err, errLost)
	check("make", g.Make(ctx, true), nil)
	isOpen(true)
	check("make again", g.Make(ctx, false), nil)
	whole(true)
	isOpen(false)
	_, err = g.Renew(ctx, hour)
	check("renew what is closed", err, errLost)
	timeout, err := g.Open(ctx, hour, nothing)
	check("open", err, nil)
	if timeout != time.Hour-15*time.Minute-safety {
		t.Errorf("open for %s", timeout)
	}
	isOpen(true)
	_, err = g.Renew(ctx, hour)
	check("renew", err, nil)
	whole(true)
	check("shut", g.Shut(ctx), nil)
	isOpen(false)
	_, err = g.Open(ctx, func() time.Duration { return 0 }, nothing)
	check("open without a lease", err, cairn.ErrUnavailable)
	_, err = g.Open(ctx, hour, func(context.Context) error { return cairn.ErrStale })
	check("open, and something is in the way", err, cairn.ErrStale)
	isOpen(false)
	check("remove", g.Remove(ctx), nil)

	announced := 0
	a := &Addresses{Runner: run, Announce: func(iface string, _ netip.Addr) error {
		announced++
		if iface != "eth0" {
			t.Errorf("announced at %s", iface)
		}
		return nil
	}, Logger: slog.New(slog.DiscardHandler)}
	wanted := true
	for _, address := range []string{"10.0.0.9/24", "fd00::9/64"} {
		prefix := netip.MustParsePrefix(address)
		for range 2 {
			check("hold", a.Hold(ctx, prefix, 1500*time.Second, func() bool { return wanted }), nil)
		}
		check("drop", a.Drop(ctx, prefix), nil)
		check("drop what is not there", a.Drop(ctx, prefix), nil)
	}
	wanted = false
	check("hold what is not wanted any more", a.Hold(ctx, address, time.Second, func() bool { return wanted }), nil)
	yes := func() bool { return true }
	check("somebody else's", a.Hold(ctx, netip.MustParsePrefix("10.0.0.1/24"), time.Second, yes), cairn.ErrExists)
	check("no interface", a.Hold(ctx, netip.MustParsePrefix("10.9.0.9/24"), time.Second, yes), cairn.ErrPrecondition)
	check("somebody else's is not dropped", a.Drop(ctx, netip.MustParsePrefix("10.0.0.1/24")), nil)
	if announced != 4 {
		t.Errorf("announced %d times", announced)
	}
	b := &Addresses{Runner: run, Interface: "nope", Logger: a.Logger}
	err = b.Hold(ctx, address, time.Second, yes)
	var exit *tool.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("no such interface: %v", err)
	}
}

// The simulated packet filter answers to the gate's commands as the real one has.
func TestFilterIsLikeTheRealOne(t *testing.T) {
	f := newFilter()
	for _, x := range read(t).Exchanges {
		if x.Argv[0] != "nft" {
			continue
		}
		_, err := f.Run(t.Context(), tool.Cmd{Name: "nft", Args: x.Argv[1:], Stdin: []byte(x.Stdin)})
		var exit *tool.ExitError
		if failed := errors.As(err, &exit); failed != (x.Code != 0) {
			t.Errorf("line %d:\n%s\nthe simulation says %v", x.Line, x, err)
		} else if failed && strings.Contains(x.Stderr, "No such file") != strings.Contains(string(exit.Stderr), "No such file") {
			t.Errorf("line %d: %s, not %s", x.Line, exit.Stderr, x.Stderr)
		}
	}
}
