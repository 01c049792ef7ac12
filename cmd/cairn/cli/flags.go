package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// takes is the set of flags that mean something to a command.
type takes uint8

const (
	// prints: the result has forms.
	prints takes = 1 << iota
	// reads: the answer may be old.
	reads
	// inProject: names are those of a project.
	inProject
	// mutates: it can be tried without effect.
	mutates
	// waits: what is asked for takes a while.
	waits
	// destroys: it asks first.
	destroys
	// endless: it has no deadline unless one is given.
	endless
)

// flags are the flags that commands share.
type flags struct {
	config  string
	project string
	timeout time.Duration
	stale   bool
	output  outputFlags
	change  changeFlags
}

type outputFlags struct {
	style     string
	noHeaders bool
	exact     bool
}

type changeFlags struct {
	dryRun   bool
	wait     bool
	progress bool
	yes      bool
}

const (
	answerTimeout = 15 * time.Second
	waitTimeout   = 2 * time.Minute
)

func (f *flags) register(a *App, cmd *cobra.Command, has takes) {
	set := cmd.Flags()
	set.StringVar(&f.config, "config", "", "client configuration `FILE` (default $CAIRN_CONFIG, or ~/.config/cairn/config.toml)")
	switch {
	case has&endless != 0:
		set.DurationVar(&f.timeout, "timeout", 0, "end after this time; 0 is never")
	case has&waits != 0:
		set.DurationVar(&f.timeout, "timeout", waitTimeout, "give up waiting after this time")
	default:
		set.DurationVar(&f.timeout, "timeout", answerTimeout, "give up after this time")
	}
	if has&inProject != 0 {
		set.StringVar(&f.project, "project", "", "project of the names (default: that of the configuration)")
		mustComplete(cmd, "project", a.completeFlag(completeProjects))
	}
	if has&reads != 0 {
		set.BoolVar(&f.stale, "stale", false, "answer from the node's own copy, which may be old; works without a quorum")
	}
	if has&prints != 0 {
		f.output.register(cmd, set)
	}
	f.change.register(set, has)
}

func (f *outputFlags) register(cmd *cobra.Command, set *pflag.FlagSet) {
	f.style = "table"
	set.VarP(&choice{&f.style, outputStyles}, "output", "o", "`FORM` of the result: "+strings.Join(outputStyles, ", "))
	set.BoolVarP(&f.noHeaders, "no-headers", "H", false, "leave out the headers of tables")
	set.BoolVarP(&f.exact, "exact", "p", false, "exact values in tables: sizes in bytes, times as RFC 3339")
	mustComplete(cmd, "output", cobra.FixedCompletions(outputStyles, cobra.ShellCompDirectiveNoFileComp))
}

func (f *changeFlags) register(set *pflag.FlagSet, has takes) {
	if has&mutates != 0 {
		set.BoolVar(&f.dryRun, "dry-run", false, "let the leader check everything, and change nothing")
	}
	if has&waits != 0 {
		set.BoolVar(&f.wait, "wait", true, "wait until it is done; --wait=false returns when it is decided")
		set.BoolVar(&f.progress, "progress", false, "show progress on stderr as plain lines, also where that is no terminal")
	}
	if has&destroys != 0 {
		set.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	}
}

// mustComplete ties a completion to a flag that was registered a line ago.
func mustComplete(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // no such flag: a mistake in this package
	}
}

var outputStyles = []string{"table", "wide", "json", "yaml", "name"}

// choice is a flag with a few values.
type choice struct {
	value *string
	of    []string
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choice) Type() string { return "string" }

func (c *choice) Set(text string) error {
	if !slices.Contains(c.of, text) {
		return usagef("want one of %s", strings.Join(c.of, ", "))
	}
	*c.value = text
	return nil
}

// size is a flag for bytes with IEC units.
type size int64

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return cairn.FormatSize(int64(*s))
}

func (s *size) Type() string { return "SIZE" }

func (s *size) Set(text string) error {
	n, err := cairn.ParseSize(text)
	*s = size(n)
	return trimmed(err)
}

// trimmed takes the sentinel's own word off an error that becomes part of a sentence.
func trimmed(err error) error {
	if err == nil {
		return nil
	}
	return usagef("%s", strings.TrimSuffix(err.Error(), ": "+cairn.ErrInvalid.Error()))
}

// keyValues is a flag, and a list of arguments, of KEY=VALUE.
type keyValues map[string]string

func (k *keyValues) String() string {
	if k == nil {
		return ""
	}
	return strings.ReplaceAll(pairs(*k), "\n", ",")
}

func (k *keyValues) Type() string { return "KEY=VALUE" }

func (k *keyValues) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return usagef("%q: want KEY=VALUE", text)
	}
	if *k == nil {
		*k = keyValues{}
	}
	(*k)[key] = value
	return nil
}

func (r *request) mutation() *pb.Mutation { return &pb.Mutation{DryRun: r.flags.change.dryRun} }

func (r *request) read() *pb.Read { return &pb.Read{Stale: r.flags.stale} }
