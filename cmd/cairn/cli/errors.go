package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cairn-storage/cairn"
)

// The exit codes that scripts can rely on.
const (
	exitOK           = 0
	exitOther        = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitConflict     = 4
	exitPrecondition = 5
	exitTimeout      = 6
	exitUnavailable  = 7
	exitInterrupted  = 130 // 128 + SIGINT, as shells have it
)

// outcomes says what each error means to a script, and what its reader may do when the error itself does not say so. The
// first row that matches counts. Code 7 promises that nothing was changed, so an unknown outcome is a time-out instead.
var outcomes = []struct {
	err    error
	code   int
	advice string
}{
	{cairn.ErrInvalid, exitUsage, ""},
	{cairn.ErrNotFound, exitNotFound, "check the name and the project"},
	{cairn.ErrExists, exitConflict, "choose another name, or ask for what is there"},
	{cairn.ErrBusy, exitConflict, "wait for the task, or see: cairn task list"},
	{cairn.ErrInUse, exitConflict, "remove what depends on it first"},
	{cairn.ErrStale, exitConflict, "look again and repeat the command"},
	{cairn.ErrPrecondition, exitPrecondition, ""},
	{cairn.ErrQuota, exitPrecondition, "see: cairn quota show"},
	{cairn.ErrCapacity, exitPrecondition, "see: cairn placement explain"},
	{cairn.ErrNoSpace, exitPrecondition, "free some space, or extend the share"},
	{cairn.ErrDataLoss, exitPrecondition, "nothing was changed"},
	{cairn.ErrNotSupported, exitPrecondition, "see: cairn pool list -o wide, cairn type list -o wide"},
	{cairn.ErrUpgrade, exitPrecondition, "upgrade the oldest node, see: cairn node list -o wide"},
	{cairn.ErrTimeout, exitTimeout, "it may still happen; look before you repeat it"},
	{cairn.ErrUnknownOutcome, exitTimeout, "look whether it happened before you repeat it"},
	{context.DeadlineExceeded, exitTimeout, "raise --timeout, or look whether it happened"},
	{cairn.ErrUnavailable, exitUnavailable, "nothing was changed; see: cairn cluster status"},
	{cairn.ErrDenied, exitOther, "ask an administrator for a user with another role"},
	{cairn.ErrUnauthenticated, exitOther, "renew the user's configuration with: cairn user create"},
	{cairn.ErrCorrupt, exitOther, "keep the evidence before you repair anything"},
	{context.Canceled, exitInterrupted, ""},
}

// exitCode is the exit code of an error.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return o.code
		}
	}
	return exitOther
}

// errorLine is an error for a terminal: exactly one line that says what, why and, after a semicolon, what to do.
func errorLine(err error) string {
	text := strings.ReplaceAll(oneLine(err.Error()), context.Canceled.Error(), "interrupted")
	if rest, ok := strings.CutSuffix(text, ": "+cairn.ErrInvalid.Error()); ok {
		text = strings.TrimSpace(rest) // what is wrong with it stands before
	}
	if strings.Contains(text, "; ") {
		return "cairn: " + text
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) && o.advice != "" {
			return "cairn: " + text + "; " + o.advice
		}
	}
	return "cairn: " + text
}

// longestLine bounds a line on a terminal, in bytes: a name of 10 kB must not push the reason out of sight.
const longestLine = 1000

// oneLine shows control characters, line breaks and invalid bytes as escapes, and cuts what is too long.
func oneLine(text string) string {
	var line strings.Builder
	for i, r := range text {
		if line.Len() >= longestLine {
			line.WriteString("…")
			break
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&line, `\x%02x`, text[i])
		case r == ' ' || unicode.IsPrint(r):
			line.WriteRune(r)
		default:
			line.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return line.String()
}

// sentenceError is an error that says all by itself, so it does not end with the word of the sentinel that it wraps.
type sentenceError struct {
	text string
	is   error
}

// usagef is a command that can never work as it was typed: what the server would call cairn.ErrInvalid.
func usagef(format string, args ...any) error {
	return &sentenceError{fmt.Sprintf(format, args...), cairn.ErrInvalid}
}

// refusef is a command that was not carried out because of the state of things.
func refusef(format string, args ...any) error {
	return &sentenceError{fmt.Sprintf(format, args...), cairn.ErrPrecondition}
}

func (e *sentenceError) Error() string { return e.text }

func (e *sentenceError) Unwrap() error { return e.is }
