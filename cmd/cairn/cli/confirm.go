package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"
)

// confirm asks before something is destroyed, on a terminal and unless --yes or --dry-run. Where nobody can be asked,
// needsYes decides: what the command itself names (delete) goes on, and what destroys more than that needs --yes.
func (r *request) confirm(ctx context.Context, needsYes bool, format string, args ...any) error {
	if r.flags.change.yes || r.flags.change.dryRun {
		return nil
	}
	what := oneLine(fmt.Sprintf(format, args...))
	if !r.Terminal(r.Stdin) {
		if needsYes {
			return usagef("%s: nobody can be asked, since stdin is no terminal; pass --yes if that is what you want", what)
		}
		return nil
	}
	fmt.Fprintf(r.Stderr, "%s. Go on? [y/N] ", what)
	answer, err := r.ask(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return refusef("%s: not confirmed; nothing was changed", what)
	}
	return nil
}

// ask reads a line. A read from a terminal cannot be interrupted, so it is left behind when the context ends first; the
// process ends then, too.
func (r *request) ask(ctx context.Context) (string, error) {
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(r.Stdin).ReadString('\n') // the end of the input is no confirmation
		lines <- line
	}()
	select {
	case line := <-lines:
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
