package tool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// Spec is a long-running child process.
type Spec struct {
	Name string // looked up in PATH unless it has a slash
	Args []string
	Dir  string   // "" is the directory of this process
	Env  []string // added to the environment of this process
	// Stdout and Stderr are where output goes, as it comes; nil discards it.
	Stdout, Stderr io.Writer
	// OwnGroup gives the child a process group of its own: a Ctrl-C in the terminal does not reach it, and Kill takes
	// everything that it started.
	OwnGroup bool
}

// outputDelay is how long the output of a child that has ended is waited for, if something that it started holds it open.
const outputDelay = 2 * time.Second

// Process is a child that Start has started. It dies with this process, however that ends. Its goroutine waits for the
// end of the child, and ends with it.
type Process struct {
	cmd      *exec.Cmd
	ownGroup bool
	done     chan struct{}
	err      error // valid when done is closed
}

// Start starts a child process and supervises it.
//
// The kernel kills the child when the thread that made it ends, so that thread is kept: it belongs to the child until the
// child has ended.
func Start(s Spec) (*Process, error) {
	cmd := exec.Command(s.Name, s.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, s.Stdout, s.Stderr
	if len(s.Env) > 0 {
		cmd.Env = slices.Concat(cmd.Environ(), s.Env)
	}
	cmd.WaitDelay = outputDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: s.OwnGroup, Pdeathsig: syscall.SIGKILL}
	p := &Process{cmd: cmd, ownGroup: s.OwnGroup, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: not started: %w", s.Name, err)
	}
	return p, nil
}

// Pid is the process ID of the child.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the child alone. Of a child that has ended it succeeds.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d: signal %v: %w", p.Pid(), sig, err)
	}
	return nil
}

// Kill ends the child at once, with its group if it has one of its own, and waits until it has ended.
func (p *Process) Kill() error {
	kill := p.cmd.Process.Kill
	if p.ownGroup {
		kill = func() error { return killGroup(p.Pid()) }
	}
	select {
	case <-p.done: // its number may belong to somebody else by now
		return nil
	default:
	}
	if err := kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d: kill: %w", p.Pid(), err)
	}
	<-p.done
	return nil
}

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the child. It returns nil after exit 0, an error that says how it ended otherwise, and the same
// every time.
func (p *Process) Wait() error {
	<-p.done
	if p.err == nil {
		return nil
	}
	return fmt.Errorf("process %d: %w", p.Pid(), p.err)
}
