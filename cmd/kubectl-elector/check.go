package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/checkup"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
)

func newCheck(p *plugin) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "check",
		Short: "Look for what is wrong, and say the way out",
		Long: `Look for what is wrong with the installation, and with the elections of the namespace: the API server, the
webhook and its certificate, the manager, admission (by the dry run of a pod), policies, rights, locks, pods,
workloads whose annotations nobody reads, clocks, versions.

Nothing is changed. What may not be looked at is "unknown". With a fault, the exit code is 1.`,
		Example: example("kubectl elector check", "kubectl elector check -n shop -o json"),
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return usagef("--output %q: use json", output)
			}
			api, err := access.Connect(p.flags)
			if err != nil {
				return err
			}
			findings, err := (&checkup.Checkup{Surveyor: survey.Surveyor{API: api}, Version: version, Namespace: api.Namespace}).Run(c.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(p.Out)
				encoder.SetIndent("", "  ")
				encoder.SetEscapeHTML(false)
				if err := encoder.Encode(map[string]any{"findings": findings}); err != nil {
					return fmt.Errorf("encoding the findings: %w", err)
				}
			}
			faults := 0
			for _, f := range findings {
				if f.Level == checkup.Fault {
					faults++
				}
				if output == "json" {
					continue
				}
				fmt.Fprintf(p.Out, "%-8s  %-10s  %s\n", f.Level, f.About, f.What)
				if f.WayOut != "" {
					fmt.Fprintf(p.Out, "%-8s  %-10s  -> %s\n", "", "", f.WayOut)
				}
			}
			if faults > 0 {
				return fmt.Errorf("faults: %d", faults)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json")
	return c
}

// noArgs says which argument is too much.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is too much: %s", args[0], c.UseLine())
	}
	return nil
}
