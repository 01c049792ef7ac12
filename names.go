package cairn

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxNameLength is the longest name of a resource, in bytes: what a directory entry can hold.
const MaxNameLength = 255

// CheckName refuses names that would be ambiguous in a path, a table or a log line. what says whose name it is.
func CheckName(what, name string) error {
	shown := name
	if len(shown) > 40 {
		shown = shown[:40] + "…"
	}
	switch {
	case name == "":
		return fmt.Errorf("%s name: must not be empty: %w", what, ErrInvalid)
	case len(name) > MaxNameLength:
		return fmt.Errorf("%s name %s: has %d bytes, at most %d are allowed: %w", what, strconv.Quote(shown), len(name), MaxNameLength, ErrInvalid)
	case name == "." || name == "..":
		return fmt.Errorf("%s name %q: is a directory of its own meaning: %w", what, name, ErrInvalid)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s name %s: is not valid UTF-8: %w", what, strconv.Quote(shown), ErrInvalid)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if letter || i > 0 && (r == '-' || r == '_' || r == '.') {
			continue
		}
		return fmt.Errorf("%s name %s: character %s is not allowed; use letters, digits, and after the first also - _ . : %w",
			what, strconv.Quote(shown), strconv.QuoteRune(r), ErrInvalid)
	}
	return nil
}

// CheckObjectName is CheckName for what somebody else has named: it may hold colons, as the names that tools give to snapshots do.
func CheckObjectName(what, name string) error {
	return CheckName(what, strings.ReplaceAll(name, ":", "-"))
}

// ParseClient reads the Who of an ip rule and returns it in canonical form: an address or a CIDR with its host bits clear.
func ParseClient(who string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(who); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(who)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("client %q: want an address or a CIDR, such as 10.0.0.7, 10.0.0.0/8 or fd00::/64: %w", who, ErrInvalid)
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("client %q: is IPv4 in the clothes of IPv6; write it as IPv4, such as 10.0.0.0/8: %w", who, ErrInvalid)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("client %q: has bits behind its prefix; did you mean %s?: %w", who, prefix.Masked(), ErrInvalid)
	}
	return prefix, nil
}
