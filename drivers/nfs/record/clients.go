package record

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cairn-storage/cairn"
)

// Client is a network and what it may do.
type Client struct {
	Prefix netip.Prefix
	Level  cairn.AccessLevel
}

// String renders the network as servers want it: a single host without its length.
func (c Client) String() string {
	if c.Prefix.IsSingleIP() {
		return c.Prefix.Addr().String()
	}
	return c.Prefix.String()
}

// Clients turns access rules into networks that do not overlap, in order, so that the highest level of all rules that match
// a client is what it gets: where networks overlap, the kernel's server takes any of them, and Ganesha the first.
// Rules on their way out are left out. Errors: cairn.ErrNotSupported for a rule that NFS cannot check, cairn.ErrInvalid for
// one that is not a rule.
func Clients(rules []cairn.AccessRule, readOnly bool) ([]Client, error) {
	var writers, readers []netip.Prefix
	for _, rule := range rules {
		if rule.State.Denied() {
			continue
		}
		network, err := clientOf(rule)
		if err != nil {
			return nil, fmt.Errorf("access rule %s: %w", rule.ID, err)
		}
		if rule.Level == cairn.AccessRW && !readOnly {
			writers = append(writers, network)
		} else {
			readers = append(readers, network)
		}
	}
	writers = outermost(writers)
	var clients []Client
	for _, network := range writers {
		clients = append(clients, Client{network, cairn.AccessRW})
	}
	for _, network := range outermost(readers) {
		for _, rest := range subtract(network, writers) {
			clients = append(clients, Client{rest, cairn.AccessRO})
		}
	}
	slices.SortFunc(clients, func(a, b Client) int { return compareNetworks(a.Prefix, b.Prefix) })
	return clients, nil
}

func clientOf(rule cairn.AccessRule) (netip.Prefix, error) {
	if rule.Level != cairn.AccessRO && rule.Level != cairn.AccessRW {
		return netip.Prefix{}, fmt.Errorf("level %q is not rw or ro: %w", rule.Level, cairn.ErrInvalid)
	}
	switch rule.Kind {
	case cairn.AccessIP:
		return cairn.ParseClient(rule.Who)
	case cairn.AccessUser, cairn.AccessCert:
		return netip.Prefix{}, fmt.Errorf("NFS knows clients by their address only, not by %s; use an ip rule: %w", rule.Kind, cairn.ErrNotSupported)
	}
	return netip.Prefix{}, fmt.Errorf("kind %q is not ip: %w", rule.Kind, cairn.ErrInvalid)
}

// outermost leaves out networks within others.
func outermost(networks []netip.Prefix) []netip.Prefix {
	slices.SortFunc(networks, compareNetworks) // the larger one first where addresses are equal
	var kept []netip.Prefix
	for _, network := range networks {
		if last := len(kept) - 1; last < 0 || !kept[last].Overlaps(network) {
			kept = append(kept, network)
		}
	}
	return kept
}

func compareNetworks(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// subtract returns what is in network and in none of the others: the halves that no other touches, and what is left of the
// rest.
func subtract(network netip.Prefix, others []netip.Prefix) []netip.Prefix {
	touched := false
	for _, other := range others {
		if other.Overlaps(network) && other.Bits() <= network.Bits() {
			return nil
		}
		touched = touched || other.Overlaps(network)
	}
	if !touched {
		return []netip.Prefix{network}
	}
	low, high := halves(network)
	return slices.Concat(subtract(low, others), subtract(high, others))
}

func halves(network netip.Prefix) (low, high netip.Prefix) {
	bits := network.Bits()
	raw := network.Addr().AsSlice()
	raw[bits/8] |= 0x80 >> (bits % 8)
	addr, _ := netip.AddrFromSlice(raw) // as long as it was
	return netip.PrefixFrom(network.Addr(), bits+1), netip.PrefixFrom(addr, bits+1)
}
