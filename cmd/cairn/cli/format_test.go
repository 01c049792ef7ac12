package cli

import (
	"bytes"
	"testing"
	"time"

	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		before time.Duration
		want   string
	}{
		{0, "0s"}, {119 * time.Second, "119s"}, {2 * time.Minute, "2m"}, {119 * time.Minute, "119m"}, {2 * time.Hour, "2h"},
		{47 * time.Hour, "47h"}, {2 * day, "2d"}, {729 * day, "729d"}, {800 * day, "2y"}, {-90 * time.Minute, "in 90m"}, {-3 * day, "in 3d"},
	} {
		if got := (format{now: now}).age(ago(c.before)); got != c.want {
			t.Errorf("%s before: %q, want %q", c.before, got, c.want)
		}
	}
	if got := (format{now: now}).age("not a time"); got != "not a time" {
		t.Errorf("what is no time: %q", got)
	}
}

// TestTableAlignment: a cell never breaks its table, whatever its letters are.
func TestTableAlignment(t *testing.T) {
	names := view[*pb.User]{columns: []Column[*pb.User]{
		{Header: "NAME", Cell: func(_ format, u *pb.User) string { return u.GetName() }},
		{Header: "NEXT", Cell: func(format, *pb.User) string { return "x" }},
	}}
	var out bytes.Buffer
	names.table(&out, printer{headers: true}, []*pb.User{{Name: "größe"}, {Name: "two\nlines"}, {Name: "tab\tstop"}, {Name: ""}})
	want := "NAME       NEXT\ngröße      x\ntwo,lines  x\ntab\\tstop  x\n-          x\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestParseSince(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "5m": "2026-03-01T11:55:00Z", "0s": "2026-03-01T12:00:00Z", "2026-01-01T01:00:00+01:00": "2026-01-01T00:00:00Z",
	} {
		if got, err := parseSince(text, now); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"-5m", "5", "yesterday", "2026-01-01"} {
		if _, err := parseSince(text, now); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", text, err)
		}
	}
}
