package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	chaosfault "github.com/cairn-storage/cairn/chaos/fault"
	"github.com/cairn-storage/cairn/chaos/report"
	"github.com/cairn-storage/cairn/chaos/scenarios"
	"github.com/cairn-storage/cairn/chaos/validate"
	"github.com/cairn-storage/cairn/cmd/cairn/dev"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// chaosFlags are those of chaos run.
type chaosFlags struct {
	nodes    int
	duration time.Duration
	settle   time.Duration
	faults   []string
	// protocols are those that records are written over.
	protocols []string
	seed      uint64
	report    string
	existing  bool
	addr      string
	// dir and isolated are for the process that is started in namespaces of its own.
	dir      string
	isolated bool
}

func (a *App) chaos() *cobra.Command {
	return a.group("chaos", "Break a cluster on purpose, and check that it keeps its promises", a.chaosRun())
}

func (a *App) chaosRun() *cobra.Command {
	var f chaosFlags
	cmd := &cobra.Command{
		Use: "run", Short: "Run clients and faults, heal, and check everything that was promised",
		Example: "  cairn chaos run --nodes 5 --duration 60s --report chaos-report\n  cairn chaos run --faults kill,partition --seed 7\n  cairn chaos run --existing --duration 30s",
		Long: `Start a cluster of real server processes on this machine, have clients use everything that the API offers and write numbered
records to shares, do faults meanwhile, heal them, and check: the API is linearizable, no two copies were writable at once, no
acknowledged write is lost beyond what a failover said, snapshots are whole, disks hold what the state says, all nodes agree,
everything comes to rest, access rules hold, events have no gaps, tokens worked once. One seed decides topology, traffic, faults
and times; it is printed first. As root, servers get networks and disks of their own, in namespaces that end with the run, and with
Ganesha and btrfs one of the shares is served over NFS; what cannot be done otherwise is said.

With --existing the clients work against the cluster of the client configuration, in projects of their own whose names begin with
chaos-SEED; what they made is deleted afterwards. Nothing is done to that cluster but what --faults names of: transfer, drain.

Exit code 0 means that every check passed.

Faults: ` + strings.Join(chaosfault.Names(), ", ") + ".",
		Args: checkArgs(nil), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.existing = f.existing || f.addr != ""
			if !cmd.Flags().Changed("seed") {
				f.seed = uint64(a.Now().UnixNano()) % 1_000_000_000
			}
			if f.nodes < 1 || f.nodes > dev.MaxNodes || f.duration <= 0 || f.settle <= 0 {
				return usagef("chaos run: --nodes must be 1 to %d, --duration and --settle more than 0", dev.MaxNodes)
			}
			for _, protocol := range f.protocols {
				if !slices.Contains(chaosProtocols, protocol) {
					return usagef("chaos run: --protocols: %q is none of %s", protocol, strings.Join(chaosProtocols, ", "))
				}
			}
			return a.runChaos(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.nodes, "nodes", 3, "how many servers, 1 to 9")
	flags.DurationVar(&f.duration, "duration", time.Minute, "how long clients work and faults happen")
	flags.DurationVar(&f.settle, "settle", 30*time.Second, "how long it may take after the last fault until everything is at rest")
	flags.StringSliceVar(&f.faults, "faults", nil, "only these `FAULTS` (default: all that can be done)")
	flags.StringSliceVar(&f.protocols, "protocols", chaosProtocols, "what records are written over; webdav always is one of these `PROTOCOLS`")
	flags.Uint64Var(&f.seed, "seed", 0, "repeats the decisions of the run with that `SEED` (default: drawn)")
	flags.StringVar(&f.report, "report", "", "`DIR` for report.html, and for the servers' logs if something is wrong")
	flags.BoolVar(&f.existing, "existing", false, "use the cluster of the client configuration instead of a new one")
	flags.StringVar(&f.addr, "addr", "", "as --existing, with these `ADDRESSES` (host:port, separated by commas)")
	flags.StringVar(&f.dir, "dir", "", "directory for the servers")
	flags.BoolVar(&f.isolated, "isolated", false, "this process has namespaces of its own")
	for _, hidden := range []string{"dir", "isolated"} {
		_ = flags.MarkHidden(hidden) // was defined in the lines before
	}
	return cmd
}

// chaosProtocols are all that records can be written over.
var chaosProtocols = []string{string(cairn.ProtocolWebDAV), string(cairn.ProtocolNFS)}

// command repeats the run.
func (f chaosFlags) command() string {
	text := fmt.Sprintf("cairn chaos run --seed %d --duration %s", f.seed, f.duration)
	if f.existing {
		text += " --existing"
	} else {
		text += fmt.Sprintf(" --nodes %d", f.nodes)
	}
	if len(f.faults) > 0 {
		text += " --faults " + strings.Join(f.faults, ",")
	}
	if len(f.protocols) < len(chaosProtocols) {
		text += " --protocols " + strings.Join(f.protocols, ",")
	}
	return text
}

func (a *App) runChaos(ctx context.Context, f chaosFlags) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	program, err := executable()
	if err != nil {
		return err
	}
	if !f.isolated {
		fmt.Fprintf(a.Stdout, "seed %d; repeat with: %s\n", f.seed, f.command())
	}
	if f.dir == "" && !f.existing {
		if f.dir, err = os.MkdirTemp("", "cairn-chaos-"); err != nil {
			return fmt.Errorf("chaos: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(f.dir)) }()
		if os.Geteuid() == 0 {
			return a.isolate(ctx, program, f)
		}
	}
	cfg := scenarios.Config{
		Seed: f.seed, Nodes: f.nodes, Duration: f.duration, Faults: f.faults, Protocols: f.protocols, Dir: f.dir, Executable: program, Isolated: f.isolated,
		Limits: validate.Limits{Linear: time.Minute, Settle: f.settle}, Out: a.Stdout,
	}
	if f.existing {
		if err := a.existingCluster(f, &cfg); err != nil {
			return err
		}
	}
	result, err := scenarios.Run(ctx, cfg)
	return errors.Join(err, a.showChaos(f, result, err != nil))
}

// existingCluster is the one of the client configuration. Without names no fault is done to it.
func (a *App) existingCluster(f chaosFlags, cfg *scenarios.Config) error {
	client, err := a.clientConfig(&flags{})
	if err != nil {
		return err
	}
	if f.addr != "" {
		if client.Addresses, err = splitAddresses(f.addr); err != nil {
			return err
		}
	}
	cfg.External, cfg.Nodes = &client, len(client.Addresses)
	cfg.NoFaults = len(f.faults) == 0
	return nil
}

// isolate does the run in a process that has namespaces of its own.
func (a *App) isolate(ctx context.Context, program string, f chaosFlags) error {
	args := []string{
		"--mount", "--net", "--propagation", "private", "--", program, "chaos", "run", "--isolated", "--dir", f.dir,
		"--nodes", fmt.Sprint(f.nodes), "--duration", f.duration.String(), "--settle", f.settle.String(), "--seed", fmt.Sprint(f.seed),
		"--report", f.report, "--faults", strings.Join(f.faults, ","), "--protocols", strings.Join(f.protocols, ","),
	}
	process, err := tool.Start(tool.Spec{Name: "unshare", Args: args, Stdout: a.Stdout, Stderr: a.Stderr})
	if err != nil {
		return fmt.Errorf("chaos: namespaces: %w", err)
	}
	select {
	case <-process.Done():
	case <-ctx.Done():
		err := errors.Join(ctx.Err(), end(process))
		if f.report != "" {
			err = errors.Join(err, copyLogs(f.dir, f.report))
		}
		return err
	}
	if err := process.Wait(); err != nil {
		return fmt.Errorf("chaos: seed %d: %w", f.seed, err)
	}
	return nil
}

// endTimeout is how long a run may take to heal everything and to end.
const endTimeout = 20 * time.Second

// end asks a run to end, and makes it. Killed at once, what it answers for as a file system would have nobody to answer.
func end(process *tool.Process) error {
	if err := process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-process.Done():
		return nil
	case <-time.After(endTimeout):
		return process.Kill()
	}
}

// showChaos prints and writes what came of the run. A run that could not be finished has no verdicts.
func (a *App) showChaos(f chaosFlags, result scenarios.Result, unfinished bool) error {
	run := report.Run{
		Title: f.command(), Cannot: result.Cannot, Notes: result.Notes, History: result.History, Final: result.Final, Verdicts: result.Verdicts,
	}
	for _, step := range result.Plan {
		run.Plan = append(run.Plan, step.String())
	}
	for _, what := range result.Cannot {
		fmt.Fprintf(a.Stdout, "not done: %s\n", what)
	}
	if err := report.Text(a.Stdout, run); err != nil {
		return err
	}
	bad := result.Violations()
	if f.report != "" {
		if err := writeReport(f.report, run); err != nil {
			return err
		}
		if bad > 0 || unfinished {
			if err := copyLogs(f.dir, f.report); err != nil {
				return err
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("chaos: seed %d: %d violations; repeat with: %s: %w", f.seed, bad, f.command(), cairn.ErrCorrupt)
	}
	return nil
}

func writeReport(dir string, run report.Run) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	file, err := os.Create(filepath.Join(dir, "report.html"))
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return report.HTML(file, run)
}

// copyLogs saves what the servers said, before their directories are removed.
func copyLogs(dir, report string) error {
	if err := os.MkdirAll(report, 0o755); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "n*", "server.log"))
	if err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	for _, log := range logs {
		if err := copyFile(log, filepath.Join(report, filepath.Base(filepath.Dir(log))+".log")); err != nil {
			return fmt.Errorf("logs: %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}
