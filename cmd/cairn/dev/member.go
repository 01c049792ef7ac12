package dev

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn/cmd/cairn/node"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// member is one server with its files.
type member struct {
	name   string
	file   string // its configuration
	log    string
	config node.Config
}

// layOut makes the directories and configurations that are missing, and reads those that are there.
func layOut(cfg Config) ([]member, error) {
	var members []member
	for i := range cfg.Nodes {
		name := fmt.Sprintf("n%d", i+1)
		dir := filepath.Join(cfg.DataDir, name)
		m := member{name: name, file: filepath.Join(dir, "cairn.toml"), log: filepath.Join(dir, "server.log")}
		if err := os.MkdirAll(filepath.Join(dir, "pool"), 0o700); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
		if _, err := os.Stat(m.file); os.IsNotExist(err) {
			if err := writeConfig(m.file, dir, name, cfg.PoolSize); err != nil {
				return nil, err
			}
		} else if err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
		var err error
		if m.config, err = node.LoadConfig(m.file); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	return members, nil
}

// writeConfig writes a configuration with free ports of the loopback address. The ports stay the same afterwards.
func writeConfig(file, dir, name, poolSize string) error {
	var ports [3]int
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("free port: %w", err)
		}
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	text := fmt.Sprintf("name = %q\ndata_dir = %q\nlisten = \"127.0.0.1:%d\"\ngossip = \"127.0.0.1:%d\"\nhttp = \"127.0.0.1:%d\"\nzone = %q\n\n[[pool]]\nname = \"data\"\ndriver = \"dir\"\npath = %q\n",
		name, filepath.Join(dir, "data"), ports[0], ports[1], ports[2], "zone-"+name, filepath.Join(dir, "pool"))
	if poolSize != "" {
		text += fmt.Sprintf("max_size = %q\n", poolSize)
	}
	return replaceFile(file, []byte(text), 0o600)
}

func (m member) serve(executable string) (*tool.Process, error) {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	defer log.Close() // the child has its own descriptor
	return tool.Start(tool.Spec{
		Name: executable, Args: []string{"server", "--config", m.file}, Stdout: log, Stderr: log,
		OwnGroup: true, // Ctrl-C is for dev, which then stops its servers in order
	})
}

// stopTimeout is how long a server may take to hand over and end.
const stopTimeout = 10 * time.Second

// stopProcess asks the server to end and, when it takes too long, ends it.
func stopProcess(process *tool.Process) error {
	if err := process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-process.Done():
		return nil
	case <-timer.C:
		return process.Kill()
	}
}

func newToken(ctx context.Context, api *client.Client, name string) (string, error) {
	answer, err := api.Nodes().CreateNodeToken(ctx, &cairnv1.CreateNodeTokenRequest{Name: name})
	if err != nil {
		return "", err
	}
	return answer.GetToken(), nil
}

// nodeUp asks whether the cluster has the node as a member that is up.
func nodeUp(ctx context.Context, api *client.Client, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	answer, err := api.Nodes().GetNode(ctx, &cairnv1.GetNodeRequest{Node: name})
	if err != nil {
		return false, err
	}
	n := answer.GetNode()
	return n.GetState() == "up" && (n.GetRaftRole() == "leader" || n.GetRaftRole() == "voter" || strings.HasPrefix(n.GetRaftRole(), "non")), nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
