package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/terminal"
	"github.com/elector-io/elector/elector"
)

func newSwitchover(p *plugin) *cobra.Command {
	o := switchover{timeout: time.Minute}
	c := &cobra.Command{
		Use:   "switchover LOCK",
		Short: "Let another candidate lead",
		Long: `Ask the leader to hand over, and wait until another candidate leads.

The leader first tells its application that it does not lead any more, waits until that has ended its work,
and then frees the lock. With --to the others leave the lock to that pod for up to a second; if it does not
take it, any other does, and the exit code is 1.

The request is the annotation ` + elector.HandoverAnnotation + ` on the lock, with your name in it. It takes the right to patch
the lock: who has it could overwrite the holder as well. It names the present claim, so it can't take effect
later, and it is taken back when the time is up.`,
		Example: example(
			"kubectl elector switchover web",
			"kubectl elector switchover web --to web-2",
			"kubectl elector switchover web --to web-2 --force    # although web-2 is not fit",
		),
		Args:              oneLock,
		ValidArgsFunction: p.completeLock,
		RunE: func(c *cobra.Command, args []string) error {
			if o.timeout <= 0 {
				return usagef("--timeout %s: it must be above 0, such as 1m", o.timeout)
			}
			api, err := access.Connect(p.flags)
			if err != nil {
				return err
			}
			o.Surveyor = survey.Surveyor{API: api}
			l, missing, err := lockNamed(c.Context(), o.Surveyor, args[0])
			if err != nil {
				return err
			}
			for _, sentence := range missing {
				p.warn("%s", sentence)
			}
			if err := o.refusal(l); err != nil {
				return err
			}
			if l.Handover != "" {
				p.warn("this replaces a handover that was %s", l.Handover)
			}
			began := time.Now()
			next, err := o.run(c.Context(), l)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.Out, "%s handed %s over to %s in %s.\n", l.Leader, l.Name, next.Leader, time.Since(began).Round(100*time.Millisecond))
			return nil
		},
	}
	c.Flags().StringVar(&o.to, "to", "", "name of the pod that is to lead; only in mode lease")
	_ = c.RegisterFlagCompletionFunc("to", p.completeStandbys) // it fails for a flag that is not there
	c.Flags().BoolVar(&o.force, "force", false, "also to a pod that is not fit, or when no standby is")
	c.Flags().DurationVar(&o.timeout, "timeout", o.timeout, "how long to wait")
	return c
}

// switchover is one.
type switchover struct {
	survey.Surveyor
	to      string
	force   bool
	timeout time.Duration
}

// refusal says why the handover is not asked for.
func (o *switchover) refusal(l *survey.Lock) error {
	switch {
	case l.Leader == "":
		return fmt.Errorf("nobody leads %s, so nobody can hand it over: a fit candidate takes a free lock by itself", l.Name)
	case !l.Elected:
		return fmt.Errorf("%s, which leads %s, was not elected by elector: it does not know of handovers", l.Leader, l.Name)
	case o.to != "" && l.Mode == elector.ModeLeaderForLife:
		return fmt.Errorf("--to %q: in leader-for-life nobody can be chosen, whoever makes the lock anew leads: leave --to out", o.to)
	case o.to == l.Leader:
		return fmt.Errorf("%s leads %s already", o.to, l.Name)
	case l.Standbys == nil && !o.force:
		return errors.New("whether another candidate is fit is not known, because pods cannot be read: --force hands over all the same")
	case l.Standbys == nil:
		return nil
	case *l.Standbys == 0 && (o.to != "" || !o.force):
		return fmt.Errorf("nobody else contends for %s: %s would lead again", l.Name, l.Leader)
	case o.to != "":
		return o.unfit(l)
	case *l.FitStandbys == 0 && !o.force:
		return fmt.Errorf("no standby of %s is fit, `kubectl elector describe %[1]s` says why: --force hands over all the same", l.Name)
	}
	return nil
}

// unfit says why the pod that is to lead should not.
func (o *switchover) unfit(l *survey.Lock) error {
	var names []string
	for i := range l.Candidates {
		c := &l.Candidates[i]
		switch {
		case c.Name == o.to && !c.Fit() && !o.force:
			return fmt.Errorf("%s is not fit, %s: --force hands over all the same", o.to, c.Why)
		case c.Name == o.to:
			return nil
		case c.Name != l.Leader:
			names = append(names, c.Name)
		}
	}
	shown := names[:min(len(names), maxNames)]
	more := ""
	if len(shown) < len(names) {
		more = fmt.Sprintf(" and %d others do", len(names)-len(shown))
	}
	return fmt.Errorf("%q does not contend for %s, but %s%s", o.to, l.Name, strings.Join(shown, ", "), more)
}

// maxNames is how many names are worth reading.
const maxNames = 8

// look is the pause between two looks at the lock.
const look = 100 * time.Millisecond

// run asks for the handover and waits for it. If it does not happen, the request is
// taken back.
func (o *switchover) run(ctx context.Context, l *survey.Lock) (*survey.Lock, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	// The token is noted with the first renewal.
	now, err := o.await(waiting, l, func(now *survey.Lock) bool { return now.Token != 0 || !now.HeldBy(l) })
	switch {
	case errors.Is(err, errTimeout) && now.Token == 0:
		return nil, fmt.Errorf("%s leads %s and has not noted its fencing token within %s: it does not renew, look at its sidecar", l.Leader, l.Name, o.timeout)
	case errors.Is(err, errTimeout):
		return nil, fmt.Errorf("the API server did not answer within %s, and nobody was asked", o.timeout)
	case err != nil:
		return nil, err
	case !now.HeldBy(l):
		return nil, fmt.Errorf("%s has just stopped leading %s, and was not asked", l.Leader, l.Name)
	}
	request := elector.Handover{Token: now.Token, To: cmp.Or(o.to, fittest(l)), Why: why(o.API.User(ctx))}
	if err := request.Validate(); err != nil {
		return nil, usageError{err}
	}
	if err := o.annotate(ctx, l, new(request.String())); err != nil {
		return nil, err
	}
	token := now.Token
	now, err = o.await(waiting, l, func(now *survey.Lock) bool {
		return now.Leader != "" && (!now.HeldBy(l) || now.Elected && now.Token != 0 && now.Token != token)
	})
	if err != nil {
		return nil, o.explain(err, now, l, o.withdraw(context.WithoutCancel(ctx), now, request))
	}
	switch {
	case now.HeldBy(l):
		return nil, fmt.Errorf("%s handed %s over, and leads again: nobody else took it", l.Leader, l.Name)
	case o.to != "" && now.Leader != o.to:
		return nil, fmt.Errorf("%s handed %s over, but %s took it, and not %s", l.Leader, l.Name, now.Leader, o.to)
	}
	return now, nil
}

// fittest is a standby that is to go first because others are not fit, and would
// be as quick. In leader-for-life nobody can be chosen.
func fittest(l *survey.Lock) string {
	if l.Mode == elector.ModeLeaderForLife || l.Standbys == nil || *l.FitStandbys == *l.Standbys {
		return ""
	}
	for i := range l.Candidates {
		if c := &l.Candidates[i]; c.Fit() && c.Name != l.Leader {
			return c.Name
		}
	}
	return ""
}

// errTimeout ends the waiting.
var errTimeout = errors.New("the time is up")

// await reads the lock until it is as wanted. With an error it returns the lock as
// it was seen last.
func (o *switchover) await(ctx context.Context, last *survey.Lock, wanted func(*survey.Lock) bool) (*survey.Lock, error) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		now, err := o.Read(ctx, last.Key())
		switch {
		case ctx.Err() != nil:
			return last, context.Cause(ctx)
		case err != nil:
			return last, err
		case wanted(&now):
			return &now, nil
		}
		last = &now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
	}
}

// explain says how far the handover got that was asked for, and what came of taking
// the request back.
func (o *switchover) explain(err error, now, before *survey.Lock, kept error) error {
	switch {
	case !errors.Is(err, errTimeout) && kept != nil:
		return fmt.Errorf("%w; the request could not be taken back: %w", err, kept)
	case !errors.Is(err, errTimeout):
		return err
	case now.Leader == "":
		return fmt.Errorf("%s handed %s over, but nobody took it within %s", before.Leader, before.Name, o.timeout)
	case kept != nil:
		return fmt.Errorf("%s did not hand %s over within %s, and the request could not be taken back, so it may still obey: %w", before.Leader, before.Name, o.timeout, kept)
	}
	return fmt.Errorf("%s did not hand %s over within %s, and the request is taken back: its application has not ended its work, or its sidecar is too old or does not reach the API server; if it has read the request, it may still obey",
		before.Leader, before.Name, o.timeout)
}

// why tells who asks. Control characters would take six bytes each in the request,
// which has no room for so many.
func why(user string) string {
	text := "kubectl"
	if user != "" {
		text += ": " + terminal.Text(user)
	}
	return strings.ToValidUTF8(text[:min(len(text), elector.MaxWhy)], "")
}

// annotate writes the request on the very object, or takes it away.
func (o *switchover) annotate(ctx context.Context, l *survey.Lock, value *string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": l.UID, "annotations": map[string]*string{elector.HandoverAnnotation: value}}})
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	options := metav1.PatchOptions{FieldManager: "kubectl-elector"}
	if l.Mode == elector.ModeLeaderForLife {
		_, err = o.API.Client.CoreV1().ConfigMaps(l.Namespace).Patch(ctx, l.Name, types.MergePatchType, patch, options)
	} else {
		_, err = o.API.Client.CoordinationV1().Leases(l.Namespace).Patch(ctx, l.Name, types.MergePatchType, patch, options)
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return fmt.Errorf("the lock %s has just been deleted, nobody was asked: %w", l.Name, err)
	}
	resource, group := l.Key().Resource()
	return o.API.Explain(ctx, err, access.Right{Verb: "patch", Group: group, Resource: resource, Namespace: l.Namespace, Name: l.Name})
}

// withdrawal is how long taking back may take.
const withdrawal = 5 * time.Second

// withdraw takes the request back if it is still there. It would have no effect on
// another claim, but the leader may obey late.
func (o *switchover) withdraw(ctx context.Context, last *survey.Lock, request elector.Handover) error {
	ctx, cancel := context.WithTimeout(ctx, withdrawal)
	defer cancel()
	now, err := o.Read(ctx, last.Key())
	if err != nil || !now.Asks(request) {
		return err
	}
	return o.annotate(ctx, &now, nil)
}

// completeStandbys completes the names of the pods that stand by.
func (p *plugin) completeStandbys(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
	defer cancel()
	api, err := access.Connect(p.flags)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	l, _, err := lockNamed(ctx, survey.Surveyor{API: api}, args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range l.Candidates {
		if name := l.Candidates[i].Name; name != l.Leader && strings.HasPrefix(name, begun) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
