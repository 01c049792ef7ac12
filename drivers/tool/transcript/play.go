package transcript

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// Player is a Tools that answers from a transcript. Every command must be the next one of the transcript, and all of them
// must come, or the test fails and shows both. What a Player has no answer for is an error that no tool gives.
type Player struct {
	// AnyOrder answers a command with the first unplayed answer to the same question. It is for callers that run several
	// tools at a time.
	AnyOrder bool

	t     testing.TB
	names *Names
	mu    sync.Mutex
	left  []Exchange
}

// NewPlayer returns a Player for one test. names may be nil.
func NewPlayer(t testing.TB, tr *Transcript, names *Names) *Player {
	if names == nil {
		names = &Names{}
	}
	p := &Player{t: t, names: names, left: slices.Clone(tr.Exchanges)}
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.left) > 0 && !t.Failed() {
			t.Errorf("%d commands of the transcript were not run; the next, line %d:\n%s", len(p.left), p.left[0].Line, p.left[0])
		}
	})
	return p
}

// Run implements tool.Runner.
func (p *Player) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	if err := ctx.Err(); err != nil {
		return tool.Result{}, fmt.Errorf("%s: not started: %w", c, err)
	}
	x, err := p.next(c, func(x Exchange) bool { return x.Input.Stream == 0 && x.Output == 0 })
	if err != nil {
		return tool.Result{}, err
	}
	return p.play(c, x)
}

// Stream implements tool.Streamer. It reads stdin to its end; in the place of a stream it writes the stream's name.
func (p *Player) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (tool.Result, error) {
	if err := ctx.Err(); err != nil {
		return tool.Result{}, fmt.Errorf("%s: not started: %w", c, err)
	}
	x, err := p.next(c, func(x Exchange) bool {
		return (stdin != nil || x.Input.Stream == 0) && (stdout != nil || x.Output == 0)
	})
	if err != nil {
		return tool.Result{}, err
	}
	if stdin != nil {
		if _, err := io.Copy(io.Discard, stdin); err != nil {
			return tool.Result{}, fmt.Errorf("%s: read its input: %w", c, err)
		}
	}
	if x.Output != 0 {
		if _, err := fmt.Fprintf(stdout, "stream %d\n", x.Output); err != nil {
			return tool.Result{}, fmt.Errorf("%s: write its output: %w", c, err)
		}
	}
	return p.play(c, x)
}

// next takes the answer to a command out of what is left.
func (p *Player) next(c tool.Cmd, fits func(Exchange) bool) (Exchange, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.Helper()
	asked := p.names.question(c)
	for i, x := range p.left {
		if slices.Equal(x.Argv, asked.Argv) && x.Stdin == asked.Stdin && fits(x) {
			p.left = slices.Delete(p.left, i, i+1)
			return x, nil
		}
		if !p.AnyOrder {
			p.t.Errorf("the command is\n%sand the transcript, line %d, has\n%s", asked, x.Line, x)
			return Exchange{}, fmt.Errorf("%s: the transcript has another command", c)
		}
	}
	p.t.Errorf("the transcript has no such command left:\n%s", asked)
	return Exchange{}, fmt.Errorf("%s: the transcript has no such command left", c)
}

// play gives the recorded answer, with what is fixed in this run.
func (p *Player) play(c tool.Cmd, x Exchange) (tool.Result, error) {
	stdout, stderr := []byte(p.names.placed(x.Stdout)), []byte(p.names.placed(x.Stderr))
	if x.Code != 0 {
		return tool.Result{}, tool.NewExitError(c, x.Code, stdout, stderr)
	}
	return tool.Result{Stdout: stdout, Stderr: stderr}, nil
}

// Verify runs the commands of a transcript again, in order, and fails the test for every answer that is not the recorded
// one. names may be nil.
func Verify(t testing.TB, tr *Transcript, tools Tools, names *Names) {
	t.Helper()
	if names == nil {
		names = &Names{}
	}
	var streams [][]byte
	for _, want := range tr.Exchanges {
		got := Exchange{Argv: want.Argv, Stdin: want.Stdin, Input: want.Input}
		c := names.command(want)
		if err := again(t.Context(), tools, names, c, &got, want.Output, &streams); err != nil {
			t.Errorf("line %d: %s: %v", want.Line, join(want.Argv), err)
			continue
		}
		var b strings.Builder
		compare(&b, want, got)
		if b.Len() > 0 {
			t.Errorf("line %d: another answer (- recorded, + now):\n%s", want.Line, &b)
		}
	}
}

// again runs one command and fills in its answer.
func again(ctx context.Context, tools Tools, names *Names, c tool.Cmd, got *Exchange, output int, streams *[][]byte) error {
	if got.Input.Stream == 0 && output == 0 {
		result, err := tools.Run(ctx, c)
		return got.answer(names, c, result, err)
	}
	var stdin io.Reader
	if n := got.Input.Stream; n > len(*streams) {
		return fmt.Errorf("stream %d was not written", n)
	} else if n > 0 && len((*streams)[n-1]) > 0 {
		stdin = bytes.NewReader(got.Input.of((*streams)[n-1]))
	}
	if output == 0 {
		result, err := tools.Stream(ctx, c, stdin, nil)
		return got.answer(names, c, result, err)
	}
	var written bytes.Buffer
	result, err := tools.Stream(ctx, c, stdin, &written)
	if written.Len() > 0 {
		got.Output = output
	}
	*streams = append(*streams, written.Bytes()) // also if nothing came: those after it keep their numbers
	return got.answer(names, c, result, err)
}
