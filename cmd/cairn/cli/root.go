package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

const rootLong = `Cairn turns Linux machines with disks into a storage cluster.

Clients need a configuration, made by cairn cluster init, cairn user create or cairn dev: --config FILE, $CAIRN_CONFIG or
~/.config/cairn/config.toml, in this order. $CAIRN_ADDR (host:port, separated by commas) replaces its addresses.

Results go to stdout, everything else to stderr. -o chooses the form of a result: JSON is the proto JSON of the resource (a
list is an array), and -o name is what other commands take. Sizes are written 10GiB, 1.5TiB, or in plain bytes.

Exit codes: 0 ok; 2 usage; 3 not found; 4 conflict (exists, busy, in use); 5 precondition (state, quota, capacity, data loss,
not supported); 6 time-out or unknown outcome; 7 unavailable, nothing was changed; 130 interrupted; 1 anything else, such as
permission denied. An error is one line on stderr that says what, why and what to do.`

// usageTemplate is cobra's, without usage lines that only lead to an error.
const usageTemplate = `Usage:{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{else}}
  {{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

// root is the whole tree of commands.
func (a *App) root() *cobra.Command {
	root := a.group("cairn", "A storage cluster in one binary",
		a.server(), a.dev(), a.cluster(), a.node(), a.pool(), a.shareType(), a.share(), a.replica(), a.drill(), a.snapshotCommands(), a.access(), a.quota(),
		a.task(), a.user(), a.events(), a.why(), a.placement(), a.chaos(), a.completion(), a.version())
	root.Long = rootLong
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(a.help())
	unknown := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknown(cmd, args)
	}
	return root
}

// help is cobra's command, but an unknown topic is an error.
func (a *App) help() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND...]", Short: "Show the help of a command", Long: "Show the help of a command.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(topic, rest[0])
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		},
	}
}

func (a *App) completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a completion script for bash, zsh or fish",
		Long: `Print a completion script for bash, zsh or fish. Names of shares, nodes and so on are asked of the cluster while you type.

  bash:  source <(cairn completion bash)
  zsh:   source <(cairn completion zsh)
  fish:  cairn completion fish | source`,
		Args: checkArgs([]arg{{name: "SHELL"}}), ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.Stdout)
			case "fish":
				return cmd.Root().GenFishCompletion(a.Stdout, true)
			}
			return usagef("completion: shell %q: want one of %s", args[0], strings.Join(shells, ", "))
		},
	}
}

func (a *App) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Long: "Print the version of this program.",
		Args: checkArgs(nil), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.Stdout, versionLine())
			return err
		},
	}
}

// versionLine is what the Go tool built in.
func versionLine() string {
	version, revision := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				revision = " " + setting.Value
			}
		}
	}
	return fmt.Sprintf("cairn %s%s %s %s/%s", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
