package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
)

func newDescribe(p *plugin) *cobra.Command {
	return &cobra.Command{
		Use:   "describe LOCK",
		Short: "Tell all about a lock, its candidates and its history",
		Long: `Tell all about a lock: who holds it and since when, who contends, which of them are fit and what the others
lack, and what Events say of the leaders before. Events are forgotten after an hour, as the API server is
usually set up.`,
		Example:           example("kubectl elector describe web", "kubectl elector describe configmap/web-lock -n shop"),
		Args:              oneLock,
		ValidArgsFunction: p.completeLock,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := access.Connect(p.flags)
			if err != nil {
				return err
			}
			s := survey.Surveyor{API: api}
			l, missing, err := lockNamed(c.Context(), s, args[0])
			if err != nil {
				return err
			}
			history, err := s.History(c.Context(), l)
			switch {
			case access.IsDenied(err):
				missing = append(missing, err.Error())
			case err != nil:
				return err
			}
			for _, sentence := range missing {
				p.warn("%s", sentence)
			}
			return describe(p.Out, l, history, api.Now())
		},
	}
}

func describe(w io.Writer, l *survey.Lock, history []survey.Event, now time.Time) error {
	table := printers.GetNewTabWriter(w)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s:\t%s\n", name, value)
		}
	}
	field("Lock", l.Key().String())
	field("Namespace", l.Namespace)
	field("Mode", string(l.Mode))
	field("Leader", leaderLine(l, now))
	if l.Token != 0 {
		field("Fencing token", token(l))
	}
	if l.LeaseSeconds != 0 {
		field("Lease", fmt.Sprintf("%s, renewed %s ago", lease(l), since(l.Renewed, now)))
	}
	field("Changes", changes(l))
	field("Next", strings.Join(l.Next, ", "))
	field("Handover", l.Handover)
	field("Note", l.Note)
	if l.Standbys != nil {
		fmt.Fprintf(table, "Candidates:\t%d, of which %d stand by and are fit\n", len(l.Candidates), *l.FitStandbys)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	table = printers.GetNewTabWriter(w)
	if len(l.Candidates) > 0 {
		fmt.Fprintln(table, "  NAME\tROLE\tNODE\tFIT\tAGE\tSIDECAR\tWHY")
	}
	for i := range l.Candidates {
		candidate := &l.Candidates[i]
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", candidate.Name, candidate.Role, or(candidate.Node), candidate.State,
			since(&candidate.Created, now), or(candidate.Sidecar), candidate.Why)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if len(history) == 0 {
		fmt.Fprintln(w, "Events:         none")
		return nil
	}
	fmt.Fprintln(w, "Events:")
	table = printers.GetNewTabWriter(w)
	fmt.Fprintln(table, "  AGE\tREASON\tOBJECT\tMESSAGE")
	for _, e := range history {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", duration.HumanDuration(max(now.Sub(e.At), 0)), e.Reason, e.Object, e.Message)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

func leaderLine(l *survey.Lock, now time.Time) string {
	if l.Leader == "" {
		return "none"
	}
	line := l.Leader
	if l.Node != "" {
		line += " on " + l.Node
	}
	if l.Since != nil {
		line += " for " + since(l.Since, now)
	}
	return line
}
