package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
)

// TestExitCodes is the contract with scripts: it must not change.
func TestExitCodes(t *testing.T) {
	want := map[error]int{
		nil:                      0,
		errors.New("anything"):   1,
		cairn.ErrDenied:          1,
		cairn.ErrUnauthenticated: 1,
		cairn.ErrCorrupt:         1,
		cairn.ErrInvalid:         2,
		usagef("typed wrong"):    2,
		cairn.ErrNotFound:        3,
		cairn.ErrExists:          4,
		cairn.ErrBusy:            4,
		cairn.ErrInUse:           4,
		cairn.ErrStale:           4,
		cairn.ErrPrecondition:    5,
		refusef("not now"):       5,
		cairn.ErrQuota:           5,
		cairn.ErrCapacity:        5,
		cairn.ErrNoSpace:         5,
		cairn.ErrDataLoss:        5,
		cairn.ErrNotSupported:    5,
		cairn.ErrUpgrade:         5,
		cairn.ErrTimeout:         6,
		cairn.ErrUnknownOutcome:  6,
		context.DeadlineExceeded: 6,
		cairn.ErrUnavailable:     7,
		context.Canceled:         130,
	}
	for err, code := range want {
		if got := exitCode(err); got != code {
			t.Errorf("%v: exit code %d, want %d", err, got, code)
		}
		if err == nil {
			continue
		}
		if got := exitCode(fmt.Errorf("share docs: %w", err)); got != code {
			t.Errorf("wrapped %v: exit code %d, want %d", err, got, code)
		}
	}
	for _, sentinel := range cairn.Sentinels() {
		if _, ok := want[sentinel]; !ok {
			t.Errorf("%v: has no exit code in this table", sentinel)
		}
	}
}

// TestErrorLineIsOneLine: whatever is in an error, a terminal gets one printable line of bounded length that begins with the
// program's name.
func TestErrorLineIsOneLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.Rune(), 0, 3000, -1),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
		sentinel := rapid.SampledFrom(cairn.Sentinels()).Draw(t, "sentinel")
		line := errorLine(fmt.Errorf("%s: %w", text, sentinel))
		if !strings.HasPrefix(line, "cairn: ") || !utf8.ValidString(line) || len(line) > longestLine+200 {
			t.Fatalf("line %q", line)
		}
		for _, r := range line {
			if r != ' ' && !unicode.IsPrint(r) {
				t.Fatalf("line %q holds %U", line, r)
			}
		}
	})
}

// TestOneLineKeepsText: what is printable already is left as it is, so nothing is hidden either.
func TestOneLineKeepsText(t *testing.T) {
	for text, want := range map[string]string{
		"plain text, größe 10 GiB": "plain text, größe 10 GiB",
		"two\nlines\ttab\r":        `two\nlines\ttab\r`,
		"\x1b[31mred":              `\x1b[31mred`,
		"bad \xff byte":            `bad \xff byte`,
		"\ufffd itself":            "\ufffd itself",
		"it's \u2028 wide":         `it's \u2028 wide`,
	} {
		if got := oneLine(text); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestErrorLine(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("size 0: must be more: %w", cairn.ErrInvalid), "cairn: size 0: must be more"},
		{fmt.Errorf("share docs: %w", cairn.ErrNotFound), "cairn: share docs: not found; check the name and the project"},
		{fmt.Errorf("share docs: %w; do this", cairn.ErrNotFound), "cairn: share docs: not found; do this"},
		{cairn.ErrInvalid, "cairn: invalid"},
		{errors.Join(errors.New("one"), errors.New("two")), `cairn: one\ntwo`},
	} {
		if got := errorLine(c.err); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
