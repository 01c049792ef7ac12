// Package dev runs a real cluster on one machine: n server processes with their own directories and ports on loopback, made by
// the same steps that an operator takes. It knows nothing that an operator could not do by hand.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cmd/cairn/node"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/rpc/client"
)

// Config says what to run.
type Config struct {
	Nodes      int       // 1 to MaxNodes
	DataDir    string    // made if it is missing; a cluster that is there is started again
	Executable string    // the cairn binary
	Out        io.Writer // gets the two export lines, when the cluster is ready
	Progress   io.Writer // gets a line for every step
	PoolSize   string    // what each node's pool offers; empty means the whole file system
}

// MaxNodes is as many as make sense on one machine.
const MaxNodes = 9

// startTimeout bounds each step of the start: a server that does not answer by then has a reason in its log.
const startTimeout = 60 * time.Second

// Run starts the cluster and serves until the context ends or a server stops by itself. Everything is idempotent: what an
// interrupted start left behind is used by the next one.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Nodes < 1 || cfg.Nodes > MaxNodes {
		return fmt.Errorf("nodes %d: must be 1 to %d: %w", cfg.Nodes, MaxNodes, cairn.ErrInvalid)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	cfg.DataDir = dir
	cluster := &cluster{config: cfg, admin: filepath.Join(dir, "admin.toml")}
	defer cluster.stop()
	if err := cluster.start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(cfg.Out, "export CAIRN_CONFIG=%s\nexport CAIRN_ADDR=%s\n", shellQuote(cluster.admin), strings.Join(cluster.addresses(), ","))
	return cluster.wait(ctx)
}

// cluster is the members and their processes.
type cluster struct {
	config    Config
	admin     string // client configuration of the first user
	members   []member
	processes []*tool.Process // of the member with the same index; nil while it does not run
}

// start starts the members that belong to the cluster already, all of them before the first is waited for, because one alone
// may have no quorum; then it adds the others.
func (c *cluster) start(ctx context.Context) error {
	var err error
	if c.members, err = layOut(c.config); err != nil {
		return err
	}
	c.processes = make([]*tool.Process, len(c.members))
	if err := c.found(c.members[0]); err != nil {
		return fmt.Errorf("node %s: %w", c.members[0].name, err)
	}
	for i := range c.members {
		joined, err := node.Joined(c.members[i].config)
		if err == nil && joined {
			err = c.serve(i)
		}
		if err != nil {
			return fmt.Errorf("node %s: %w", c.members[i].name, err)
		}
	}
	for i, m := range c.members {
		if c.processes[i] == nil {
			if err := c.join(ctx, m); err != nil {
				return fmt.Errorf("node %s: %w", m.name, err)
			}
			if err := c.serve(i); err != nil {
				return fmt.Errorf("node %s: %w", m.name, err)
			}
		}
		if err := c.awaitUp(ctx, m, c.processes[i]); err != nil {
			return fmt.Errorf("node %s: %w", m.name, err)
		}
	}
	return nil
}

// found makes the cluster, unless an earlier run did.
func (c *cluster) found(first member) error {
	joined, err := node.Joined(first.config)
	if err != nil {
		return err
	}
	if !joined {
		c.progress("making a new cluster in %s", c.config.DataDir)
		if _, err := node.InitCluster(first.config, "dev", 1); err != nil {
			return err
		}
	}
	return c.writeClientFiles(first)
}

// join makes the member part of the cluster with a token of its own.
func (c *cluster) join(ctx context.Context, m member) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	api, err := c.dial()
	if err != nil {
		return err
	}
	defer api.Close()
	c.progress("joining %s with a token", m.name)
	token, err := newToken(ctx, api, m.name)
	if err != nil {
		return err
	}
	return node.Join(ctx, m.config, token)
}

func (c *cluster) serve(i int) error {
	m := c.members[i]
	c.progress("starting %s on %s, log in %s", m.name, m.config.Listen, m.log)
	process, err := m.serve(c.config.Executable)
	c.processes[i] = process
	return err
}

// writeClientFiles writes the administrator's client configuration and, for tools like curl, the CA by itself. It does so at
// every start: the first member keeps what they are made of.
func (c *cluster) writeClientFiles(first member) error {
	bundle, err := node.AdminConfig(first.config)
	if err != nil {
		return err
	}
	if err := replaceFile(c.admin, bundle, 0o600); err != nil {
		return err
	}
	cfg, err := client.LoadConfig(c.admin)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(c.config.DataDir, "ca.pem"), cfg.CA, 0o644)
}

// awaitUp waits until the cluster says that the node is up. A process that ends first is told with the end of its log.
func (c *cluster) awaitUp(ctx context.Context, m member, process *tool.Process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	api, err := c.dial()
	if err != nil {
		return err
	}
	defer api.Close()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		up, err := nodeUp(ctx, api, m.name)
		if up {
			return nil
		}
		select {
		case <-process.Done():
			return fmt.Errorf("the server ended: %s: %w", lastLine(m.log), cairn.ErrUnavailable)
		case <-ctx.Done():
			return fmt.Errorf("is not up after %s: %w", startTimeout, errors.Join(err, ctx.Err()))
		case <-ticker.C:
		}
	}
}

func (c *cluster) dial() (*client.Client, error) {
	cfg, err := client.LoadConfig(c.admin)
	if err != nil {
		return nil, err
	}
	cfg.Addresses = c.addresses()
	return client.Dial(cfg)
}

// addresses are those of the members that have been started.
func (c *cluster) addresses() []string {
	var all []string
	for i, process := range c.processes {
		if process != nil {
			all = append(all, c.members[i].config.Listen)
		}
	}
	return all
}

// wait returns when the context ends, which is how a person stops the cluster, or when a server ends by itself.
func (c *cluster) wait(ctx context.Context) error {
	ended := make(chan int, len(c.processes))
	for i, process := range c.processes {
		go func() {
			<-process.Done()
			ended <- i
		}()
	}
	for running := len(c.processes); running > 0; running-- {
		select {
		case <-ctx.Done():
			return nil
		case i := <-ended:
			c.progress("%s ended: %s", c.members[i].name, lastLine(c.members[i].log))
		}
	}
	return fmt.Errorf("every server has ended: %w", cairn.ErrUnavailable)
}

// stop ends the servers all at once: one after the other would lose the quorum half way and wait for it.
func (c *cluster) stop() {
	var stopping sync.WaitGroup
	for i, process := range c.processes {
		if process == nil {
			continue
		}
		stopping.Go(func() {
			if err := stopProcess(process); err != nil {
				c.progress("%s: %v", c.members[i].name, err)
			}
		})
	}
	stopping.Wait()
}

func (c *cluster) progress(format string, args ...any) {
	fmt.Fprintf(c.config.Progress, format+"\n", args...)
}

// shellQuote makes one word of a path for a POSIX shell.
func shellQuote(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func lastLine(log string) string {
	data, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}
