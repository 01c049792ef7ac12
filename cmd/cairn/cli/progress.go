package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress shows how far something is: on a terminal one line that changes, with --progress a line for each state, else
// nothing. On a terminal it owns one goroutine, which counts the seconds and which end waits for.
type progress struct {
	out   io.Writer
	what  string
	style progressStyle
	now   func() time.Time
	begun time.Time
	stop  chan struct{}
	wg    sync.WaitGroup

	mu   sync.Mutex
	last string
}

type progressStyle uint8

const (
	progressNone progressStyle = iota
	progressLines
	progressLive
)

// clearLine goes to the start of the terminal's line and empties it.
const clearLine = "\r\x1b[K"

func newProgress(out io.Writer, what string, now func() time.Time, lines, terminal bool) *progress {
	p := &progress{out: out, what: what, now: now, begun: now(), stop: make(chan struct{})}
	switch {
	case lines:
		p.style = progressLines
	case terminal:
		p.style = progressLive
		p.wg.Go(p.tick)
	}
	return p
}

// tick draws the line again every second, so that it is seen that somebody waits.
func (p *progress) tick() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// state says how far it is now.
func (p *progress) state(state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := state != p.last
	p.last = state
	switch {
	case p.style == progressLive:
		p.draw()
	case p.style == progressLines && changed:
		fmt.Fprintln(p.out, p.line())
	}
}

func (p *progress) draw() {
	if p.last != "" {
		fmt.Fprint(p.out, clearLine+p.line())
	}
}

func (p *progress) line() string {
	return oneLine(fmt.Sprintf("%s: %s, %s", p.what, p.last, humane(p.now().Sub(p.begun))))
}

// end takes the changing line away.
func (p *progress) end() {
	close(p.stop)
	p.wg.Wait()
	if p.style == progressLive {
		fmt.Fprint(p.out, clearLine)
	}
}
