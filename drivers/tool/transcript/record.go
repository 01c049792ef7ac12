package transcript

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// Tools runs commands and streams.
type Tools interface {
	tool.Runner
	tool.Streamer
}

// Recorder is a Tools that writes down what passes through it, in the order in which commands end. Streams are held in
// memory, so they ought to be small. What Transcript returns may be replayed one command at a time only.
type Recorder struct {
	Tools  Tools
	Names  *Names
	Header []string

	mu        sync.Mutex // not held while a command runs: one may feed another
	exchanges []Exchange
	comments  []string
	streams   [][]byte
	errs      []error
}

// Comment puts a line before the next command.
func (r *Recorder) Comment(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.comments = append(r.comments, line)
}

// Run implements tool.Runner.
func (r *Recorder) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	x := r.ask(c)
	result, err := r.Tools.Run(ctx, c)
	r.note(c, x, nil, result, err)
	return result, err
}

// Stream implements tool.Streamer.
func (r *Recorder) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (tool.Result, error) {
	x := r.ask(c)
	if stdin != nil {
		fed, err := io.ReadAll(stdin) // whole, also if the tool reads only the beginning: that is what it was offered
		if err == nil {
			x.Input, err = r.identify(fed)
		}
		if err != nil {
			return tool.Result{}, fmt.Errorf("record %s: %w", c, err)
		}
		stdin = bytes.NewReader(fed)
	}
	var written bytes.Buffer
	out := stdout
	if stdout != nil {
		out = io.MultiWriter(&written, stdout)
	}
	result, err := r.Tools.Stream(ctx, c, stdin, out)
	r.note(c, x, written.Bytes(), result, err)
	return result, err
}

func (r *Recorder) ask(c tool.Cmd) Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Names.question(c)
}

// identify says which of the streams fed is, whole, cut off, or with one byte changed.
func (r *Recorder) identify(fed []byte) (Input, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.streams {
		n := 0
		for n < min(len(s), len(fed)) && s[n] == fed[n] {
			n++
		}
		switch percent := min(99, max(1, (n*100+len(s)/2)/len(s))); {
		case n == len(s) && n == len(fed):
			return Input{Stream: i + 1, Percent: 100}, nil
		case n == len(fed) && n > 0:
			return Input{Stream: i + 1, Percent: percent}, nil
		case len(s) == len(fed) && bytes.Equal(s[n+1:], fed[n+1:]):
			return Input{Stream: i + 1, Percent: percent, Damaged: true}, nil
		}
	}
	return Input{}, fmt.Errorf("stdin of %d bytes is no stream of this transcript", len(fed))
}

// of is what a stream is as this input: the inverse of identify.
func (in Input) of(s []byte) []byte {
	at := len(s) * in.Percent / 100
	if !in.Damaged {
		return s[:at]
	}
	s = bytes.Clone(s)
	s[at] ^= 0xff
	return s
}

func (r *Recorder) note(c tool.Cmd, x Exchange, stream []byte, result tool.Result, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x.Comments, r.comments = r.comments, nil
	if len(stream) > 0 {
		r.streams = append(r.streams, stream)
		x.Output = len(r.streams)
	}
	if err := x.answer(r.Names, c, result, err); err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", join(x.Argv), err))
		return
	}
	r.exchanges = append(r.exchanges, x)
}

// answer fills in what a tool said. An error is one of running it, which is no answer.
func (x *Exchange) answer(names *Names, c tool.Cmd, result tool.Result, err error) error {
	var exit *tool.ExitError
	if errors.As(err, &exit) && exit.Code > 0 {
		result, err, x.Code = tool.Result{Stdout: exit.Stdout, Stderr: exit.Stderr}, nil, exit.Code
	}
	if err != nil {
		return err
	}
	argv := append([]string{c.Name}, c.Args...)
	x.Stdout = hide(c, names.output(argv, string(result.Stdout)))
	x.Stderr = hide(c, names.output(argv, string(result.Stderr)))
	if !isText(x.Stdout) || !isText(x.Stderr) || !isText(x.Stdin) {
		return errors.New("its input or output is not text and was not streamed")
	}
	return nil
}

// Transcript returns what was recorded so far. The error names commands that did not end by themselves or whose answer is
// not text: such a transcript has gaps.
func (r *Recorder) Transcript() (*Transcript, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Transcript{Header: r.Header, Exchanges: r.exchanges}, errors.Join(r.errs...)
}
