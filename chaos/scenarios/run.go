package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn/chaos/fault"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/network"
	"github.com/cairn-storage/cairn/chaos/nfs"
	"github.com/cairn-storage/cairn/chaos/traffic"
	"github.com/cairn-storage/cairn/chaos/validate"
	"github.com/cairn-storage/cairn/rpc/client"
)

// Config is a run.
type Config struct {
	Seed       uint64
	Nodes      int           // of a cluster of its own
	Duration   time.Duration // of the traffic
	Faults     []string      // names; all that can be done if empty
	NoFaults   bool
	Protocols  []string // that records are written over; WebDAV always is one of them
	Dir        string   // for the servers of its own; must be there and empty
	Executable string   // the cairn binary
	// Isolated says that this process has network and mount namespaces of its own, as root: then networks and disks can fail.
	Isolated bool
	// External is a cluster that runs already; nil: one of its own.
	External *client.Config
	Limits   validate.Limits
	Out      io.Writer // gets a line for whatever happens
}

// Result is what came of it.
type Result struct {
	Config   Config
	Plan     []Step
	Cannot   []string // what was not done or not checked, and why
	Notes    []string // what went otherwise than it should without being a violation
	History  model.History
	Final    model.Final
	Verdicts []validate.Verdict
	Began    time.Time
}

// Violations are those of all checks.
func (r Result) Violations() int {
	n := 0
	for _, v := range r.Verdicts {
		n += len(v.Violations)
	}
	return n
}

// run is one in progress.
type run struct {
	Config
	world   *fault.World
	traffic *traffic.Traffic
	api     client.Config
	result  *Result
	mu      sync.Mutex
	// subvolumes is what Ganeshas find the pools' data by; nil without NFS.
	subvolumes *nfs.Subvolumes
}

// overhead is how long a run may take beyond its traffic and its rest: to make the cluster, heal it, and look at everything.
const overhead = 5 * time.Minute

// Run does it all. An error means that the run could not be made or be finished; what is wrong with the cluster is in the result.
func Run(ctx context.Context, cfg Config) (result Result, err error) {
	limit := cfg.Duration + cfg.Limits.Settle + overhead
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("run: not over after %s", limit))
	defer cancel()
	r := &run{Config: cfg, result: &Result{Config: cfg, Began: time.Now()}}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	if err := r.lay(ctx); err != nil {
		return *r.result, err
	}
	faults, cannot, err := r.world.Choose(cfg.Faults)
	if err != nil {
		return *r.result, err
	}
	r.result.Cannot = append(r.result.Cannot, cannot...)
	if cfg.NoFaults {
		faults = nil
	}
	r.result.Plan = Plan(cfg.Seed, cfg.Nodes, cfg.Duration, faults)
	if err := r.makeTraffic(ctx); err != nil {
		return *r.result, err
	}
	r.say("%d clients' worth of traffic for %s, %d faults", r.slots()*2, cfg.Duration, len(r.result.Plan))
	r.traffic.Start(ctx)
	err = r.disturb(ctx)
	healed := r.traffic.Now()
	r.traffic.Stop()
	if err != nil {
		return *r.result, err
	}
	if err := r.inspect(ctx, healed); err != nil {
		return *r.result, err
	}
	r.judge()
	return *r.result, nil
}

func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := time.Since(r.result.Began)
	if r.traffic != nil {
		at = r.traffic.Now()
	}
	fmt.Fprintf(r.Out, "%8.3fs  %s\n", at.Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) note(format string, args ...any) {
	r.say(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Notes = append(r.result.Notes, fmt.Sprintf(format, args...))
}

// lay makes the cluster.
func (r *run) lay(ctx context.Context) error {
	r.world = &fault.World{Log: r.note}
	overNFS := r.chooseNFS(ctx)
	if r.External != nil {
		r.api = *r.External
		r.result.Cannot = append(r.result.Cannot, "disks and rows, snapshots on disks, what is kept, rules from other addresses: not looked at, since the servers are somebody else's")
		return nil
	}
	config := local.Config{Dir: r.Dir, Executable: r.Executable}
	var err error
	if r.Isolated {
		if r.world.Network, err = network.New(ctx, r.Nodes); err != nil {
			return err
		}
		config.Base = netip.MustParseAddr(network.Base)
		if config.Executable, err = network.Wrap(r.Executable, r.Dir); err != nil {
			return err
		}
	}
	if overNFS {
		if err := r.layNFS(ctx, &config); err != nil {
			return err
		}
	}
	if r.world.Cluster, err = local.New(config); err != nil {
		return err
	}
	for range r.Nodes {
		if _, err := r.world.Cluster.Prepare(); err != nil {
			return err
		}
	}
	if r.Isolated {
		if r.world.Disks, err = fault.Mount(ctx, r.world.Cluster.Servers()); err != nil {
			return err
		}
	}
	if overNFS {
		if err := r.listSubvolumes(ctx); err != nil {
			return err
		}
		if r.world.Tools, err = fault.LayTools(r.world.Cluster.Servers()); err != nil {
			return err
		}
	}
	r.layClocks(ctx)
	if r.Nodes >= 4 {
		r.world.Guest = r.world.Cluster.Servers()[r.Nodes-1].Name
	}
	if err := r.world.Cluster.Start(ctx, r.Nodes); err != nil {
		return err
	}
	r.api, err = r.world.Cluster.ClientConfig()
	return err
}

// layClocks finds out whether servers can have clocks of their own. If they cannot, the faults that need that are not done; why, is said.
func (r *run) layClocks(ctx context.Context) {
	if !r.Isolated {
		return
	}
	if err := local.CheckClocks(ctx); err != nil {
		r.result.Cannot = append(r.result.Cannot, fmt.Sprintf("clocks of the servers' own: %v", err))
		return
	}
	r.world.Clocks = true
}

// sources are how many addresses access rules are about.
const sources = 3

func (r *run) slots() int { return 3 }

func (r *run) makeTraffic(ctx context.Context) error {
	cfg := traffic.Config{
		API: r.api, Prefix: fmt.Sprintf("chaos-%d", r.Seed), Seed: r.Seed, Slots: r.slots(), Shares: 2, Replicas: min(r.Nodes, 3), Pause: 120 * time.Millisecond,
		NFS: r.nfsTraffic(),
	}
	switch {
	case r.External != nil:
		cfg.Sources = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} // nobody's: rules are changed, and not tried
	case r.world.Network != nil:
		var err error
		if cfg.Sources, err = r.world.Network.Sources(ctx, sources); err != nil {
			return err
		}
	default:
		cfg.Sources = []string{"127.9.0.1", "127.9.0.2", "127.9.0.3"}
	}
	if r.world.Guest != "" {
		cfg.Zone = r.world.Cluster.Servers()[0].Zone() // what has one copy must not be where a disk is taken away
	}
	var err error
	if r.traffic, err = traffic.New(ctx, cfg); err != nil {
		return err
	}
	r.world.API = r.traffic.API()
	return nil
}

// disturb does what is planned, and returns when the time is up and everything is healed.
func (r *run) disturb(ctx context.Context) error {
	for _, step := range r.result.Plan {
		local.Pause(ctx, step.At-r.traffic.Now())
		first := r.victim(ctx, step.Victim, nil)
		var group sync.WaitGroup
		var errs [2]error
		group.Go(func() { errs[0] = r.fault(ctx, step, first) })
		if step.With != nil {
			group.Go(func() { errs[1] = r.fault(ctx, *step.With, r.victim(ctx, step.With.Victim, first)) })
		}
		group.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	local.Pause(ctx, max(r.Duration-r.traffic.Now(), time.Second))
	return ctx.Err()
}

// healTimeout is when a fault that cannot be ended ends the run.
const healTimeout = 2 * time.Minute

// fault does one fault, waits, and heals it.
func (r *run) fault(ctx context.Context, step Step, target *local.Server) error {
	f := model.Fault{Kind: step.Fault.Name, Target: r.target(step.Fault, target), From: r.traffic.Now()}
	r.say("%s: %s", f.Target, f.Kind)
	within, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	heal, err := step.Fault.Inject(within, r.world, target, newRandom(step.Seed))
	if err != nil {
		r.note("%s of %s was not done completely: %v", f.Kind, f.Target, err)
	} else {
		local.Pause(ctx, step.Hold)
	}
	if heal != nil {
		err := local.Await(context.WithoutCancel(within), "the end of "+f.Kind+" of "+f.Target, func(ctx context.Context) (bool, error) {
			ctx, cancel := context.WithTimeout(ctx, healTimeout)
			defer cancel()
			err := heal(ctx)
			return err == nil, err
		})
		if err != nil {
			return err
		}
	}
	f.To = r.traffic.Now()
	r.traffic.Fault(f)
	r.say("%s: %s is over", f.Target, f.Kind)
	return nil
}

// target names what a fault happens to.
func (r *run) target(f fault.Fault, victim *local.Server) string {
	switch {
	case f.Needs == fault.NeedsGuest:
		return r.world.Guest
	case victim == nil || f.Most == 0: // over when it has been done: of all servers
		return "the cluster"
	}
	return victim.Name
}

// victim is who that is now, but not the server besides, which has a fault already. Of somebody else's cluster it is nobody.
func (r *run) victim(ctx context.Context, v Victim, besides *local.Server) *local.Server {
	if r.world.Cluster == nil {
		return nil
	}
	servers := r.world.Cluster.Servers()
	chosen := servers[v.Place]
	switch v.Role {
	case "leader":
		if s := r.leader(ctx); s != nil {
			chosen = s
		}
	case "active":
		if s := r.active(ctx, v.Place); s != nil {
			chosen = s
		}
	}
	for i := range servers {
		if chosen == besides {
			chosen = servers[(v.Place+i)%len(servers)]
		}
	}
	return chosen
}

// close leaves nothing behind in somebody else's cluster, however the run has ended.
func (r *run) close(ctx context.Context) error {
	var errs []error
	if r.traffic != nil && r.External != nil {
		errs = append(errs, r.traffic.Remove(context.WithoutCancel(ctx)))
	}
	if r.traffic != nil {
		errs = append(errs, r.traffic.Close())
	}
	if r.world != nil && r.world.Disks != nil {
		r.world.Disks.Heal()
	}
	if r.world != nil && r.world.Cluster != nil {
		errs = append(errs, r.world.Cluster.Close())
	}
	if r.subvolumes != nil { // it looks into the pools
		errs = append(errs, r.subvolumes.Close())
	}
	if r.world != nil && r.world.Disks != nil {
		errs = append(errs, r.world.Disks.Close())
	}
	return errors.Join(errs...)
}

func (r *run) judge() {
	r.result.History.Takeovers = takeovers(r.result.Final.Streams, r.traffic.Shares(), r.result.History.Acks)
	r.result.Verdicts = validate.All(r.result.History, r.result.Final, r.Limits)
	answers := validate.Verdict{Check: "answers", Looked: len(r.result.History.Operations)}
	for _, odd := range r.traffic.Odd() {
		answers.Violations = append(answers.Violations, validate.Violation{Subject: "a client was told", Message: odd})
	}
	r.result.Verdicts = append(r.result.Verdicts, answers, r.panics())
}

// panics looks for what servers say only when something is broken beyond repair.
func (r *run) panics() validate.Verdict {
	v := validate.Verdict{Check: "no panics"}
	if r.world.Cluster == nil {
		return v
	}
	for _, s := range r.world.Cluster.Servers() {
		v.Looked++
		text, err := os.ReadFile(s.Log)
		if err != nil {
			v.Violations = append(v.Violations, validate.Violation{Subject: s.Name, Message: err.Error()})
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") {
				v.Violations = append(v.Violations, validate.Violation{Subject: s.Name, Message: strings.TrimSpace(line)})
			}
		}
	}
	return v
}
