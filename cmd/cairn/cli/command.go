package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// spec describes one command that talks to the cluster. Usage, the check of its arguments and completion come from args.
type spec struct {
	use     string
	args    []arg
	short   string
	long    string
	example string
	takes   takes
	run     func(ctx context.Context, r *request, args []string) error
}

// arg is an argument: "SHARE" must be there, "[SHARE]" may, "RULE..." may repeat and be absent.
type arg struct {
	name     string
	complete completer
}

func (a arg) optional() bool { return strings.HasPrefix(a.name, "[") || a.repeats() }
func (a arg) repeats() bool  { return strings.HasSuffix(a.name, "...") }

// command makes the command.
func (a *App) command(s spec) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: usage(s.use, s.args), Short: s.short, Long: s.long, Example: indent(s.example),
		Args: checkArgs(s.args),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd.Context(), f, cmd.Flags().Changed("timeout"), s, args)
		},
		ValidArgsFunction: a.completeArgs(s.args),
	}
	if cmd.Long == "" {
		cmd.Long = s.short + "."
	}
	f.register(a, cmd, s.takes)
	return cmd
}

// call runs the command against the cluster. --timeout bounds it as a whole if it is given. By default it bounds the waiting
// only: a cluster that does not answer is given up much sooner, by the client.
func (a *App) call(ctx context.Context, f *flags, given bool, s spec, args []string) error {
	if f.timeout < 0 {
		return usagef("--timeout %s: must be more than 0", f.timeout)
	}
	if f.timeout > 0 && (given || s.takes&waits == 0) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	r, err := a.connect(f)
	if err != nil {
		return err
	}
	return errorOf(s.run(ctx, r, args), r.close())
}

// errorOf is the first error; a connection that does not close does not undo what was answered.
func errorOf(err, closing error) error {
	if err != nil {
		return err
	}
	if closing != nil {
		return fmt.Errorf("connection: %w", closing)
	}
	return nil
}

// group makes a command that only has commands below it.
func (a *App) group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: short + ".",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			var names []string
			for _, child := range cmd.Commands() {
				names = append(names, child.Name())
			}
			return usagef("%s: a command is missing; one of: %s", where(cmd), strings.Join(names, ", "))
		},
	}
	cmd.AddCommand(children...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, typed string) error {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(typed); len(near) > 0 {
		return usagef("%s: unknown command %q; did you mean %s?", where(cmd), typed, strings.Join(near, " or "))
	}
	return usagef("%s: unknown command %q; see: %s --help", where(cmd), typed, cmd.CommandPath())
}

// where names a command in an error, which begins with the program's name anyway.
func where(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return "command line"
	}
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// flagError is what cobra calls for flags that cannot be parsed. Below a group the flag belongs to a command that does not
// exist, and that is what is wrong.
func flagError(cmd *cobra.Command, err error) error {
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return unknownCommand(cmd, cmd.Flags().Arg(0))
	}
	if err == pflag.ErrHelp {
		return err
	}
	return usagef("%s: %s; see: %s --help", where(cmd), err, cmd.CommandPath())
}

// usage is the line that shows how a command is written.
func usage(use string, args []arg) string {
	for _, arg := range args {
		use += " " + arg.name
	}
	return use
}

// checkArgs refuses too few and too many arguments, and empty ones: those are variables of a script that were not set.
func checkArgs(want []arg) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		path, how := where(cmd), usage(cmd.CommandPath(), want)
		repeats := len(want) > 0 && want[len(want)-1].repeats()
		for i, value := range args {
			if i >= len(want) && !repeats {
				return usagef("%s: unexpected argument %q; usage: %s", path, value, how)
			}
			if value == "" {
				return usagef("%s: %s is empty; usage: %s", path, want[min(i, len(want)-1)].name, how)
			}
		}
		if len(args) < len(want) && !want[len(args)].optional() {
			return usagef("%s: %s is missing; usage: %s", path, want[len(args)].name, how)
		}
		return nil
	}
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}
