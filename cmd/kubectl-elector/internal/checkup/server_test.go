package checkup

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
)

const (
	deployments = "/apis/apps/v1/deployments"
	manager     = `{"items":[{"metadata":{"namespace":"elector-system","name":"elector-webhook"},"spec":{"replicas":2},"status":{"readyReplicas":`
	managerLock = "/apis/coordination.k8s.io/v1/namespaces/elector-system/leases/elector-webhook"
	held        = `{"metadata":{"namespace":"elector-system","name":"elector-webhook"},"spec":{"holderIdentity":"elector-webhook-1_2","leaseDurationSeconds":15,"renewTime":"`
	events      = "/api/v1/namespaces/elector-system/events"
	authority   = "/api/v1/namespaces/elector-system/secrets/ca"
	pods        = "/api/v1/namespaces/shop/pods"
	injected    = `{"items":[{"metadata":{"namespace":"shop","name":"web-0","labels":{"elector.io/injected":"true"},` +
		`"annotations":{"elector.io/status":"{\"version\":\"v0.0.1\",\"lock\":\"web\",\"mode\":\"lease\"}"}},` +
		`"spec":{"initContainers":[{"name":"elector","args":["--lock=web"]}]}}]}`
)

// What no test makes of a real cluster is told by an API server of a few words.
func TestFindings(t *testing.T) {
	t.Parallel()
	renewed := time.Now().UTC().Format(metav1.RFC3339Micro)
	server := func(ctx context.Context, c *Checkup) { _ = c.server(ctx) }
	managers := func(ctx context.Context, c *Checkup) { c.managers(ctx) }
	versions := func(ctx context.Context, c *Checkup) {
		_ = c.podsOf(ctx)
		c.sidecar = "v0.1.0"
		c.versions(ctx)
		c.say(OK, "none", "", "%d findings", len(c.findings))
	}
	tests := map[string]struct {
		reason  string
		answers map[string]string // by path; all others are not found
		ahead   time.Duration     // the server's clock before the client's
		version string            // the plugin's
		look    func(context.Context, *Checkup)
		want    Finding
	}{
		"old":          {"native sidecars", map[string]string{"/version": `{"major":"1","minor":"29+","gitVersion":"v1.29.3-gke"}`}, 0, "", server, Finding{Level: Fault, About: "kubernetes", What: "Kubernetes v1.29.3-gke is too old: elector needs 1.30, for native sidecars"}},
		"oldest":       {"", map[string]string{"/version": `{"major":"1","minor":"30","gitVersion":"v1.30.0"}`}, 0, "", server, Finding{Level: OK, About: "kubernetes", What: "Kubernetes v1.30.0"}},
		"user's clock": {"ages are reckoned with the API server's", map[string]string{"/version": `{"major":"1","minor":"36"}`}, time.Hour, "", server, Finding{Level: Warning, About: "clock", What: "this machine's clock and the API server's differ by "}},
		"none ready":   {"", map[string]string{deployments: manager + `0}}]}`}, 0, "", managers, Finding{Level: Fault, About: "manager", What: "no replica of the manager is ready: "}},
		"one ready":    {"", map[string]string{deployments: manager + `1}}]}`}, 0, "", managers, Finding{Level: Warning, About: "manager", What: "1 of 2 replicas of the manager are ready"}},
		"none leads":   {"its lock ran out", map[string]string{deployments: manager + `2}}]}`, managerLock: held + `2026-01-02T03:04:05.000000Z"}}`}, 0, "", managers, Finding{Level: Fault, About: "manager", What: "none of the manager's replicas leads: "}},
		"one leads":    {"", map[string]string{deployments: manager + `2}}]}`, managerLock: held + renewed + `"}}`}, 0, "", managers, Finding{Level: OK, About: "manager", What: "2 of 2 replicas of the manager are ready"}},
		"plugin's":     {"", nil, 0, "v0.2.0", versions, Finding{Level: Warning, About: "versions", What: "this plugin has version v0.2.0, and the manager v0.1.0"}},
		"sidecar's":    {"it was injected by an older manager", map[string]string{pods: injected}, 0, "v0.1.0", versions, Finding{Level: Warning, About: "versions", What: "the manager has version v0.1.0, and there are sidecars of others: 1 of v0.0.1. "}},
		"the same":     {"", map[string]string{pods: strings.Replace(injected, "v0.0.1", "v0.1.0", 1)}, 0, "v0.1.0", versions, Finding{Level: OK, About: "versions", What: "manager and sidecars have version v0.1.0"}},
		"pods unread":  {"nothing is said of sidecars that nobody saw", nil, 0, "v0.1.0", versions, Finding{Level: OK, About: "none", What: "0 findings"}},
		"certificates": {"what the manager said", map[string]string{events: `{"items":[{"message":"no key"}]}`, authority: `{"metadata":{"name":"ca"}}`}, 0, "", authorities, Finding{Level: Fault, About: "CA", What: "CertificateNotKept: no key"}},
		"without self": {"there is no such Secret", nil, 0, "", func(ctx context.Context, c *Checkup) {
			c.manager = managerWith()
			c.authority(ctx)
			c.say(OK, "CA", "", "%d findings", len(c.findings))
		}, Finding{Level: OK, About: "CA", What: "0 findings"}},
		"a template left alone": {"its webhook selects nothing, say", map[string]string{"/apis/apps/v1/namespaces/shop/deployments": `{}`}, 0, "", func(ctx context.Context, c *Checkup) { c.carrying(ctx) }, Finding{Level: Fault, About: "admission", What: "the annotation of a Deployment in the namespace shop does not come to its pod template: "}},
		"a Deployment refused":  {"", nil, 0, "", func(ctx context.Context, c *Checkup) { c.carrying(ctx) }, Finding{Level: Fault, About: "admission", What: "a Deployment that asks for elector is refused in the namespace shop: "}},
		"a policy gone":         {"and its binding with it", policiesBut("", `["Deny"]`), 0, "", confining, Finding{Level: Warning, About: "policies", What: "there is no admission policy elector-webhook-marks, which is one of those that confine the manager"}},
		"a policy that audits":  {"it refuses nothing", policiesBut(`{"metadata":{"name":"elector-webhook-marks"}}`, `["Audit"]`), 0, "", confining, Finding{Level: Warning, About: "policies", What: "the admission policy elector-webhook-pods has no binding that denies, and so no effect"}},
		"all policies":          {"", policiesBut(`{"metadata":{"name":"elector-webhook-marks"}}`, `["Deny"]`), 0, "", confining, Finding{Level: OK, About: "policies", What: "6 admission policies are there"}},
		"its Secret gone":       {"", nil, 0, "", authorities, Finding{Level: Fault, About: "CA", What: "the Secret elector-system/ca, which the replicas share their CA through, is gone"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Date", time.Now().Add(test.ahead).UTC().Format(http.TimeFormat))
				answer, ok := test.answers[r.URL.Path]
				if !ok {
					w.WriteHeader(http.StatusNotFound)
					answer = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`
				}
				_, _ = w.Write([]byte(answer))
			}))
			defer s.Close()
			flags := genericclioptions.NewConfigFlags(true)
			flags.APIServer = &s.URL
			api, err := access.Connect(flags)
			if err != nil {
				t.Fatal(err)
			}
			c := &Checkup{Surveyor: survey.Surveyor{API: api}, Version: test.version, Namespace: "shop"}
			test.look(t.Context(), c)
			if i := slices.IndexFunc(c.findings, func(f Finding) bool {
				return f.Level != Unknown && f.About == test.want.About && strings.HasPrefix(f.What, test.want.What)
			}); i < 0 || c.findings[i].Level != test.want.Level {
				t.Errorf("%+v, want %+v: %s", c.findings, test.want, test.reason)
			}
		})
	}
}

func managerWith(args ...string) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "elector-system", Name: "elector-webhook"}}
	d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, corev1.Container{Args: args})
	return d
}

// policiesBut are the policies of an installation without elector-webhook-marks, and more.
func policiesBut(more, actions string) map[string]string {
	var policies, bindings []string
	for _, name := range []string{"pods", "events", "roles", "rolebindings", "leases", "marks"} {
		bindings = append(bindings, `{"spec":{"policyName":"elector-webhook-`+name+`","validationActions":`+actions+`}}`)
		if name != "marks" {
			policies = append(policies, `{"metadata":{"name":"elector-webhook-`+name+`"}}`)
		}
	}
	if more != "" {
		policies = append(policies, more)
	}
	const path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
	return map[string]string{
		path + "ies":       `{"items":[` + strings.Join(policies, ",") + `]}`,
		path + "ybindings": `{"items":[` + strings.Join(bindings, ",") + `]}`,
	}
}

func confining(ctx context.Context, c *Checkup) {
	c.manager = managerWith("--leader-for-life=false")
	c.policies(ctx)
}

func authorities(ctx context.Context, c *Checkup) {
	c.manager = managerWith("--certificate-mode=self", "--certificate-secret=ca")
	c.authority(ctx)
}

// The time is that of the entry which wrote the renewal, not of who annotated the lock later.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	wrote := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	entry := func(after time.Duration, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Time: &metav1.Time{Time: wrote.Add(after)}, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
		entry(time.Hour, `{"f:metadata":{"f:annotations":{"f:elector.io/next":{}}}}`), entry(0, `{"f:spec":{"f:renewTime":{}}}`),
	}}}
	if _, known := clockAhead(lease); known {
		t.Error("nobody holds it")
	}
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = new("web-0_1"), &metav1.MicroTime{Time: wrote.Add(2 * time.Minute)}
	if ahead, known := clockAhead(lease); !known || ahead != 2*time.Minute {
		t.Error(ahead, known)
	}
	lease.ManagedFields = lease.ManagedFields[:1]
	if _, known := clockAhead(lease); known {
		t.Error("nobody knows when it was renewed")
	}
}

// An elector's Lease does not say when it was renewed: only what cannot be is told at once.
func TestClockOfElector(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		renewed  time.Duration // before now
		done     bool
		findings int
	}{
		"just now": {renewed: 3 * time.Second, done: true},
		"soon":     {renewed: -50 * time.Second, done: true},
		"later":    {renewed: -2 * time.Minute, done: true, findings: 1},
		"long ago": {renewed: 2 * time.Minute},
	} {
		var c Checkup
		lease := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("web-0_1"), RenewTime: &metav1.MicroTime{Time: now.Add(-tc.renewed)},
		}}
		if done := c.clock(lease, now); done != tc.done || len(c.findings) != tc.findings {
			t.Errorf("%s: done %t, found %v", name, done, c.findings)
		}
	}
	var c Checkup
	if !c.clock(&coordinationv1.Lease{}, now) || len(c.findings) > 0 {
		t.Error("a Lease that nobody holds says nothing")
	}
}

func TestLabelsFor(t *testing.T) {
	t.Parallel()
	for selector, want := range map[string]string{
		"": "", "a=1": "a=1", "a in (2,3),b": "a=2,b=true", "!a,b notin (c)": "",
	} {
		s, err := metav1.ParseToLabelSelector(selector)
		if err != nil {
			t.Fatal(err)
		}
		if got := metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labelsFor(s)}); got != want && (want != "" || got != "<none>") {
			t.Errorf("%q: %s, want %s", selector, got, want)
		}
	}
}
