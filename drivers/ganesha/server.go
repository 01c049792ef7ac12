package ganesha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Restarts of a Ganesha that ends wait longer and longer; one that has run for steady counts as sound.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
	steady     = time.Minute
	// maxStart is how long a start may take until it counts as hung.
	maxStart = time.Minute
	// lastWords is how many severe lines are kept for the error of a Ganesha that has ended.
	lastWords = 3
)

// server is the Ganesha process and what its log says of it. One goroutine starts it and starts it again.
type server struct {
	binary, dir string
	logger      *slog.Logger
	// prepare writes the configuration and returns the numbers of its exports.
	prepare func() ([]uint16, error)

	mu      sync.Mutex
	changed chan struct{} // closed at every change of what follows
	started bool
	process *tool.Process
	ready   bool
	// failure is why it does not run; nil before the first start and while it runs.
	failure error
	words   []string
	wanted  map[uint16]bool // the exports of the configuration
	live    map[uint16]bool // that it has listed
	listing map[uint16]bool // that it lists after the last reread
	held    map[uint16]bool // that it has, or still has requests of
	taken   map[uint16]bool // that it has ever listed
	rereads int             // configurations that it has read
	errors  bool            // since the last one began
}

// run keeps Ganesha running until ctx ends.
func (s *server) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			pause = firstPause
		}
		s.logger.Error("ganesha: has ended; its shares are not served until it runs again", "error", err, "restart_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, maxPause)
	}
}

// once runs Ganesha to its end and returns why it has ended.
func (s *server) once(ctx context.Context) error {
	wanted, err := s.prepare()
	if err != nil {
		return s.ended(err)
	}
	log := &lines{each: s.read}
	s.update(func() {
		s.words = nil
		s.wanted, s.held = set(wanted), set(wanted)
		s.live, s.errors, s.ready = make(map[uint16]bool), false, false
		s.listing, s.taken = s.live, make(map[uint16]bool)
	})
	process, err := tool.Start(tool.Spec{
		Name: s.binary,
		Args: []string{
			"-F", "-f", filepath.Join(s.dir, "ganesha.conf"), "-p", filepath.Join(s.dir, "ganesha.pid"), "-L", "STDERR", "-N", "NIV_EVENT",
		},
		Stdout: log, Stderr: log, OwnGroup: true,
	})
	if err != nil {
		return s.ended(err)
	}
	s.update(func() { s.process = process })
	stop := context.AfterFunc(ctx, func() { _ = process.Kill() })
	defer stop()
	hung := time.AfterFunc(maxStart, func() { s.killUnready(process) })
	defer hung.Stop()
	err = process.Wait()
	if err == nil {
		err = errors.New("exit 0")
	}
	return s.ended(err)
}

func (s *server) killUnready(process *tool.Process) {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	if !ready {
		_ = process.Kill() // its end says the rest
	}
}

func (s *server) ended(err error) error {
	s.update(func() {
		s.failure = fmt.Errorf("ganesha does not run: %w", err)
		if len(s.words) > 0 {
			s.failure = fmt.Errorf("%w: %s", s.failure, strings.Join(s.words, "; "))
		}
		err = s.failure
		s.process, s.ready = nil, false
		s.live, s.listing, s.held = nil, nil, nil
	})
	return err
}

// read takes one line of the log.
func (s *server) read(text string) {
	l, ok := parseLine(text)
	if !ok {
		s.logger.Debug("ganesha: " + text)
		return
	}
	if l.severe() {
		s.logger.Warn("ganesha: "+l.text, "component", l.component, "severity", l.level)
	}
	s.update(func() { s.learn(l) })
}

func (s *server) learn(l line) {
	if l.severe() && (l.function != "config_errs_to_log" || len(s.words) == 0) { // which says after the cause that there was one
		s.words = append(s.words, l.text)
		s.words = s.words[max(0, len(s.words)-lastWords):]
	}
	switch {
	case strings.TrimSpace(l.text) == "NFS SERVER INITIALIZED":
		s.ready, s.failure = true, nil
	case l.function == "config_errs_to_log":
		s.errors = true
	case l.text == "Reread exports complete":
		s.rereads++
		s.listing = make(map[uint16]bool)
	}
	if n, ok := number(listed, l.text); ok && l.level == "INFO" && s.listing != nil {
		s.listing[n] = true
		if s.taken != nil {
			s.taken[n] = true
		}
	}
	// The configuration that was read is freed too, with the numbers of its exports: of what is not in it, only the export.
	if n, ok := number(freed, l.text); ok && !s.wanted[n] {
		delete(s.held, n)
	}
}

// update changes the state and wakes those who wait.
func (s *server) update(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// wait returns when the condition, which sees the state, holds.
func (s *server) wait(ctx context.Context, what string, condition func() bool) error {
	for {
		s.mu.Lock()
		if condition() {
			s.mu.Unlock()
			return nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("ganesha: %s: %w: %w", what, cairn.ErrTimeout, context.Cause(ctx))
		}
	}
}

// up waits for a start that is under way. cairn.ErrUnavailable if Ganesha does not run.
func (s *server) up(ctx context.Context) error {
	var failure error
	err := s.wait(ctx, "has not started", func() bool {
		failure = s.failure
		if !s.started {
			failure = errors.New("not started yet")
		}
		return s.ready || failure != nil
	})
	if err == nil && failure != nil {
		err = fmt.Errorf("%w: %w", cairn.ErrUnavailable, failure)
	}
	return err
}

// reload makes Ganesha read its configuration, which has these exports, and returns when it lists them. Errors about others
// are theirs: an export that Ganesha refuses is missing in the list, and so in serves.
func (s *server) reload(ctx context.Context, wanted []uint16) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	var process *tool.Process
	rereads := 0
	s.update(func() {
		process, rereads, s.errors, s.words = s.process, s.rereads, false, nil
		s.wanted = set(wanted)
		for _, n := range wanted {
			if s.held != nil {
				s.held[n] = true
			}
		}
	})
	if process == nil {
		return s.up(ctx)
	}
	if err := process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return s.wait(ctx, "does not answer to SIGHUP", func() bool {
		all := !slices.ContainsFunc(wanted, func(n uint16) bool { return !s.listing[n] })
		if s.process == process && (s.rereads == rereads || !all && !s.errors) {
			return false
		}
		s.live = s.listing
		s.forgetRefused()
		return true
	})
}

// forgetRefused lets go of exports that are not wanted any more and that Ganesha has never listed: nobody has anything of them, and nothing
// will be said of their end. A list comes after the word that the configuration was read, so what is known after that word is every list
// of the configurations before, which had them.
func (s *server) forgetRefused() {
	for n := range s.held {
		if !s.wanted[n] && !s.taken[n] {
			delete(s.held, n)
		}
	}
}

// serves returns nil if Ganesha lists the export.
func (s *server) serves(n uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ready && s.live[n]:
		return nil
	case s.failure != nil:
		return fmt.Errorf("%w: %w", cairn.ErrUnavailable, s.failure)
	}
	return fmt.Errorf("ganesha has refused the export: %s: %w", strings.Join(s.words, "; "), cairn.ErrUnavailable)
}

// drained waits until no request of the export is in progress. A Ganesha that has ended has none.
func (s *server) drained(ctx context.Context, n uint16) error {
	return s.wait(ctx, "requests in progress", func() bool { return s.process == nil || !s.held[n] })
}

// pid is the process that runs, 0 if none does.
func (s *server) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid()
}

// kill ends Ganesha at once, and returns when it has ended.
func (s *server) kill(ctx context.Context) error {
	s.mu.Lock()
	process := s.process
	s.mu.Unlock()
	if process == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- process.Kill() }() // it waits for a disk that hangs
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("ganesha: killed and not ended: %w: %w", cairn.ErrTimeout, context.Cause(ctx))
	}
}

func set(numbers []uint16) map[uint16]bool {
	return maps.Collect(func(yield func(uint16, bool) bool) {
		for _, n := range numbers {
			if !yield(n, true) {
				return
			}
		}
	})
}
