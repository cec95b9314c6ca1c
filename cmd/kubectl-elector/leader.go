package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
)

func newLeader(p *plugin) *cobra.Command {
	return &cobra.Command{
		Use:   "leader LOCK",
		Short: "Print the name of the pod that leads",
		Long: `Print the name of the pod that leads, and nothing else, for other commands.

It is the name in the lock. If its lease has run out without a renewal, there is a warning on stderr: the
leader is gone, or the clocks of its node and of the API server differ. If the lock is free, or what it says
cannot be the name of a pod, there is no output, and the exit code is 1.`,
		Example: example(
			`kubectl exec $(kubectl elector leader web) -- cat /var/run/elector/status.json`,
			`kubectl logs -f $(kubectl elector leader web)`,
		),
		Args:              oneLock,
		ValidArgsFunction: p.completeLock,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := access.Connect(p.flags)
			if err != nil {
				return err
			}
			l, _, err := lockNamed(c.Context(), survey.Surveyor{API: api}, args[0])
			if err != nil {
				return err
			}
			name, err := nameOfLeader(l)
			if err != nil {
				return err
			}
			if now := api.Now(); l.Late(now) > 0 {
				p.warn("%s has not renewed the lock for %s, and promised to do so every %s: if the clocks are right, nobody leads",
					name, duration.HumanDuration(now.Sub(*l.Renewed)), lease(l))
			}
			fmt.Fprintln(p.Out, name)
			return nil
		},
	}
}

// nameOfLeader is a word that a shell and kubectl take for the name of a pod and for
// nothing else, such as a flag: whoever may write the lock chooses it.
func nameOfLeader(l *survey.Lock) (string, error) {
	switch {
	case l.Leader == "":
		return "", fmt.Errorf("nobody leads %s", l.Name)
	case len(validation.IsDNS1123Subdomain(l.Leader)) > 0:
		return "", fmt.Errorf("%q leads %s, and is no name of a pod: look who wrote it into the lock", l.Leader, l.Name)
	}
	return l.Leader, nil
}

// oneLock says which argument is missing, or too much.
func oneLock(c *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usagef("name a lock: %s; `kubectl elector get` lists them", c.UseLine())
	case 1:
		return nil
	}
	return usagef("name one lock, not %d: %s", len(args), c.UseLine())
}
