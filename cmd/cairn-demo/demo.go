package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
)

// The one share of the demonstration, its snapshot and its user.
const (
	shareName    = "sources"
	snapshotName = "before"
	userName     = "alice"
)

// timeout bounds the whole demonstration. It is not reached unless something hangs.
const timeout = 5 * time.Minute

// demo is one run.
type demo struct {
	options
	stage
	dir   string
	began time.Time

	source   tree
	files    *dav.Client // the share, as alice
	original manifest    // what was uploaded
	current  manifest    // what the share must hold now
	bytes    int64       // uploaded
	failover local.Failover
	beside   *takeover // goes on beside other steps
}

// step is one thing that is shown. done says in a line what was found.
type step struct {
	title string
	run   func(ctx context.Context) (done string, err error)
}

func (d *demo) steps() []step {
	return []step{
		{"three servers become a cluster: init, two join tokens, two joins", d.form},
		{"a share, and a user who may write it", d.makeShare},
		{"upload every file over WebDAV, TLS verified against the cluster's CA", d.upload},
		{"cut a snapshot", d.snapshot},
		{"damage the files: overwrite, delete, add, rename directories", d.damage},
		{"kill -9 the Raft leader while the share is read and written", d.killLeader},
		{"start the killed server again, and read everything back meanwhile: every acknowledged write is there, nothing else", d.restart},
		{"revert the share to the snapshot; a replicated share is made and written meanwhile, see step 11", d.revert},
		{"download every file and compare every byte with what was uploaded", d.readReverted},
		{"read the snapshot itself, mounted read-only", d.readSnapshot},
		{"beside that: kill -9 the server of the replicated share; another one takes over, and what is missing is found again", d.tellTakeover},
		{"delete everything: nothing is left in any pool", d.remove},
	}
}

func (d *demo) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	if d.source, err = findTree(ctx, d.options.source); err != nil {
		return err
	}
	if err := d.checkSpace(); err != nil {
		return err
	}
	d.printf("%d files, %s, from %s; working in %s", len(d.source.files), cairn.FormatSize(d.source.bytes), d.source.root, d.dir)
	defer func() {
		cancel()
		if d.beside != nil {
			<-d.beside.done
		}
	}()
	steps := d.steps()
	for i, step := range steps {
		d.printf("\n[%2d/%d] %s", i+1, len(steps), step.title)
		began := time.Now()
		done, err := step.run(ctx)
		if err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, step.title, err)
		}
		for line := range strings.SplitSeq(done, "\n") {
			d.printf("        %s", line)
		}
		d.printf("        ok, %s", round(time.Since(began)))
	}
	d.printf("\neverything was as it should be, in %s", round(time.Since(d.began)))
	return nil
}

// result is the last line.
func (d *demo) result() any {
	return struct {
		Demo       string `json:"demo"`
		Files      int    `json:"files"`
		Bytes      int64  `json:"bytes"`
		FailoverMS int64  `json:"failover_ms"`
		PromoteMS  int64  `json:"promote_ms"`
		Lost       int    `json:"records_lost"`
		RPOMS      int64  `json:"rpo_ms"`
	}{
		"ok", len(d.original), d.bytes, d.failover.Took.Milliseconds(),
		d.beside.took.Milliseconds(), len(d.beside.lost.records), d.beside.window.Milliseconds(),
	}
}

// copies is how often the data is on the disk at once, at most: the share, its snapshot, and a revert that is being prepared.
const copies = 3

// checkSpace refuses to begin what a full disk would end.
func (d *demo) checkSpace() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(d.dir, &stat); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	free, wanted := int64(stat.Bavail)*stat.Bsize, copies*d.source.bytes+1<<30
	if free < wanted {
		return fmt.Errorf("working directory %s: %s are free and %s are needed; choose another with --dir", d.dir, cairn.FormatSize(free), cairn.FormatSize(wanted))
	}
	return nil
}

// cleanUp ends the servers and removes everything. With --keep it waits for Ctrl-C first, and leaves the files.
func (d *demo) cleanUp(ctx context.Context) error {
	if d.files != nil {
		d.files.Close()
	}
	if d.keep && d.cluster != nil {
		d.printf("\nkept: servers and files in %s; Ctrl-C ends the servers", d.dir)
		<-ctx.Done()
	}
	if d.cluster != nil {
		if err := d.cluster.Close(); err != nil {
			return err
		}
	}
	if d.keep {
		return nil
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

func round(t time.Duration) time.Duration {
	if t < time.Second {
		return t.Round(time.Millisecond)
	}
	return t.Round(10 * time.Millisecond)
}

// relative shows a path in the working directory without that.
func (d *demo) relative(path string) string {
	if rest, err := filepath.Rel(d.dir, path); err == nil {
		return rest
	}
	return path
}
