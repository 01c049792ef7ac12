package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/client"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// request is one run of a command against the cluster: its flags, and every method of the API.
type request struct {
	*App
	api
	flags *flags
}

// api is the services of a cluster under one name.
type api struct {
	pb.ShareServiceClient
	pb.ReplicaServiceClient
	pb.SnapshotServiceClient
	pb.AccessServiceClient
	pb.TypeServiceClient
	pb.QuotaServiceClient
	pb.TaskServiceClient
	pb.UserServiceClient
	pb.EventServiceClient
	pb.ClusterServiceClient
	pb.NodeServiceClient
	pb.PoolServiceClient
	client *client.Client
	// config is what the client was made of. Its project goes into every request that names none.
	config client.Config
}

// connect reads the client's configuration and prepares the connection; nothing is sent yet.
func (a *App) connect(f *flags) (*request, error) {
	cfg, err := a.clientConfig(f)
	if err != nil {
		return nil, err
	}
	c, err := a.Dial(cfg)
	if err != nil {
		return nil, err
	}
	return &request{App: a, flags: f, api: api{
		c.Shares(), c.Replicas(), c.Snapshots(), c.Access(), c.Types(), c.Quotas(), c.Tasks(), c.Users(), c.Events(), c.Cluster(), c.Nodes(), c.Pools(),
		c, cfg,
	}}, nil
}

func (r *request) close() error { return r.client.Close() }

// clientConfig is the client's configuration: from --config, $CAIRN_CONFIG or the home directory, in this order; $CAIRN_ADDR
// and --project replace what it says.
func (a *App) clientConfig(f *flags) (client.Config, error) {
	path, err := a.clientConfigPath(f)
	if err != nil {
		return client.Config{}, err
	}
	cfg, err := client.LoadConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, usagef("client configuration %s: does not exist; set CAIRN_CONFIG or pass --config with a file made by cairn cluster init or cairn user create", path)
	}
	if err != nil {
		return cfg, err
	}
	if list := a.Getenv("CAIRN_ADDR"); list != "" {
		if cfg.Addresses, err = splitAddresses(list); err != nil {
			return cfg, err
		}
	}
	if f.project != "" {
		cfg.Project = f.project
	}
	return cfg, nil
}

func (a *App) clientConfigPath(f *flags) (string, error) {
	if f.config != "" {
		return f.config, nil
	}
	if path := a.Getenv("CAIRN_CONFIG"); path != "" {
		return path, nil
	}
	if home := a.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "cairn", "config.toml"), nil
	}
	return "", usagef("client configuration: neither CAIRN_CONFIG nor HOME is set; set CAIRN_CONFIG or pass --config")
}

func splitAddresses(list string) ([]string, error) {
	var addresses []string
	for _, address := range strings.Split(list, ",") {
		if address = strings.TrimSpace(address); address != "" {
			addresses = append(addresses, address)
		}
	}
	if len(addresses) == 0 {
		return nil, usagef("CAIRN_ADDR %q: names no address; set it to host:port, separated by commas", list)
	}
	return addresses, nil
}

// bare takes "share/" off "share/docs", so that what -o name prints can be given to other commands.
func bare(kind cairn.Kind, name string) string { return strings.TrimPrefix(name, string(kind)+"/") }

// print writes the result in the form that -o asks for.
func (r *request) print(res result) error {
	p := printer{
		format: format{exact: r.flags.output.exact, now: r.Now()},
		style:  r.flags.output.style, headers: !r.flags.output.noHeaders, terminal: r.Terminal(r.Stdout),
	}
	return p.print(r.Stdout, r.Stderr, res)
}

// would says what a dry run found, and reports whether this is one.
func (r *request) would(format string, args ...any) bool {
	if r.flags.change.dryRun {
		r.notef("would %s", fmt.Sprintf(format, args...))
	}
	return r.flags.change.dryRun
}

// ofProject completes "no shares" for an empty list.
func (r *request) ofProject(none string) string {
	switch project := r.config.Project; project {
	case "", "*":
		return none
	default:
		return none + " in project " + project
	}
}
