package fence

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Addresses holds service addresses on interfaces of this machine, each with a lifetime after which the kernel takes it away.
// The lifetime is in whole seconds and counted from when the kernel gets it, so an address may outlive its lease by a second,
// or by the time for which this process was stopped at the wrong moment: it is where clients look, not what keeps them out.
//
// An address that somebody else has configured, without a lifetime, is never touched.
type Addresses struct {
	Runner tool.Runner
	// Interface takes all addresses; "" is the one that has an address in the same network.
	Interface string
	// Announce tells the network that the address is at this interface now.
	Announce func(iface string, address netip.Addr) error
	Logger   *slog.Logger

	mu   sync.Mutex
	held map[netip.Prefix]*held
}

// held is an address that was added here.
type held struct {
	iface string
	tell  int // announcements that are left
}

// announcements is how often an address that has arrived is announced, once with each renewal: one may be lost, and the old
// holder may have answered in between.
const announcements = 10

// Hold adds the address, or extends its life, unless wanted says no by now. cairn.ErrExists if somebody else has configured it.
func (a *Addresses) Hold(ctx context.Context, address netip.Prefix, life time.Duration, wanted func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !wanted() {
		return nil
	}
	h := a.held[address]
	if h == nil {
		iface, err := a.place(ctx, address)
		if err != nil {
			return fmt.Errorf("service address %s: %w", address, err)
		}
		h = &held{iface: iface, tell: announcements}
	}
	seconds := strconv.FormatInt(int64((life+time.Second-1)/time.Second), 10)
	args := []string{"address", "replace", address.String(), "dev", h.iface, "valid_lft", seconds, "preferred_lft", seconds}
	if address.Addr().Is6() {
		args = append(args, "nodad") // it was another node's a moment ago, and is needed now
	}
	if _, err := a.Runner.Run(ctx, tool.Cmd{Name: "ip", Args: args}); err != nil {
		delete(a.held, address)
		return fmt.Errorf("service address %s: %w", address, err)
	}
	if a.held == nil {
		a.held = make(map[netip.Prefix]*held)
	}
	if a.held[address] == nil {
		a.Logger.Info("service address is here", "address", address, "interface", h.iface)
	}
	a.held[address] = h
	if h.tell > 0 {
		h.tell--
		if err := a.Announce(h.iface, address.Addr()); err != nil {
			return fmt.Errorf("service address %s: announce: %w", address, err)
		}
	}
	return nil
}

// Drop takes the address away. Of one that is not there, or not ours, it succeeds.
func (a *Addresses) Drop(ctx context.Context, address netip.Prefix) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.held, address)
	links, err := a.links(ctx)
	if err != nil {
		return fmt.Errorf("service address %s: %w", address, err)
	}
	for _, link := range links {
		for _, one := range link.Addresses {
			if one.prefix() != address || one.forever() {
				continue
			}
			if _, err := a.Runner.Run(ctx, tool.Cmd{Name: "ip", Args: []string{"address", "delete", address.String(), "dev", link.Name}}); err != nil {
				return fmt.Errorf("service address %s: %w", address, err)
			}
		}
	}
	return nil
}

// link is what `ip -j address` says of an interface.
type link struct {
	Name      string       `json:"ifname"`
	Flags     []string     `json:"flags"`
	Addresses []configured `json:"addr_info"`
}

type configured struct {
	Local  netip.Addr `json:"local"`
	Length int        `json:"prefixlen"`
	Life   int64      `json:"valid_life_time"` // seconds
}

func (c configured) prefix() netip.Prefix { return netip.PrefixFrom(c.Local, c.Length) }
func (c configured) forever() bool        { return c.Life == 1<<32-1 }

func (a *Addresses) links(ctx context.Context) ([]link, error) {
	result, err := a.Runner.Run(ctx, tool.Cmd{Name: "ip", Args: []string{"-j", "address", "show"}})
	if err != nil {
		return nil, err
	}
	var links []link
	if err := json.Unmarshal(result.Stdout, &links); err != nil {
		return nil, fmt.Errorf("ip address show: %w: %w", err, cairn.ErrCorrupt)
	}
	return links, nil
}

// place finds the interface for an address.
func (a *Addresses) place(ctx context.Context, address netip.Prefix) (string, error) {
	links, err := a.links(ctx)
	if err != nil {
		return "", err
	}
	found := a.Interface
	for _, link := range links {
		for _, one := range link.Addresses {
			switch {
			case one.Local == address.Addr() && one.forever():
				return "", fmt.Errorf("is configured on %s, and not by Cairn: %w", link.Name, cairn.ErrExists)
			case one.Local != address.Addr() && found == "" && one.prefix().Masked().Contains(address.Addr()):
				found = link.Name
			}
		}
	}
	if found == "" {
		return "", fmt.Errorf("no interface of this node has an address in the same network; name one in nfs.interface: %w", cairn.ErrPrecondition)
	}
	return found, nil
}
