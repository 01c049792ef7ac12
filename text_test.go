package cairn

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "512": 512, "1B": 1, "1K": 1 << 10, "1KiB": 1 << 10, "10GiB": 10 << 30, "10G": 10 << 30, "1.5TiB": 3 << 39,
		"0.5K": 512, " 2 MiB ": 2 << 20, "1EiB": 1 << 60, "1024PiB": 1 << 60, "1152921504606846976": 1 << 60, "9007199254740993": 9007199254740993,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "GiB", "0", "0GiB", "-1", "-1GiB", "5EiB", "1e30", "NaN", "Inf", "0x10", "1_000", "10GB", "10KB", "10MB", "10gib", "1.5.5G",
		"1152921504606846977", "9223372036854775808", "ten", "1 0G", "0.1B", "1Gi",
	} {
		if got, err := ParseSize(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %d, %v, want %v", text, got, err, ErrInvalid)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 1: "1B", 1023: "1023B", 1024: "1KiB", 1536: "1.50KiB", 10 << 30: "10GiB", 3 << 39: "1.50TiB", MaxSize: "1EiB",
		-1024: "-1KiB", math.MaxInt64: "8.00EiB", math.MinInt64: "-8EiB",
	} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for shift := range 60 { // what is printed exactly can be read back
		if got, err := ParseSize(FormatSize(1 << shift)); err != nil || got != 1<<shift {
			t.Errorf("2^%d is read back as %d, %v", shift, got, err)
		}
	}
}

func TestCheckSize(t *testing.T) {
	for n, ok := range map[int64]bool{math.MinInt64: false, -1: false, 0: false, 1: true, MaxSize: true, MaxSize + 1: false, math.MaxInt64: false} {
		if err := CheckSize(n); (err == nil) != ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "A9", "a-b_c.d", "0", "a..b", strings.Repeat("x", MaxNameLength)} {
		if err := CheckName("share", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "-a", "_a", ".a", "a/b", "../a", "a b", "a\nb", "a\x00", "ä", "a\u202eb", "\xff", strings.Repeat("x", MaxNameLength+1), strings.Repeat("x", 10_000), "a:b", "a%b",
	} {
		err := CheckName("share", name)
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("%q: %v, want %v", name, err, ErrInvalid)
		}
		if text := err.Error(); len(text) > 250 || strings.ContainsAny(text, "\n\x00") || !strings.HasPrefix(text, "share name") {
			t.Errorf("%.40q: not one clear line: %q", name, text)
		}
	}
}

func TestParseClient(t *testing.T) {
	for who, want := range map[string]string{
		"10.0.0.7": "10.0.0.7/32", "10.0.0.0/8": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "::1": "::1/128", "fd00::/64": "fd00::/64",
		"FD00:0:0::1": "fd00::1/128", "::ffff:10.0.0.7": "10.0.0.7/32", "10.0.0.7/32": "10.0.0.7/32",
	} {
		if got, err := ParseClient(who); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v, want %s", who, got, err, want)
		}
	}
	for _, who := range []string{"", "10.0.0", "10.0.0.7/33", "10.0.0.7/8", "fd00::1/64", "host", "10.0.0.1-10.0.0.9", "fe80::1%eth0", "010.0.0.1", "10.0.0.0/08", " 10.0.0.1", "::ffff:10.0.0.0/104"} {
		if got, err := ParseClient(who); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %s, %v, want %v", who, got, err, ErrInvalid)
		}
	}
}

func TestSentinels(t *testing.T) {
	texts := make(map[string]bool)
	for _, err := range Sentinels() {
		if texts[err.Error()] {
			t.Errorf("two sentinels say %q", err)
		}
		texts[err.Error()] = true
	}
	if len(texts) != 19 {
		t.Errorf("%d sentinels, want 19: each belongs in the list", len(texts))
	}
}

func TestPoolID(t *testing.T) {
	if node, name := MakePoolID("n1", "fast").Split(); node != "n1" || name != "fast" {
		t.Errorf("split into %q and %q", node, name)
	}
	if node, name := PoolID("n1").Split(); node != "n1" || name != "" {
		t.Errorf("split into %q and %q", node, name)
	}
}

func TestRefs(t *testing.T) {
	for want, ref := range map[string]Ref{
		"share/backups":   (&Share{ID: "s1", Name: "backups"}).Ref(),
		"replica/r1":      (&Replica{ID: "r1"}).Ref(),
		"snapshot/monday": (&Snapshot{ID: "p1", Name: "monday"}).Ref(),
		"node/n1":         (&Node{ID: "id", Name: "n1"}).Ref(),
		"pool/fast":       (&Pool{ID: "n1/fast", Name: "fast"}).Ref(),
	} {
		if ref.String() != want {
			t.Errorf("%q, want %q", ref, want)
		}
	}
}

func TestProvisionable(t *testing.T) {
	for _, c := range []struct{ total, reserved, ratio, want int64 }{
		{10 << 30, 0, 100, 10 << 30}, // to the byte: a share as large as its pool fits
		{99, 0, 100, 99},
		{100 << 30, 10, 200, 180 << 30},
		{100, 99, 100, 1},
		{1000, 0, 0, 1000}, // no ratio is no over-subscription
		{0, 0, 1000, 0},
		{-1, 0, 100, 0},
		{math.MaxInt64, 0, 100, math.MaxInt64},
		{math.MaxInt64, 50, 200, math.MaxInt64},
		{1 << 60, 0, 1000, math.MaxInt64},
	} {
		p := &Pool{Total: c.total, ReservedPercent: c.reserved, OverSubscriptionPercent: c.ratio}
		if got := p.Provisionable(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
