package virtual

import (
	"strings"
	"sync"
)

// tail keeps the newest lines of a log, for whoever has to find out why a history went wrong.
type tail struct {
	mu    sync.Mutex
	lines []string
}

// tailLength is how many lines are kept.
const tailLength = 60

// Write implements io.Writer; slog writes a line at a time.
func (t *tail) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, string(line)); len(t.lines) == 2*tailLength {
		t.lines = append(t.lines[:0], t.lines[tailLength:]...)
	}
	return len(line), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines[max(0, len(t.lines)-tailLength):], "")
}
