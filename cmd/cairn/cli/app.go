// Package cli is Cairn's command line: it turns arguments into calls of the API, waits for what was asked, and prints the
// answer as a table, JSON or YAML. Output, exit codes and error lines are a contract that scripts rely on; golden files hold
// them.
//
// It does not know Raft, the state machine or drivers, and it decides nothing: every rule is the server's. The two commands
// that run servers hand over to cmd/cairn/node and cmd/cairn/dev.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/cairn-storage/cairn/rpc/client"
)

// App is the command line with what it needs of the process around it.
type App struct {
	Getenv func(string) string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Terminal reports whether one of the three streams is a terminal: questions are asked, and progress is shown, only there.
	Terminal func(stream any) bool
	Now      func() time.Time
	// Dial connects to a cluster.
	Dial func(client.Config) (*client.Client, error)
}

// Main runs one command of the process and returns its exit code. Cancelling ctx interrupts it.
func Main(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := &App{
		Getenv: getenv, Stdin: stdin, Stdout: stdout, Stderr: stderr,
		Terminal: isTerminal, Now: time.Now, Dial: client.Dial,
	}
	return app.Run(ctx, args)
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Run runs one command. An error is one line on stderr.
func (a *App) Run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for "the arguments of the process"
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(a.Stderr, errorLine(err))
	return exitCode(err)
}

// notef writes a line for people. Results never go this way.
func (a *App) notef(format string, args ...any) {
	fmt.Fprintln(a.Stderr, oneLine(fmt.Sprintf(format, args...)))
}
