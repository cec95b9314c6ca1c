package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
)

func newGet(p *plugin) *cobra.Command {
	var all bool
	var output string
	c := &cobra.Command{
		Use:   "get [LOCK...]",
		Short: "List locks, their leaders and who stands by",
		Long: `List the locks of a namespace: those that elector made, and those that pods contend for.

  FOR       since when the leader leads
  STANDBYS  the other candidates: how many are fit, of how many
  CHANGES   how often the leader changed; in leader-for-life nobody counts that
  NOTE      what is out of the ordinary

A LOCK is a name, or lease/NAME or configmap/NAME where both are locks.`,
		Example: example(
			"kubectl elector get                # of this namespace",
			"kubectl elector get -A -o wide     # of all, with fencing tokens",
			"kubectl elector get web -o json    # one, with its candidates",
		),
		ValidArgsFunction: p.completeLocks,
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(outputs, output) {
				return usagef("--output %q: use json, yaml, name or wide", output)
			}
			if all && len(args) > 0 {
				return usagef("--all-namespaces: a lock has a name in one namespace, leave one of them out")
			}
			api, err := access.Connect(p.flags)
			if err != nil {
				return err
			}
			namespace := api.Namespace
			if all {
				namespace = ""
			}
			found, err := locksOf(c.Context(), survey.Surveyor{API: api}, namespace, args)
			if err != nil {
				return err
			}
			for _, sentence := range found.Missing {
				p.warn("%s", sentence)
			}
			if len(found.Locks) == 0 && (output == "" || output == "wide") {
				where := fmt.Sprintf("in namespace %q; -A looks in all", namespace)
				if all {
					where = "in any namespace"
				}
				fmt.Fprintln(p.ErrOut, "There is no lock "+where+".")
				return nil
			}
			return write(p.Out, output, found.Locks, view{now: api.Now(), namespaces: all, one: len(args) == 1})
		},
	}
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	c.Flags().StringVarP(&output, "output", "o", "", "json, yaml, name or wide")
	return c
}

var outputs = []string{"", "json", "yaml", "name", "wide"}

// locksOf returns the locks that are named, or all.
func locksOf(ctx context.Context, s survey.Surveyor, namespace string, names []string) (*survey.Survey, error) {
	if len(names) == 0 {
		return s.All(ctx, namespace)
	}
	found := &survey.Survey{}
	for _, name := range names {
		l, missing, err := lockNamed(ctx, s, name)
		if err != nil {
			return nil, err
		}
		found.Locks = append(found.Locks, *l)
		for _, sentence := range missing {
			if !slices.Contains(found.Missing, sentence) {
				found.Missing = append(found.Missing, sentence)
			}
		}
	}
	return found, nil
}

// lockNamed returns the lock that a person names, in the namespace of the flags.
func lockNamed(ctx context.Context, s survey.Surveyor, name string) (l *survey.Lock, missing []string, err error) {
	ref, err := survey.Parse(name)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return s.One(ctx, s.API.Namespace, ref)
}

// view says how locks are shown.
type view struct {
	now        time.Time
	namespaces bool // there may be several
	one        bool // a single lock was asked for
}

func write(w io.Writer, output string, locks []survey.Lock, v view) error {
	switch output {
	case "name":
		for i := range locks {
			fmt.Fprintln(w, locks[i].Key())
		}
		return nil
	case "json", "yaml":
		var what any = map[string]any{"items": slices.Concat([]survey.Lock{}, locks)}
		if v.one {
			what = locks[0]
		}
		if output == "yaml" {
			text, err := yaml.Marshal(what)
			if err != nil {
				return fmt.Errorf("encoding locks: %w", err)
			}
			_, err = w.Write(text)
			return err
		}
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(what)
	}
	return writeTable(w, locks, v, output == "wide")
}

func writeTable(w io.Writer, locks []survey.Lock, v view, wide bool) error {
	table := printers.GetNewTabWriter(w)
	row := func(namespace string, cells []string, more []string, note string) {
		if v.namespaces {
			cells = slices.Concat([]string{namespace}, cells)
		}
		if wide {
			cells = slices.Concat(cells, more)
		}
		fmt.Fprintln(table, strings.TrimRight(strings.Join(append(cells, note), "\t"), "\t"))
	}
	row("NAMESPACE", []string{"LOCK", "MODE", "LEADER", "NODE", "FOR", "STANDBYS", "CHANGES"}, []string{"TOKEN", "LEASE", "RENEWED", "NEXT"}, "NOTE")
	for i := range locks {
		l := &locks[i]
		row(l.Namespace, []string{l.Name, string(l.Mode), or(l.Leader), or(l.Node), since(l.Since, v.now), standbys(l), changes(l)},
			[]string{token(l), lease(l), since(l.Renewed, v.now), or(strings.Join(l.Next, ","))}, l.Note)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return nil
}

// none stands for what there is not.
const none = "-"

func or(s string) string {
	if s == "" {
		return none
	}
	return s
}

func since(at *time.Time, now time.Time) string {
	if at == nil || at.IsZero() {
		return none
	}
	return duration.HumanDuration(max(now.Sub(*at), 0))
}

func standbys(l *survey.Lock) string {
	if l.Standbys == nil {
		return "?"
	}
	return fmt.Sprintf("%d/%d", *l.FitStandbys, *l.Standbys)
}

func changes(l *survey.Lock) string {
	if l.Changes == nil {
		return none
	}
	return strconv.Itoa(int(*l.Changes))
}

func token(l *survey.Lock) string {
	if l.Token == 0 {
		return none
	}
	return strconv.FormatUint(l.Token, 10)
}

func lease(l *survey.Lock) string {
	if l.LeaseSeconds == 0 {
		return none
	}
	return (time.Duration(l.LeaseSeconds) * time.Second).String()
}

// completionPatience is how long somebody who presses Tab waits.
const completionPatience = 3 * time.Second

// completeLocks completes the names of locks.
func (p *plugin) completeLocks(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
	defer cancel()
	api, err := access.Connect(p.flags)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found, err := survey.Surveyor{API: api}.All(ctx, api.Namespace)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return references(found.Locks, args, begun), cobra.ShellCompDirectiveNoFileComp
}

// references are the words for locks that begin so and are not there yet: their
// names, or lease/NAME and configmap/NAME where two have one name.
func references(locks []survey.Lock, args []string, begun string) []string {
	count := map[string]int{}
	for i := range locks {
		count[locks[i].Name]++
	}
	var words []string
	for i := range locks {
		word := locks[i].Name
		if count[word] > 1 || strings.Contains(begun, "/") {
			word = locks[i].Key().Short()
		}
		if strings.HasPrefix(word, begun) && !slices.Contains(args, word) {
			words = append(words, word)
		}
	}
	return words
}

// completeLock completes a single lock's name.
func (p *plugin) completeLock(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.completeLocks(c, args, begun)
}
