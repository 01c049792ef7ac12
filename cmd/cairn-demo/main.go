// Command cairn-demo shows Cairn at work with real servers and real files, and checks every byte: three servers form a
// cluster, a source tree goes into a share, a snapshot is cut, files are damaged, the Raft leader is killed with -9 while the
// share is in use, and the share is reverted. Beside that a replicated share loses the server of its active replica, another
// one takes over, and what was acknowledged is compared with what is there. It needs no root and no network beyond loopback.
//
// It does what an operator and a user would do: the cluster is made and ruled with the cairn command, files go over WebDAV.
// It ends with one line of JSON, and with another exit code than 0 at the first thing that is not as it should be.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	binary   string
	source   string
	dir      string
	parallel int
	keep     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cairn-demo:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	opts, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(opts.dir, "cairn-demo-")
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	d := &demo{options: opts, stage: stage{out: out}, dir: dir, began: time.Now()}
	if err := errors.Join(d.run(ctx), d.cleanUp(ctx)); err != nil {
		return err
	}
	result, err := json.Marshal(d.result())
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", result)
	return err
}

func parse(args []string) (options, error) {
	var opts options
	self, err := os.Executable()
	if err != nil {
		return opts, fmt.Errorf("own path: %w", err)
	}
	flags := flag.NewFlagSet("cairn-demo", flag.ContinueOnError)
	flags.StringVar(&opts.binary, "cairn", filepath.Join(filepath.Dir(self), "cairn"), "the cairn binary")
	flags.StringVar(&opts.source, "source", "", "tree of files to use (default: the source of the Go distribution)")
	flags.StringVar(&opts.dir, "dir", os.TempDir(), "where to make the working directory")
	flags.IntVar(&opts.parallel, "parallel", 16, "connections to the share")
	flags.BoolVar(&opts.keep, "keep", false, "keep servers and files at the end, until Ctrl-C")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 {
		return opts, fmt.Errorf("unexpected argument %q; see: cairn-demo --help", flags.Arg(0))
	}
	if opts.parallel < 1 {
		return opts, fmt.Errorf("--parallel %d: must be at least 1", opts.parallel)
	}
	if opts.binary, err = filepath.Abs(opts.binary); err != nil {
		return opts, fmt.Errorf("--cairn: %w", err)
	}
	if _, err := os.Stat(opts.binary); err != nil {
		return opts, fmt.Errorf("the cairn binary: %w; make it with: make build", err)
	}
	return opts, nil
}
