package cli

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// format renders values in the cells of a table: for people, or exactly (-p) for scripts.
type format struct {
	exact bool
	now   time.Time
}

// size is a number of bytes; below zero it is not known.
func (f format) size(n int64) string {
	switch {
	case f.exact:
		return strconv.FormatInt(n, 10)
	case n < 0:
		return "-"
	}
	return cairn.FormatSize(n)
}

// age is the time since an RFC 3339 time, or until it ("in 5h").
func (f format) age(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil || f.exact {
		return at
	}
	d := f.now.Sub(t)
	if d < 0 {
		return "in " + humane(-d)
	}
	return humane(d)
}

// clock is an RFC 3339 time to the second, in UTC.
func (f format) clock(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil || f.exact {
		return at
	}
	return t.UTC().Format(time.RFC3339)
}

// humane is a duration with one unit.
func humane(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	case d < 2*365*day:
		return fmt.Sprintf("%dd", int(d/day))
	}
	return fmt.Sprintf("%dy", int(d/(365*day)))
}

func number[T int | int32 | int64 | uint32 | uint64](n T) string { return fmt.Sprint(n) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// pairs renders a map as k=v, in order of key.
func pairs(m map[string]string) string {
	all := make([]string, 0, len(m))
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	sort.Strings(all)
	return strings.Join(all, "\n")
}

// fault is the whole reason, "" if there is none.
func fault(f *pb.Fault) string {
	if f == nil {
		return ""
	}
	return oneLine(f.GetCode() + ": " + f.GetMessage())
}

// health is a state with the code of what is wrong.
func health(state string, f *pb.Fault) string {
	if f == nil {
		return state
	}
	return state + " (" + f.GetCode() + ")"
}

// locations are the addresses, one to a line, the one to try first first.
func locations(all []*pb.ExportLocation) string {
	lines := make([]string, 0, len(all))
	for _, preferred := range []bool{true, false} {
		for _, location := range all {
			if location.GetPreferred() == preferred {
				lines = append(lines, location.GetUrl())
			}
		}
	}
	return strings.Join(lines, "\n")
}
