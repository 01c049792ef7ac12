package cairn

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// MaxSize is the largest share that can be asked for: 1 EiB. Sums of sizes are checked against overflow beyond it.
const MaxSize int64 = 1 << 60

var sizeUnits = []struct {
	suffix string
	factor float64
}{
	{"EiB", 1 << 60}, {"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"E", 1 << 60}, {"P", 1 << 50}, {"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1},
}

// ParseSize reads "10GiB", "10G", "1.5TiB" or plain bytes. All units are powers of 1024; KB, MB and GB are refused because
// readers disagree about them.
func ParseSize(text string) (int64, error) {
	number, factor := strings.TrimSpace(text), 1.0
	for _, unit := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, unit.suffix); ok {
			number, factor = strings.TrimSpace(rest), unit.factor
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && factor == 1 {
		return n, CheckSize(n)
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(value) || strings.ContainsAny(number, "xXpP_") {
		return 0, fmt.Errorf("size %q: want a number with KiB, MiB, GiB, TiB or PiB, such as 10GiB: %w", text, ErrInvalid)
	}
	if bytes := value * factor; bytes > float64(MaxSize) {
		return 0, fmt.Errorf("size %q: more than the largest share, %s: %w", text, FormatSize(MaxSize), ErrInvalid)
	}
	n := int64(value * factor)
	return n, CheckSize(n)
}

// CheckSize refuses sizes that no share can have.
func CheckSize(n int64) error {
	if n <= 0 {
		return fmt.Errorf("size %d: must be more than 0 bytes: %w", n, ErrInvalid)
	}
	if n > MaxSize {
		return fmt.Errorf("size %s: more than the largest share, %s: %w", FormatSize(n), FormatSize(MaxSize), ErrInvalid)
	}
	return nil
}

// FormatSize prints bytes with an IEC unit: exactly where that takes no fraction, else with two digits.
func FormatSize(n int64) string {
	magnitude := math.Abs(float64(n))
	for _, unit := range sizeUnits[:6] {
		if magnitude < unit.factor {
			continue
		}
		if n%int64(unit.factor) == 0 {
			return strconv.FormatInt(n/int64(unit.factor), 10) + unit.suffix
		}
		return strconv.FormatFloat(float64(n)/unit.factor, 'f', 2, 64) + unit.suffix
	}
	return strconv.FormatInt(n, 10) + "B"
}
