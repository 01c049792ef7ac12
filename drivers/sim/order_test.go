package sim_test

import (
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/drivers/sim"
)

func TestOrder(t *testing.T) {
	refusals := "cannot destroy 'a@1': has clones\nuse '-R' to destroy the following datasets:\nz\nb\ncannot destroy 'a@2': has clones\nuse '-R' to destroy the following datasets:\nd\nc\n"
	ordered := "cannot destroy 'a@1': has clones\nuse '-R' to destroy the following datasets:\nb\nz\ncannot destroy 'a@2': has clones\nuse '-R' to destroy the following datasets:\nc\nd\n"
	tests := []struct{ command, output, want string }{
		{"exportfs -s", "/b\n/a\n", "/a\n/b\n"},
		{"exportfs -i x", "/b\n/a\n", "/b\n/a\n"},
		{"zfs holds -H a@s", "a@s\ty\na@s\tx\n", "a@s\tx\na@s\ty\n"},
		{"zfs list -H", "b\na\n", "b\na\n"},
		{"zfs destroy a@1,2", refusals, ordered},
		{"zfs", "b\na\n", "b\na\n"},
		{"zfs destroy a", "", ""},
	}
	for _, tt := range tests {
		if got := sim.Order(strings.Fields(tt.command), tt.output); got != tt.want {
			t.Errorf("%s: %q; want %q", tt.command, got, tt.want)
		}
	}
}
