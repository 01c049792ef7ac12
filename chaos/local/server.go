package local

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// Every server has the same ports, on an address of its own.
const (
	apiPort    = "7450"
	gossipPort = "7451"
	httpPort   = "7452"
)

// Server is one server process with its files. The process may come and go.
type Server struct {
	Name string
	Host string // its loopback address
	// NFSHost is its address in the network of clients of NFS; "": it has no NFS server, and its pool is a directory.
	NFSHost string
	// PoolSpace is where this process looks at what is in the pool, if it answers for the pool's file system itself; "": in PoolDir.
	PoolSpace string
	Dir       string // of everything below
	File      string // configuration
	Log       string

	executable string
	ahead      atomic.Int64                 // see SetClock
	process    atomic.Pointer[tool.Process] // the one that was started last; nil before
}

// Address is where the server answers gRPC.
func (s *Server) Address() string { return net.JoinHostPort(s.Host, apiPort) }

// HTTPAddress is where the server answers WebDAV.
func (s *Server) HTTPAddress() string { return net.JoinHostPort(s.Host, httpPort) }

// Zone is the server's failure domain, which it has for itself.
func (s *Server) Zone() string { return "zone-" + s.Name }

// Disk is the directory for the data directory alone: where a test mounts a file system.
func (s *Server) Disk() string { return filepath.Join(s.Dir, "disk") }

// DataDir holds identity and Raft log.
func (s *Server) DataDir() string { return filepath.Join(s.Disk(), "data") }

// ToolDir is where programs lie that the server is to run in the place of the machine's, if there are any.
func (s *Server) ToolDir() string { return filepath.Join(s.Dir, "tools") }

// PoolDir is the server's only pool, named "data".
func (s *Server) PoolDir() string { return filepath.Join(s.Dir, "pool") }

// PoolFiles is where this process finds what is in the pool.
func (s *Server) PoolFiles() string { return cmp.Or(s.PoolSpace, s.PoolDir()) }

// Impostor is another machine that claims to be this server: the same name and addresses, and disks of its own. It is never to be
// started. remove takes its files away.
func (s *Server) Impostor() (impostor *Server, remove func() error, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(s.Dir), s.Name+"-impostor-")
	if err != nil {
		return nil, nil, fmt.Errorf("impostor: %w", err)
	}
	impostor = &Server{Name: s.Name, Host: s.Host, NFSHost: s.NFSHost, Dir: dir, File: filepath.Join(dir, "cairn.toml"), Log: filepath.Join(dir, "server.log"), executable: s.executable}
	return impostor, func() error { return os.RemoveAll(dir) }, impostor.writeConfig("")
}

func (s *Server) writeConfig(poolSize string) error {
	for _, dir := range []string{s.Disk(), s.PoolDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("server %s: %w", s.Name, err)
		}
	}
	text := fmt.Sprintf(`name = %q
data_dir = %q
listen = %q
gossip = %q
http = %q
zone = %q
`, s.Name, s.DataDir(), s.Address(), net.JoinHostPort(s.Host, gossipPort), s.HTTPAddress(), s.Zone())
	driver := "dir"
	if s.NFSHost != "" {
		driver = "btrfs"
		text += fmt.Sprintf("[nfs]\nserver = \"ganesha\"\naddresses = [%q]\ngrace = \"3s\"\nsubvolumes = true\n", s.NFSHost)
	}
	text += fmt.Sprintf("[[pool]]\nname = \"data\"\ndriver = %q\npath = %q\n", driver, s.PoolDir())
	if poolSize != "" {
		text += fmt.Sprintf("max_size = %q\n", poolSize)
	}
	if err := os.WriteFile(s.File, []byte(text), 0o600); err != nil {
		return fmt.Errorf("server %s: %w", s.Name, err)
	}
	return nil
}

// Start starts the process; what it says goes to the end of Log. Of a server that runs it is an error.
func (s *Server) Start() error {
	if s.Running() {
		return fmt.Errorf("server %s: runs already", s.Name)
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("server %s: %w", s.Name, err)
	}
	defer log.Close() // the child has its own descriptor
	name, args := withClock(s.Clock(), s.executable, []string{"server", "--config", s.File})
	process, err := tool.Start(tool.Spec{
		Name: name, Args: args, Env: []string{"PATH=" + s.ToolDir() + ":" + os.Getenv("PATH")}, Stdout: log, Stderr: log, OwnGroup: true,
	})
	if err != nil {
		return fmt.Errorf("server %s: %w", s.Name, err)
	}
	s.process.Store(process)
	return nil
}

// Started reports whether there has been a process.
func (s *Server) Started() bool { return s.process.Load() != nil }

// Running reports whether the process is there.
func (s *Server) Running() bool {
	process := s.process.Load()
	if process == nil {
		return false
	}
	select {
	case <-process.Done():
		return false
	default:
		return true
	}
}

// Pid is the number of the process that was started last.
func (s *Server) Pid() int { return s.process.Load().Pid() }

// Kill ends the process with SIGKILL and waits for its end.
func (s *Server) Kill() error {
	if !s.Running() {
		return nil
	}
	return s.process.Load().Kill()
}

// Signal sends a signal, such as SIGSTOP, to the process.
func (s *Server) Signal(signal syscall.Signal) error { return s.process.Load().Signal(signal) }

// Stop asks the process to end and waits until it has, or ctx ends.
func (s *Server) Stop(ctx context.Context) error {
	if !s.Running() {
		return nil
	}
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.Wait(ctx)
}

// Wait waits for the end of the process. An exit code other than 0 is an error with the last line of the log.
func (s *Server) Wait(ctx context.Context) error {
	process := s.process.Load()
	select {
	case <-process.Done():
	case <-ctx.Done():
		return fmt.Errorf("server %s: has not ended: %w", s.Name, ctx.Err())
	}
	if err := process.Wait(); err != nil {
		return fmt.Errorf("server %s: %w; its log ends with: %s", s.Name, err, s.LastLine())
	}
	return nil
}

// ended is the error of a server that should be running.
func (s *Server) ended() error {
	return fmt.Errorf("server %s: has ended; its log ends with: %s", s.Name, s.LastLine())
}

// LastLine is the end of the log: where a server says why it gave up.
func (s *Server) LastLine() string {
	data, err := os.ReadFile(s.Log)
	if err != nil {
		return err.Error()
	}
	data = bytes.TrimSpace(data)
	return string(data[bytes.LastIndexByte(data, '\n')+1:])
}

func firstLine(text []byte) []byte {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.TrimSpace(line)
}

// Objects lists what lies in the pool, finished or not, besides the pool's own mark.
func (s *Server) Objects() ([]string, error) {
	var objects []string
	for _, dir := range []string{"", workDir} {
		entries, err := os.ReadDir(filepath.Join(s.PoolFiles(), dir))
		if errors.Is(err, fs.ErrNotExist) && dir != "" {
			continue // nothing has been made or removed yet
		} else if err != nil {
			return nil, fmt.Errorf("pool of %s: %w", s.Name, err)
		}
		for _, entry := range entries {
			if name := filepath.Join(dir, entry.Name()); name != workDir && name != poolMark {
				objects = append(objects, name)
			}
		}
	}
	return objects, nil
}

// SnapshotDir is where the files of a snapshot are.
func (s *Server) SnapshotDir(replica, snapshot string) string {
	dir := filepath.Join(s.PoolFiles(), replica, "snapshots", snapshot)
	if s.NFSHost != "" {
		dir = filepath.Join(dir, "files") // on btrfs it has uploads in progress beside them
	}
	return dir
}

// What packages drivers/dir and drivers/btrfs keep in the root of a pool for themselves.
const (
	poolMark = ".cairn-pool"
	workDir  = ".cairn-work"
)

// Everything lists replicas, what each holds beside its data as replica/snapshots/snapshot, and whatever else is in the pool. Sorted.
func (s *Server) Everything() ([]string, error) {
	all, err := s.Objects()
	if err != nil {
		return nil, err
	}
	dirs := []string{"snapshots", "work", "staging", "revert"}
	if s.NFSHost != "" {
		dirs = []string{"snapshots", "receive", "aside"}
	}
	for _, replica := range slices.Clone(all) {
		for _, dir := range dirs {
			inside, err := s.Inside(replica, dir)
			if err != nil {
				return nil, err
			}
			all = append(all, inside...)
		}
	}
	slices.Sort(all)
	return all, nil
}

// Inside lists what lies in a directory of an object, with the whole path in the pool. An object without it holds nothing.
func (s *Server) Inside(object, dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.PoolFiles(), object, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pool of %s: %w", s.Name, err)
	}
	var inside []string
	for _, entry := range entries {
		inside = append(inside, filepath.Join(object, dir, entry.Name()))
	}
	return inside, nil
}
