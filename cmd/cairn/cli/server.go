package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cmd/cairn/dev"
	"github.com/cairn-storage/cairn/cmd/cairn/node"
)

// local makes a command that works on this machine with a server's configuration.
func (a *App) local(cmd *cobra.Command, args []arg, run func(ctx context.Context, cfg node.Config, args []string) error) *cobra.Command {
	var path string
	cmd.Use = usage(cmd.Use, args)
	cmd.Args = checkArgs(args)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if path == "" {
			return usagef("%s: --config is missing; give the server's configuration file", where(cmd))
		}
		cfg, err := node.LoadConfig(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("configuration %s: no such file; give the one that the server is run with", path)
		}
		if err != nil {
			return err
		}
		return run(cmd.Context(), cfg, args)
	}
	cmd.Flags().StringVar(&path, "config", "", "the server's configuration `FILE` (TOML)")
	return cmd
}

func (a *App) server() *cobra.Command {
	return a.local(&cobra.Command{
		Use: "server", Short: "Run one node", Example: "  cairn server --config /etc/cairn/cairn.toml",
		Long: `Run one node of a cluster until it is stopped with SIGTERM or SIGINT. Before the first start the machine must have become a
member: with cairn cluster init, or with cairn node join. The log goes to stderr.`,
	}, nil, func(ctx context.Context, cfg node.Config, _ []string) error {
		return node.Run(ctx, cfg, cfg.Log.NewLogger(a.Stderr))
	})
}

func (a *App) nodeJoin() *cobra.Command {
	return a.local(&cobra.Command{
		Use: "join", Short: "Make this machine a member, with a token", Example: "  cairn node join - --config /etc/cairn/cairn.toml < token",
		Long: `Make this machine a member of a cluster, with a token from cairn node token create. It may be repeated until it succeeds; the
token is used up by the first machine that does. TOKEN is a secret: "-" reads it from stdin, where no list of processes shows
it. Then start the node with cairn server.`,
	}, []arg{{name: "TOKEN"}}, func(ctx context.Context, cfg node.Config, args []string) error {
		token := args[0]
		if token == "-" {
			text, err := io.ReadAll(io.LimitReader(a.Stdin, 1<<16))
			if err != nil {
				return fmt.Errorf("token: %w", err)
			}
			token = strings.TrimSpace(string(text))
		}
		ctx, cancel := context.WithTimeout(ctx, waitTimeout)
		defer cancel()
		if err := node.Join(ctx, cfg, token); err != nil {
			return err
		}
		a.notef("this machine is a member now; start it with: cairn server --config FILE")
		return nil
	})
}

func (a *App) clusterInit() *cobra.Command {
	var name, out string
	var force bool
	var patience int
	cmd := a.local(&cobra.Command{
		Use: "init", Short: "Make a new cluster with this machine as its first node",
		Example: "  cairn cluster init --config /etc/cairn/cairn.toml --name berlin",
		Long: `Make a new cluster with this machine as its first node: its CA, its keys, and the first administrator, whose client
configuration is written beside the data directory, or to --out, readable by its owner only. Its path is printed. Then start
the node with cairn server.`,
	}, nil, func(ctx context.Context, cfg node.Config, _ []string) (err error) {
		if err := cairn.CheckName("cluster", name); err != nil {
			return err
		}
		if out == "" {
			out = adminFile(cfg.DataDir)
		}
		done := func() {
			fmt.Fprintln(a.Stdout, out)
			a.notef("start the node with: cairn server --config FILE; then use the cluster with: export CAIRN_CONFIG=%s", out)
		}
		file, err := openSecret(out, force)
		if errors.Is(err, cairn.ErrExists) && initialised(cfg, name, out, patience) {
			done()
			return nil
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.close()) }()
		bundle, err := node.InitCluster(cfg, name, patience)
		if err != nil {
			return err
		}
		// failpoint: cluster-made
		if err := file.commit(bundle); err != nil {
			return err
		}
		// failpoint: secret-committed
		done()
		return nil
	})
	cmd.Flags().StringVar(&name, "name", "cairn", "`NAME` of the cluster")
	cmd.Flags().StringVar(&out, "out", "", "`FILE` for the administrator's configuration (default: cairn-admin.toml beside the data directory)")
	cmd.Flags().BoolVar(&force, "force", false, "replace that file if it is there")
	cmd.Flags().IntVar(&patience, "patience", 1, "nodes wait `N` times as long for each other, and failovers take as much longer; for slow machines and links, and for good")
	return cmd
}

// initialised reports whether the file is what an earlier run of the same init wrote, which was killed before it could say so.
func initialised(cfg node.Config, name, out string, patience int) bool {
	if joined, err := node.Joined(cfg); err != nil || !joined {
		return false
	}
	bundle, err := node.InitCluster(cfg, name, patience)
	if err != nil {
		return false
	}
	there, err := os.ReadFile(out)
	return err == nil && bytes.Equal(there, bundle)
}

func (a *App) dev() *cobra.Command {
	var nodes int
	var dataDir, poolSize string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a real cluster on this machine",
		Example: "  cairn dev --nodes 3 --data-dir ~/.cairn-dev > dev.env &\n  . ./dev.env",
		Long: `Run a real cluster on this machine: server processes with their own directories and ports on the loopback address. When it is
ready, stdout gets two lines to evaluate in a shell: export CAIRN_CONFIG=… and export CAIRN_ADDR=…. The cluster ends with this
command, and what is in the data directory is used again next time.`,
		Args: checkArgs(nil), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dataDir == "" {
				return usagef("dev: --data-dir is missing; give a directory for the cluster, such as --data-dir ~/.cairn-dev")
			}
			program, err := executable()
			if err != nil {
				return err
			}
			return dev.Run(cmd.Context(), dev.Config{
				Nodes: nodes, DataDir: dataDir, Executable: program, Out: a.Stdout, Progress: a.Stderr, PoolSize: poolSize,
			})
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how many, 1 to 9")
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "`DIR` for the cluster; made if it is missing")
	cmd.Flags().StringVar(&poolSize, "pool-size", "", "`SIZE` that the pool of each node offers (default: the whole file system)")
	return cmd
}

// adminFile is where cluster init writes the first administrator's configuration unless --out says otherwise.
func adminFile(dataDir string) string {
	return filepath.Join(filepath.Dir(filepath.Clean(dataDir)), "cairn-admin.toml")
}

func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("this program: %w", err)
	}
	return path, nil
}
