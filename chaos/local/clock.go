package local

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// SetClock has the server's monotonic clocks, CLOCK_BOOTTIME too, be that many whole seconds ahead of the machine's, from its next start on.
// Whether that is possible CheckClocks says.
func (s *Server) SetClock(ahead time.Duration) { s.ahead.Store(int64(ahead)) }

// Clock is how far ahead they are from the next start on.
func (s *Server) Clock() time.Duration { return time.Duration(s.ahead.Load()) }

// withClock is a command with such clocks. It is one process, as without.
func withClock(ahead time.Duration, name string, args []string) (string, []string) {
	if ahead == 0 {
		return name, args
	}
	seconds := strconv.FormatInt(int64(ahead/time.Second), 10)
	return "unshare", append([]string{"--time", "--monotonic", seconds, "--boottime", seconds, "--", name}, args...)
}

// CheckClocks returns why processes here cannot have monotonic clocks of their own; nil if they can. It looks at the clock of one: there are
// kernels that make the namespace, and do not move a process into it when that becomes another program.
func CheckClocks(ctx context.Context) error {
	const ahead = 24 * time.Hour
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return fmt.Errorf("clocks: %w", err)
	}
	ours, err := uptime(text)
	if err != nil {
		return err
	}
	name, args := withClock(ahead, "cat", []string{"/proc/uptime"})
	result, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: name, Args: args})
	if err != nil {
		return fmt.Errorf("clocks: %w", err)
	}
	theirs, err := uptime(result.Stdout)
	if err == nil && theirs-ours < ahead {
		err = fmt.Errorf("clocks: in a time namespace that is %s ahead, a process is %s ahead", ahead, theirs-ours)
	}
	return err
}

// uptime is CLOCK_BOOTTIME as whoever has read this file sees it.
func uptime(text []byte) (time.Duration, error) {
	seconds, _, _ := strings.Cut(string(text), " ")
	d, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return 0, fmt.Errorf("/proc/uptime: %w", err)
	}
	return d, nil
}
