package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCompareRecords: every loss that the failover did not announce must be seen.
func TestCompareRecords(t *testing.T) {
	second := func(n int) time.Time { return time.Unix(int64(n), 0) }
	acks := []time.Time{second(0), second(1), second(2), second(5), second(6)} // the last two after the failover
	cases := map[string]struct {
		oldest time.Time
		gone   []int
		want   string
	}{
		"nothing lost":           {second(3), nil, ""},
		"the end, in the window": {second(1), []int{1, 2}, ""},
		"more than the window":   {second(2), []int{1, 2}, "record 1 is missing, and was acknowledged 1s before the shown window"},
		"a hole":                 {second(0), []int{1}, "record 2 is there, and record 1"},
		"of the new server":      {second(0), []int{2, 4}, "record 4 is missing, and was acknowledged after the failover"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := compareRecords(acks, second(4), c.oldest, func(n int) bool { return !slices.Contains(c.gone, n) })
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error = %v, want %q", err, c.want)
				}
				return
			}
			if err != nil || !slices.Equal(got.records, c.gone) {
				t.Errorf("lost %v (%v), want %v", got.records, err, c.gone)
			}
			if len(c.gone) > 0 && !got.earliest.Equal(acks[c.gone[0]]) {
				t.Errorf("the first was acknowledged at %v", got.earliest)
			}
		})
	}
}
