package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Streamer runs tools that read or write more than fits in memory, such as zfs send.
type Streamer interface {
	// Stream is Run with stdin in the place of Cmd.Stdin, unless it is nil, and with stdout in the place of Result.Stdout,
	// unless that is nil. A Read or Write that fails ends the tool and is the error, joined with what the tool then said.
	//
	// A tool may end before it has read everything. Then Stream returns without waiting for a Read that is in progress: the
	// caller closes what stdin reads from, and reads nothing of it until then.
	Stream(ctx context.Context, c Cmd, stdin io.Reader, stdout io.Writer) (Result, error)
}

var (
	_ Runner   = (*Machine)(nil)
	_ Streamer = (*Machine)(nil)
)

// Stream implements Streamer.
func (m *Machine) Stream(ctx context.Context, c Cmd, stdin io.Reader, stdout io.Writer) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, notStarted(c, err)
	}
	runtime.LockOSThread() // as in Run
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept, stderr := &bounded{max: m.MaxOutput, end: cancel}, &bounded{max: m.MaxOutput, end: cancel}
	cmd := m.command(ctx, c)
	cmd.Stderr = stderr
	if stdout == nil {
		cmd.Stdout = kept
	}
	p, err := connect(cmd, stdin, stdout)
	if err != nil {
		return Result{}, notStarted(c, err)
	}
	if err := cmd.Start(); err != nil {
		p.close()
		return Result{}, notStarted(c, err)
	}
	p.start(stdin, stdout)
	err = cmd.Wait()
	broken := p.finish(ctx, m.Grace)
	result, err := m.result(ctx, c, cmd.ProcessState, kept, stderr, err)
	switch {
	case broken == nil:
		return result, err
	case err == nil:
		return Result{}, fmt.Errorf("%s: %w", c, broken)
	}
	return Result{}, fmt.Errorf("%w: %w", broken, err)
}

// plumbing carries a tool's stdin and stdout. The pipes are ours and not package exec's, which gives up on a slow reader of
// the last bytes soon after the tool has ended.
type plumbing struct {
	in, out          *os.File // our ends; nil where there is no stream
	theirs           []*os.File
	fed, drained     chan struct{}
	reading, writing error // valid when fed and drained are closed
}

func connect(cmd *exec.Cmd, stdin io.Reader, stdout io.Writer) (*plumbing, error) {
	p := &plumbing{fed: make(chan struct{}), drained: make(chan struct{})}
	if stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		widen(w)
		cmd.Stdin, p.in, p.theirs = r, w, append(p.theirs, r)
	}
	if stdout != nil {
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, err
		}
		widen(r)
		cmd.Stdout, p.out, p.theirs = w, r, append(p.theirs, w)
	}
	return p, nil
}

// pipeBytes is what fits in a pipe to or from a tool, and copyBytes what is moved at once. With what the kernel and package io
// take by themselves, 64 and 32 KiB, tool and stream spend much of their time on waking each other.
const (
	pipeBytes = 1 << 20
	copyBytes = 128 << 10
)

// widen is a courtesy: a user may not have many of them.
func widen(pipe *os.File) {
	if raw, err := pipe.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeBytes) })
	}
}

// move copies with a buffer of that size: files would bring their own.
func move(to io.Writer, from io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, copyBytes))
	return err
}

// start begins to copy. Both goroutines end with their stream, and after the tool has ended with their next step.
func (p *plumbing) start(stdin io.Reader, stdout io.Writer) {
	closeAll(p.theirs...) // the tool has them now
	if p.in == nil {
		close(p.fed)
	} else {
		go p.feed(stdin)
	}
	if p.out == nil {
		close(p.drained)
	} else {
		go p.drain(stdout)
	}
}

func (p *plumbing) feed(stdin io.Reader) {
	defer closeAll(p.in)
	defer close(p.fed) // first: the tool may end because of the close, and then p.reading has to be valid
	source := &failing{Reader: stdin}
	// A tool that does not read to the end has its reasons. Only what the source says is an error.
	if err := move(p.in, source); err != nil && source.err != nil {
		p.reading = fmt.Errorf("read its input: %w", source.err)
	}
}

func (p *plumbing) drain(stdout io.Writer) {
	defer close(p.drained)
	defer closeAll(p.out) // so that the tool does not wait for us
	if err := move(stdout, p.out); err != nil && !errors.Is(err, os.ErrClosed) {
		p.writing = fmt.Errorf("write its output: %w", err)
	}
}

// finish is called when the tool has ended. It waits until all that the tool wrote has been passed on, or ctx has ended.
func (p *plumbing) finish(ctx context.Context, grace time.Duration) error {
	defer p.close()
	select {
	case <-p.drained:
	case <-ctx.Done():
		closeAll(p.out)
		select {
		case <-p.drained:
		case <-time.After(grace): // hangs in a Write of the caller's
		}
		return fmt.Errorf("its output was not read to the end: %w", ended(ctx.Err()))
	}
	if p.writing != nil {
		return p.writing
	}
	select {
	case <-p.fed:
		return p.reading
	default:
		return nil
	}
}

func (p *plumbing) close() {
	closeAll(p.theirs...)
	closeAll(p.in, p.out)
}

// closeAll closes ends of pipes, which cannot fail but for having been closed.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// failing remembers the error of a Reader, so that it can be told from that of a Writer.
type failing struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (f *failing) Read(data []byte) (int, error) {
	n, err := f.Reader.Read(data)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
