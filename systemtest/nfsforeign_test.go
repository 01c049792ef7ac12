package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// foreign puts an NFS server that Cairn has not started in the place of the active replica's, with the same exports. The gate
// is kept shut before it although the node holds its lease: no client gets to it. When it goes, the node's own server comes back.
func (s *fencedNFS) foreign() {
	s.t.Helper()
	s.record(1)
	home := s.host()
	server := s.replaceNFS(home)
	s.await(time.Minute, "a closed gate before a server that is not ours", func(ctx context.Context) (bool, error) {
		open, err := gateIsOpen(ctx, home)
		return !open, err
	})
	s.reads(home.Name, "127.0.0.1") // it serves, behind the gate
	out, through := inside(s.t.Context(), clientName, "nfs-cat", s.url(home.Host, s.records[0]))
	open, err := gateIsOpen(s.t.Context(), home)
	s.check(server.Kill())
	s.reads(clientName, serviceAddress)
	switch {
	case s.host() != home: // this machine was too slow for a lease, and then the server is nobody's
		s.t.Logf("the share has moved to %s meanwhile: nothing is known of the gate", s.host().Name)
	case through == nil:
		s.t.Errorf("a client was let through to a server that is not ours: %q", out)
	case open || err != nil:
		s.t.Errorf("the gate: open %t, %v", open, err)
	}
}

// reads waits until a client in a namespace reads the first record at an address. Servers start again later and later, and have
// a grace period.
func (s *fencedNFS) reads(namespace, address string) {
	s.t.Helper()
	s.await(3*time.Minute, "a read in "+namespace+" at "+address, func(ctx context.Context) (bool, error) {
		out, err := inside(ctx, namespace, "nfs-cat", s.url(address, s.records[0]))
		return out == content(0), err
	})
}

// replaceNFS ends a node's Ganesha and starts another one with the same exports before it is back.
func (s *fencedNFS) replaceNFS(home *local.Server) *tool.Process {
	s.t.Helper()
	own, dir := filepath.Join(home.DataDir(), "ganesha"), s.t.TempDir()
	text, err := os.ReadFile(filepath.Join(own, "ganesha.conf"))
	s.check(err)
	config := filepath.Join(dir, "ganesha.conf")
	s.check(os.WriteFile(config, []byte(strings.ReplaceAll(string(text), filepath.Join(own, "recovery"), dir)), 0o600))
	var server *tool.Process
	s.await(time.Minute, "another server on the port", func(ctx context.Context) (bool, error) {
		if err := killNFS(filepath.Join(own, "ganesha.pid")); err != nil {
			return false, err
		}
		log, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			return false, err
		}
		defer log.Close()
		server, err = tool.Start(tool.Spec{
			Name: "ip", Args: []string{"netns", "exec", home.Name, "ganesha.nfsd", "-F", "-f", config, "-p", filepath.Join(dir, "pid"), "-L", "STDERR"},
			Stdout: log, Stderr: log, OwnGroup: true,
		})
		if err != nil {
			return false, err
		}
		for ctx.Err() == nil {
			said, err := os.ReadFile(log.Name())
			if err != nil || strings.Contains(string(said), "NFS SERVER INITIALIZED") {
				return err == nil, err
			}
			select {
			case <-server.Done():
				return false, fmt.Errorf("ours was back first: %w", server.Wait())
			case <-time.After(10 * time.Millisecond):
			}
		}
		return false, errors.Join(ctx.Err(), server.Kill())
	})
	s.t.Cleanup(func() {
		if err := server.Kill(); err != nil {
			s.t.Error(err)
		}
	})
	return server
}

// killNFS kills the Ganesha whose number is in a file, unless it has ended.
func killNFS(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(name) != "ganesha.nfsd\n" {
		return nil // the number may be somebody else's by now
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// gateIsOpen looks into the packet filter of a node.
func gateIsOpen(ctx context.Context, home *local.Server) (bool, error) {
	out, err := run(ctx, "ip", "netns", "exec", home.Name, "nft", "list", "set", "inet", "cairn_nfs", "open")
	return strings.Contains(out, "elements"), err
}
