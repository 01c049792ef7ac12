package sim

import (
	"math"
	"strconv"
	"strings"
)

// parseSize reads a size as zfs does: a number with an optional suffix, or none.
func parseSize(s string) (uint64, error) {
	if s == "none" {
		return 0, nil
	}
	digits := strings.TrimRight(s, "KMGTPEkmgtpeBb")
	suffix := strings.ToUpper(s[len(digits):])
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fail("bad numeric value '%s'", s)
	}
	if suffix == "" || suffix == "B" {
		return n, nil
	}
	shift := 10 * (1 + strings.IndexByte("KMGTPE", suffix[0]))
	if rest := suffix[1:]; shift == 0 || rest != "" && rest != "B" || n > math.MaxUint64>>shift {
		return 0, unknown("the size %q", s)
	}
	return n << shift, nil
}
