// Package checkup looks for what is wrong with an installation of elector and with
// the elections of a namespace, and says the way out of each.
//
// It reads what its user may read, asks the API server what the user and the manager
// may do, and creates a pod by a dry run: nothing is changed. What it could not look
// at is a finding, too.
package checkup

import (
	"context"
	"fmt"
	"strconv"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/terminal"
)

// Level tells how bad a finding is.
type Level string

// The levels.
const (
	OK Level = "ok"
	// Unknown is what could not be looked at.
	Unknown Level = "unknown"
	// Warning is what does no harm now.
	Warning Level = "warning"
	// Fault is what keeps elector from working.
	Fault Level = "fault"
)

// Finding is the answer to one question.
type Finding struct {
	Level Level `json:"level"`
	// About is one word for what was looked at, What a sentence.
	About string `json:"about"`
	What  string `json:"what"`
	// WayOut says what to do about it.
	WayOut string `json:"wayOut,omitempty"`
}

// Checkup is one.
type Checkup struct {
	survey.Surveyor
	// Version is the plugin's own.
	Version string
	// Namespace is where pods and locks are looked at.
	Namespace string

	findings []Finding
	// What was found on the way, nil where it was not.
	configuration *admissionv1.MutatingWebhookConfiguration
	manager       *appsv1.Deployment
	sidecar       string          // the version that a pod gets, by the dry run
	pods          []pod           // of the namespace
	podsRead      bool            // and they are all
	leftOut       bool            // the webhook's namespaceSelector leaves the namespace out
	ungranted     map[string]bool // the locks that some of their candidates may not write, by name; nil if that is not known
}

// Run looks at everything, in the order in which one thing needs another. An error
// is that the API server cannot be reached.
func (c *Checkup) Run(ctx context.Context) ([]Finding, error) {
	if err := c.server(ctx); err != nil {
		return nil, err
	}
	for _, look := range []func(context.Context){c.webhook, c.managers, c.authority, c.admission, c.policies, c.managersRights, c.usersRights, c.elections, c.clocks, c.versions} {
		look(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("checking: %w", context.Cause(ctx))
		}
	}
	return c.findings, nil
}

// say keeps a finding. It quotes strangers, who could forge another with a line
// break.
func (c *Checkup) say(level Level, about, wayOut, format string, args ...any) {
	c.findings = append(c.findings, Finding{level, about, terminal.Line(fmt.Sprintf(format, args...)), terminal.Line(wayOut)})
}

// unread says that something could not be looked at.
func (c *Checkup) unread(ctx context.Context, about string, err error, right access.Right) {
	c.say(Unknown, about, "", "%v", c.API.Explain(ctx, err, right))
}

// oldest is the first minor version of Kubernetes that has what elector needs.
const oldest = 30

// clockSlack is how far clocks may be apart before it matters to people who read
// times: nothing in an election depends on it.
const clockSlack = time.Minute

func (c *Checkup) server(ctx context.Context) error {
	info, err := c.API.Client.Discovery().ServerVersion()
	if err != nil {
		return c.API.Explain(ctx, err, access.Right{Verb: "get", Resource: "/version"})
	}
	minor, _ := strconv.Atoi(trimPlus(info.Minor))
	if info.Major == "1" && minor < oldest {
		c.say(Fault, "kubernetes", "upgrade the cluster", "Kubernetes %s is too old: elector needs 1.%d, for native sidecars", info.GitVersion, oldest)
	} else {
		c.say(OK, "kubernetes", "", "Kubernetes %s", info.GitVersion)
	}
	if ahead := c.API.Ahead(); ahead.Abs() > clockSlack {
		c.say(Warning, "clock", "set the wrong clock", "this machine's clock and the API server's differ by %s, so ages shown elsewhere are wrong", ahead.Abs().Round(time.Second))
	}
	return nil
}

// trimPlus is for providers whose minor version is "30+".
func trimPlus(s string) string {
	for s != "" && (s[len(s)-1] < '0' || s[len(s)-1] > '9') {
		s = s[:len(s)-1]
	}
	return s
}
