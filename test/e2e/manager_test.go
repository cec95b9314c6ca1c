//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// load is somebody who creates annotated pods all the time, by dry runs.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	created atomic.Int64
	mu      sync.Mutex
	failed  []string
}

const (
	// creators is how many pods are created at a time.
	creators = 4
	// pace is the least time between two creations of a creator: faster ones would take the machine from the scenarios beside.
	pace = 100 * time.Millisecond
)

func (s *scene) load() *load {
	ctx, cancel := context.WithCancel(s.t.Context())
	l := &load{cancel: cancel}
	s.t.Cleanup(func() { l.stop() })
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "load-", Annotations: annotations(modeLease, elector.FieldLock, "load")}, Spec: podTemplate("load").Spec}
	for range creators {
		l.done.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				err := createDry(ctx, s.ns, pod)
				switch {
				case ctx.Err() != nil:
				case err != nil:
					l.fails(err.Error())
				default:
					l.created.Add(1)
				}
			}
		})
	}
	return l
}

func (l *load) fails(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf("%s: %s", time.Now().Format(time.StampMilli), why))
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// judge stops the load and fails the test if any creation failed.
func (s *scene) judge(l *load, during string) {
	s.t.Helper()
	l.stop()
	if len(l.failed) > 0 {
		s.t.Errorf("%d of %d creations failed, such as %s", len(l.failed), int(l.created.Load())+len(l.failed), l.failed[0])
	}
	if l.created.Load() == 0 {
		s.t.Error("nothing was created")
	}
	figure(s.name, "", "annotated pods created by dry run "+during, fmt.Sprintf("%d, of which %d failed", int(l.created.Load())+len(l.failed), len(l.failed)))
}

// electorate is a workload in each mode that leads through what is done to the manager.
type electorate struct {
	scenes  []*scene
	leaders []*corev1.Pod
}

func newElectorate(t *testing.T, name string, more ...string) (e electorate) {
	t.Helper()
	for _, mode := range []elector.Mode{modeLease, modeLife} {
		s := newScene(t, name, mode)
		s.deploy(lock, 2, nil, more...)
		e.scenes = append(e.scenes, s)
	}
	for _, s := range e.scenes {
		leader := s.leader(lock, 2)
		s.awaitApp(leader)
		e.leaders = append(e.leaders, leader)
	}
	return e
}

// checkUndisturbed checks that each leader has led all the time, in one claim.
func (e electorate) checkUndisturbed() {
	for i, s := range e.scenes {
		s.t.Helper()
		s.ok(s.heldBy(e.leaders[i]))
		p := s.past()
		if len(p.made) != 1 || p.made[0].UID != string(e.leaders[i].UID) || p.made[0].Reason != "" {
			s.t.Errorf("the claim of %s did not go on:", e.leaders[i].Name)
			for i := range p.made {
				s.t.Error(&p.made[i])
			}
		}
	}
}

// The chart's own test finds that the manager works.
func testHelmTest(t *testing.T) {
	begun := time.Now()
	out, err := helm(t.Context(), "test", release, "-n", system, "--logs", "--timeout", "2m")
	if err != nil || !strings.Contains(out, "gets the sidecar") {
		t.Fatalf("%v\n%s", err, out)
	}
	figure("helm test", "", "until it has found that an annotated pod gets the sidecar", seconds(time.Since(begun)))
}

// Both replicas of the manager are replaced while pods are created.
func testWebhookRollout(t *testing.T) {
	s := newScene(t, "Webhook rollout", "")
	l := s.load()
	begun := time.Now()
	for _, args := range [][]string{{"rollout", "restart"}, {"rollout", "status", "--timeout", "3m"}} {
		_, err := kubectl(t.Context(), append(args, "-n", system, "deployment", manager)...)
		s.ok(err)
	}
	s.step("rolled out in %s", seconds(time.Since(begun)))
	s.poll("the old replicas to be gone", func() error { return managers(t.Context(), 2) })
	s.judge(l, "while both replicas are replaced")
}

// managers returns an error unless there are exactly so many pods of the manager.
func managers(ctx context.Context, want int) error {
	pods, err := world.client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=elector"})
	if err == nil && len(pods.Items) != want {
		err = fmt.Errorf("there are %d pods of the manager", len(pods.Items))
	}
	return err
}

// Certificates are rotated until there have been so many bundles: the CA, with the next one, that alone, and with the one after it.
// They live so long that one serves on while its replica is told to stop.
const (
	rotations           = 4
	certificateLifetime = 30 * time.Second
	caLifetime          = 3 * certificateLifetime
)

// The chart is upgraded to certificates that live for seconds, and rolled back, while pods are created and workloads have leaders.
func testUpgrade(t *testing.T) {
	e := newElectorate(t, "helm upgrade and rollback", defaults...)
	s := e.scenes[0]
	upgrade := s.load()
	begun := time.Now()
	s.ok(helmUpgrade(t.Context(), "certificate.lifetime="+certificateLifetime.String(), "certificate.caLifetime="+caLifetime.String()))
	figure(s.name, "", "helm upgrade", seconds(time.Since(begun)))
	s.poll("the old replicas to be gone", func() error { return managers(t.Context(), 2) }) // they would make a CA as they know it
	s.judge(upgrade, "during helm upgrade")

	s.name = "Certificate rotation"
	rotation := s.load()
	since := boot()
	bundles := map[[32]byte]bool{}
	look := func() {
		c, err := world.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), manager, metav1.GetOptions{})
		s.ok(err)
		bundles[sha256.Sum256(c.Webhooks[0].ClientConfig.CABundle)] = true
	}
	look()
	// The CA that is there lives on for a year. To empty its Secret is to rotate it.
	_, err := world.client.CoreV1().Secrets(system).Patch(t.Context(), manager+"-ca", types.MergePatchType, []byte(`{"data":null}`), metav1.PatchOptions{})
	s.ok(err)
	s.poll("two rotations of the CA", func() error {
		look()
		if len(bundles) < rotations {
			return fmt.Errorf("there were %d bundles", len(bundles))
		}
		return nil
	})
	s.judge(rotation, fmt.Sprintf("in %s of certificates that live for %s and CAs that live for %s", seconds(boot()-since), seconds(certificateLifetime), seconds(caLifetime)))
	figure(s.name, "", "different caBundles meanwhile", strconv.Itoa(len(bundles)))

	s.name = "helm upgrade and rollback"
	rollback := s.load()
	begun = time.Now()
	_, err = helm(t.Context(), "rollback", release, "-n", system, "--wait", "--timeout", "3m")
	s.ok(err)
	figure(s.name, "", "helm rollback", seconds(time.Since(begun)))
	s.poll("the old replicas to be gone", func() error { return managers(t.Context(), 2) })
	s.judge(rollback, "during helm rollback")
	e.checkUndisturbed()
	figure(s.name, "", "claims of running workloads, in both modes", "undisturbed: one claim each all the time")
}

// What runs goes on without the manager, and hands leadership on.
func testUninstall(t *testing.T) {
	e := newElectorate(t, "helm uninstall", defaults...)
	s := e.scenes[0]
	_, err := helm(t.Context(), "uninstall", release, "-n", system, "--wait")
	s.ok(err)
	s.poll("the manager to be gone", func() error { return managers(t.Context(), 0) })
	_, err = world.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), manager, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the webhook configuration is still there: %v", err)
	}
	s.stays("the leaders", leaseDuration, func() error {
		for i, s := range e.scenes {
			if err := s.heldBy(e.leaders[i]); err != nil {
				return err
			}
		}
		return nil
	})
	e.checkUndisturbed()
	for i, s := range e.scenes {
		s.remove(e.leaders[i])
		before, after, _ := s.succession("web", e.leaders[i])
		s.figure("leader deleted afterwards: claim ends until the next begins", seconds(after.Begin-before.End))
		bare := ""
		s.await("a pod without the sidecar", func() error {
			for _, pod := range s.pods {
				if isReady(pod) && len(pod.Spec.InitContainers) == 0 {
					bare = pod.Name
					return nil
				}
			}
			return fmt.Errorf("none of %d", len(s.pods))
		})
		s.step("%s has no sidecar", bare)
	}
	s.checkLeft(e)
	// Installed again, the manager goes on where it was: the successors get their labels.
	s.ok(helmUpgrade(t.Context()))
	for i, s := range e.scenes {
		s.await("the successor to be labelled", func() error {
			holders := s.holders["web"]
			for _, pod := range s.pods {
				if identity(pod) == holders[len(holders)-1].identity && pod.UID != e.leaders[i].UID && pod.Labels[roleLabel] == "leader" {
					return nil
				}
			}
			return fmt.Errorf("%v, the last of which is not", holders)
		})
		s.figure("installed again", "the successor goes on and is labelled")
	}
}

// checkLeft checks that an uninstalled manager leaves what the chart's README says, and nothing else.
func (s *scene) checkLeft(e electorate) {
	s.t.Helper()
	all, err := kubectl(s.t.Context(), "get", "-A", "-o", "jsonpath={range .items[*]}{.metadata.namespace}/{.kind}/{.metadata.name} {end}",
		"roles,rolebindings,leases,configmaps,secrets,serviceaccounts,services,deployments,poddisruptionbudgets,clusterroles,clusterrolebindings,mutatingwebhookconfigurations")
	s.ok(err)
	var left []string
	for object := range strings.FieldsSeq(all) {
		if name := object[strings.LastIndex(object, "/")+1:]; strings.HasPrefix(object, system+"/") || name == manager || strings.HasPrefix(name, "elector:") {
			left = append(left, object)
		}
	}
	want := []string{
		system + "/ConfigMap/kube-root-ca.crt", system + "/ServiceAccount/default", // every namespace's
		system + "/Lease/" + manager,
	}
	for _, s := range e.scenes {
		grant := "elector:" + s.kind() + ":" + inject.DefaultLock("web", s.mode)
		want = append(want, s.ns+"/Role/"+grant, s.ns+"/RoleBinding/"+grant+":"+account)
	}
	slices.Sort(left)
	slices.Sort(want)
	if diff := cmp.Diff(want, left); diff != "" {
		s.t.Errorf("what is left behind (-want +got):\n%s", diff)
	}
	figure(s.name, "", "left behind", "the manager's Lease, and the grants and locks of workloads that go on")
}

// With the manager's rights, and in its name, the chart's admission policies let pass what the manager does and nothing else. Everything is
// a dry run; that workloads go on electing meanwhile, all other scenarios show.
func testPolicy(t *testing.T) {
	s := newScene(t, "Admission policies", modeLease)
	s.deploy(lock, 2, nil)
	leader := s.leader(lock, 2)
	bystander := "kube-system"
	plain, err := kubectl(t.Context(), "-n", bystander, "get", "pods", "-o", "name")
	s.ok(err)
	plain, _, _ = strings.Cut(strings.TrimPrefix(plain, "pod/"), "\n")
	// Not by kubectl, which reads what it patches: the manager may not read a pod's status apart.
	patch := func(path, patch string) error {
		return world.manager.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(path).Param("dryRun", "All").Body([]byte(patch)).Do(t.Context()).Error()
	}
	ofLeader, ofBystander := "/api/v1/namespaces/"+s.ns+"/pods/"+leader.Name, "/api/v1/namespaces/"+bystander+"/pods/"+plain
	s.ok(patch(ofLeader+"/status", `{"metadata":{"labels":{"elector.io/role":"standby"}}}`))
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"an image":            {patch(ofBystander, `{"spec":{"activeDeadlineSeconds":1}}`), "cannot patch resource"},
		"a bystander's label": {patch(ofBystander+"/status", `{"metadata":{"labels":{"elector.io/role":"leader"}}}`), "writes only to pods with the label elector.io/injected"},
		"a leader's phase":    {patch(ofLeader+"/status", `{"status":{"phase":"Failed"}}`), "changes no status of a pod"},
		"its own webhook":     {patch("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"+manager, `{"webhooks":null}`), "changes nothing of its webhook configuration but the caBundles"},
		"a ConfigMap":         {patch("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", `{"data":{"client-ca-file":""}}`), "changes no ConfigMap but to say who is to lead next"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, test.err, test.want)
		}
	}
	figure(s.name, "", "label a pod of the scene, in the manager's name", "allowed; five other things are not")
}
