package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func newRoot(p *plugin) *cobra.Command {
	root := &cobra.Command{
		Use:         "kubectl-elector",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl elector"},
		Short:       "See and steer who leads",
		Long: `See and steer who leads among the pods that elector elects.

It does what its user may do, and asks nobody but the API server.`,
		SilenceErrors: true, SilenceUsage: true,
		Version: version,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.ErrOut)
	p.flags.AddFlags(root.PersistentFlags())
	root.SetUsageTemplate(usageTemplate)
	root.AddCommand(
		newGet(p),
		newDescribe(p),
		newLeader(p),
		newSwitchover(p),
		newCheck(p),
		newInject(p),
		newUninject(p),
		newEntrypoint(p),
		newVersion(p),
		newOptions(),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	describeCompletion(root)
	return root
}

// usageTemplate is cobra's, with the examples last and without the two dozen
// flags that every command has: they are kubectl's, and people know them.
const usageTemplate = `Usage:
{{- if .Runnable}}
  {{.UseLine}}{{end}}
{{- if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND [flags]

Commands:
{{- range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}{{if .HasParent}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}

{{if .HasAvailableSubCommands}}"{{.CommandPath}} COMMAND --help" says more about a command, {{end -}}
"kubectl elector options" lists the flags that all commands have.
`

// newOptions is kubectl's way to keep the flags of all commands out of every help.
func newOptions() *cobra.Command {
	return &cobra.Command{
		Use:   "options",
		Short: "List the flags that all commands have",
		Long:  "List the flags that all commands have. They are kubectl's own.",
		Args:  cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			c.Printf("These flags can be given to every command:\n\n%s", c.InheritedFlags().FlagUsages())
		},
	}
}

// describeCompletion tells how kubectl finds the completion of a plugin, which
// cobra's text about shells does not.
func describeCompletion(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Short = "Write the completion script of a shell"
		c.Long = `Write the completion script of a shell, for the program kubectl-elector.

For "kubectl elector" kubectl looks in the PATH for a program kubectl_complete-elector.
These two lines are one:

    #!/bin/sh
    exec kubectl elector __complete "$@"`
	}
}

// example is text for cobra.Command.Example: an indented block without the margin
// that the source has.
func example(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }
