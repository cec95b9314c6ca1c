package grant

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/elector-io/elector/cmd/internal/rights"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates/candidatestest"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/cmd/webhook/internal/look"
	"github.com/elector-io/elector/elector"
)

// world is a Granter with the objects it sees.
type world struct {
	*Granter
	t         *testing.T
	ctx       context.Context
	client    client.WithWatch
	informers *informertest.FakeInformers
	events    *events.FakeRecorder
	// calls lists the writes, and the reads of lock objects.
	mu    sync.Mutex
	calls []string
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{
		t:         t,
		ctx:       klog.NewContext(t.Context(), logr.Discard()),
		informers: &informertest.FakeInformers{Scheme: cached(t)},
		events:    events.NewFakeRecorder(100),
	}
	note := func(verb, kind, name string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls = append(w.calls, verb+" "+kind+" "+name)
	}
	w.client = fake.NewClientBuilder().WithObjects(objects...).WithIndex(&rbacv1.RoleBinding{}, indexLock, roleNames).Build()
	watched := interceptor.NewClient(w.client, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			gvk, err := c.GroupVersionKindFor(obj)
			must(t, err)
			note("create", gvk.Kind, obj.GetName())
			return c.Create(ctx, obj, opts...)
		},
		Apply: func(ctx context.Context, c client.WithWatch, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			named := obj.(interface {
				GetKind() string
				GetName() string
			})
			note("apply", named.GetKind(), named.GetName())
			return c.Apply(ctx, obj, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			gvk, err := c.GroupVersionKindFor(obj)
			must(t, err)
			note("delete", gvk.Kind, obj.GetName())
			return c.Delete(ctx, obj, opts...)
		},
	})
	g, err := New(w.ctx, Config{
		Candidates: candidatestest.Listed{Reader: w.client}, Client: watched, Live: w.client, Objects: seen{w.client, note}, Cache: w.informers, Events: w.events,
		Metrics: prometheus.NewRegistry(),
	})
	must(t, err)
	g.attention = &attention{paid: map[lock]func(){}, shares: map[string]share{}, begin: func(func(context.Context)) func() { return func() {} }}
	w.Granter = g
	return w
}

// cached are the kinds in the cache: of ConfigMaps the metadata.
func cached(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	must(t, coordinationv1.AddToScheme(s))
	must(t, rbacv1.AddToScheme(s))
	s.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("ConfigMap"), &metav1.PartialObjectMetadata{})
	return s
}

// seen are the lock objects that a client has.
type seen struct {
	client.Reader
	note func(verb, kind, name string)
}

func (s seen) Look(ctx context.Context, l lock) (look.Sight, error) {
	s.note("read", l.Kind().Kind, l.Name)
	key := client.ObjectKey{Namespace: l.Namespace, Name: l.Name}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(l.Kind())
	if err := s.Get(ctx, key, object); err != nil {
		return look.Sight{}, client.IgnoreNotFound(err)
	}
	var whole corev1.ConfigMap
	if l == webConfigMap {
		if err := s.Get(ctx, key, &whole); err != nil {
			return look.Sight{}, err
		}
	}
	return look.Sight{Object: object, HasData: len(whole.Data) > 0}, nil
}

func (s seen) Watch(ctx context.Context, _ lock, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

// pass reconciles the lock and returns what was done and the pause until the
// next look.
func (w *world) pass(l lock) (calls []string, pause time.Duration) {
	w.t.Helper()
	w.calls = nil
	result, _, err := w.reconcile(w.ctx, l)
	must(w.t, err)
	return w.calls, result.RequeueAfter
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) expect(what string, want, got []string) {
	w.t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var granted = []string{"read Lease web", "create Role elector:lease:web", "create RoleBinding elector:lease:web:web"}

func TestReconcile(t *testing.T) {
	// Every case begins with the grants of lock web to account web in place.
	tests := map[string]struct {
		reason string
		change func(w *world)
		want   []string
	}{
		"nothing": {
			reason: "what is right is not written again",
			change: func(*world) {},
			want:   []string{"read Lease web"},
		},
		"another pod": {
			reason: "it has the same account",
			change: func(w *world) { must(w.t, w.client.Create(w.ctx, new(injected("b", webLease, "web")))) },
			want:   []string{"read Lease web"},
		},
		"another account": {
			reason: "one more binding to the same Role",
			change: func(w *world) { must(w.t, w.client.Create(w.ctx, new(injected("b", webLease, "admin")))) },
			want:   []string{"read Lease web", "create RoleBinding elector:lease:web:admin"},
		},
		"account exchanged": {
			reason: "the old account has no pod any more",
			change: func(w *world) {
				must(w.t, w.client.Delete(w.ctx, new(injected("a", webLease, "web"))))
				must(w.t, w.client.Create(w.ctx, new(injected("b", webLease, "admin"))))
			},
			want: []string{"read Lease web", "create RoleBinding elector:lease:web:admin", "delete RoleBinding elector:lease:web:web"},
		},
		"last pod gone": {
			reason: "the binding goes first: a binding without Role means nothing",
			change: func(w *world) { must(w.t, w.client.Delete(w.ctx, new(injected("a", webLease, "web")))) },
			want:   []string{"delete RoleBinding elector:lease:web:web", "delete Role elector:lease:web"},
		},
		"last pod finished": {
			reason: "a finished Job must not keep a grant for ever",
			change: func(w *world) {
				p := new(injected("a", webLease, "web"))
				must(w.t, w.client.Get(w.ctx, client.ObjectKeyFromObject(p), p))
				p.Status.Phase = corev1.PodSucceeded
				must(w.t, w.client.Status().Update(w.ctx, p))
			},
			want: []string{"delete RoleBinding elector:lease:web:web", "delete Role elector:lease:web"},
		},
		"Role edited": {
			reason: "drift is repaired",
			change: func(w *world) {
				r := w.role()
				r.Rules[0].ResourceNames = nil
				must(w.t, w.client.Update(w.ctx, r))
			},
			want: []string{"read Lease web", "apply Role elector:lease:web"},
		},
		"Role deleted": {
			reason: "drift is repaired",
			change: func(w *world) { must(w.t, w.client.Delete(w.ctx, w.role())) },
			want:   []string{"read Lease web", "create Role elector:lease:web"},
		},
		"RoleBinding deleted": {
			reason: "drift is repaired",
			change: func(w *world) { must(w.t, w.client.Delete(w.ctx, w.binding())) },
			want:   []string{"read Lease web", "create RoleBinding elector:lease:web:web"},
		},
		"subjects edited": {
			reason: "drift is repaired",
			change: func(w *world) {
				b := w.binding()
				b.Subjects = append(b.Subjects, rbacv1.Subject{Kind: "User", Name: "mallory", APIGroup: rbacv1.GroupName})
				must(w.t, w.client.Update(w.ctx, b))
			},
			want: []string{"read Lease web", "apply RoleBinding elector:lease:web:web"},
		},
		"bound to another role": {
			reason: "the role of a binding cannot be changed, so the binding is replaced",
			change: func(w *world) {
				b := w.binding()
				must(w.t, w.client.Delete(w.ctx, b))
				b.ResourceVersion, b.RoleRef.Name = "", "other"
				must(w.t, w.client.Create(w.ctx, b))
			},
			want: []string{"read Lease web", "delete RoleBinding elector:lease:web:web", "create RoleBinding elector:lease:web:web"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, new(injected("a", webLease, "web")))
			first, _ := w.pass(webLease)
			w.expect("first pass", granted, first)
			tc.change(w)
			got, pause := w.pass(webLease)
			w.expect(tc.reason, tc.want, got)
			if needed := len(tc.want) > 0 && strings.HasPrefix(tc.want[0], "read"); pause > 0 != needed || pause > maxRecheck {
				t.Errorf("looks again after %s: there is no Lease yet, so somebody else may make it", pause)
			}
			again, _ := w.pass(webLease)
			again = slices.DeleteFunc(again, func(c string) bool { return strings.HasPrefix(c, "read") })
			w.expect("a second pass has nothing to do", []string{}, again)
		})
	}
}

func (w *world) role() *rbacv1.Role {
	w.t.Helper()
	var r rbacv1.Role
	must(w.t, w.client.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: "elector:lease:web"}, &r))
	return &r
}

func (w *world) binding() *rbacv1.RoleBinding {
	w.t.Helper()
	var b rbacv1.RoleBinding
	must(w.t, w.client.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: "elector:lease:web:web"}, &b))
	return &b
}

// TestAdoption follows a lock whose object is somebody else's.
func TestAdoption(t *testing.T) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	w := newWorld(t, lease, new(injected("a", webLease, "web")), new(injected("b", webLease, "web")))
	last := time.Duration(0)
	for range 8 {
		calls, pause := w.pass(webLease)
		w.expect("nothing is granted", []string{"read Lease web"}, calls)
		if pause < minRefusedPause || pause > maxRefusedPause || pause < min(last, maxRecheck-recheckSpread) {
			t.Errorf("pause %s after %s", pause, last)
		}
		last = pause
		for range 2 { // one for each pod
			if e := <-w.events.Events; !strings.HasPrefix(e, "Warning LockNotGranted Lease shop/web exists and is not elector's") {
				t.Errorf("event %q", e)
			}
		}
	}
	if last < maxRecheck-recheckSpread {
		t.Errorf("the pause ends at %s", last)
	}

	lease.Annotations = map[string]string{"elector.io/adopt": "true"}
	must(t, w.client.Update(w.ctx, lease))
	calls, pause := w.pass(webLease)
	w.expect("adopted", granted, calls)
	if pause == 0 || pause > maxRecheck {
		t.Errorf("looks again after %s: consent may be taken back, and the cache does not tell", pause)
	}

	lease.Annotations = nil
	must(t, w.client.Update(w.ctx, lease))
	calls, pause = w.pass(webLease)
	w.expect("consent taken back", []string{"read Lease web", "delete RoleBinding elector:lease:web:web", "delete Role elector:lease:web"}, calls)
	if pause != minRefusedPause {
		t.Errorf("pause %s, want to begin again with %s", pause, minRefusedPause)
	}
}

// TestCreatedLater has locks that were granted before somebody else made their
// object.
func TestCreatedLater(t *testing.T) {
	role := func(kind string) string { return "elector:" + kind + ":web" }
	meta := func(labels, annotations map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: labels, Annotations: annotations}
	}
	ours, adopted := map[string]string{"app.kubernetes.io/managed-by": "elector"}, map[string]string{"elector.io/adopt": "true"}
	data := map[string]string{"password": "1234"}
	tests := map[string]struct {
		reason  string
		lock    lock
		object  client.Object
		revoked string // the beginning of what the object is told
	}{
		"configuration": {"its name was claimed by a pod", webConfigMap, &corev1.ConfigMap{ObjectMeta: meta(nil, nil), Data: data}, "ConfigMap shop/web exists and is not elector's"},
		"no data":       {"somebody's all the same", webConfigMap, &corev1.ConfigMap{ObjectMeta: meta(nil, nil)}, "ConfigMap shop/web exists and is not elector's"},
		"Lease":         {"its name was claimed by a pod", webLease, &coordinationv1.Lease{ObjectMeta: meta(nil, nil)}, "Lease shop/web exists and is not elector's"},
		"into the lock": {"configuration was applied to a lock, and keeps its label", webConfigMap, &corev1.ConfigMap{ObjectMeta: meta(ours, nil), Data: data}, "ConfigMap shop/web holds data, and as a lock it is deleted"},
		"the lock":      {"a candidate made it", webConfigMap, &corev1.ConfigMap{ObjectMeta: meta(ours, nil)}, ""},
		"adopted":       {"its owner says so", webConfigMap, &corev1.ConfigMap{ObjectMeta: meta(nil, adopted), Data: data}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			kind := strings.ToLower(tc.lock.Kind().Kind)
			w := newWorld(t, new(injected("a", tc.lock, "web")), new(injected("b", tc.lock, "admin")))
			w.pass(tc.lock)
			must(t, w.client.Create(w.ctx, tc.object))
			calls, _ := w.pass(tc.lock)
			read := "read " + tc.lock.Kind().Kind + " web"
			if tc.revoked == "" {
				w.expect(tc.reason, []string{read}, calls)
				return
			}
			slices.Sort(calls)
			w.expect(tc.reason, []string{
				"delete Role " + role(kind), "delete RoleBinding " + role(kind) + ":admin", "delete RoleBinding " + role(kind) + ":web", read,
			}, calls)
			if e := <-w.events.Events; !strings.HasPrefix(e, "Warning LockRevoked "+tc.revoked) || !strings.HasSuffix(e, "Until now pods with the ServiceAccount admin, web could use it as their lock") {
				t.Errorf("the object is told %q", e)
			}
			for range 2 {
				if e := <-w.events.Events; !strings.HasPrefix(e, "Warning LockNotGranted "+tc.revoked) {
					t.Errorf("a pod is told %q", e)
				}
			}
			w.pass(tc.lock)
			for range 2 {
				<-w.events.Events
			}
			if n := len(w.events.Events); n > 0 {
				t.Errorf("the object is told again: %q", <-w.events.Events)
			}

			must(t, w.client.Delete(w.ctx, tc.object))
			calls, _ = w.pass(tc.lock)
			w.expect("granted again when it is gone", []string{
				read, "create Role " + role(kind), "create RoleBinding " + role(kind) + ":admin", "create RoleBinding " + role(kind) + ":web",
			}, calls)
		})
	}
}

// TestForeignGrants has somebody else's Role or RoleBinding of a grant's name,
// which the cache does not have.
func TestForeignGrants(t *testing.T) {
	role, binding := roleFor(webLease), rights.Binding(roleFor(webLease), "web")
	role.Labels, role.Rules = nil, []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"secrets"}}}
	binding.Labels, binding.RoleRef.Name = nil, "other"
	tests := map[string]struct {
		reason string
		there  client.Object
		want   []string
		told   string
	}{
		"Role": {
			reason: "its rules are not ours to change, nor to bind somebody to", there: role, want: []string{"read Lease web", "create Role elector:lease:web"},
			told: "Role shop/elector:lease:web exists and is not elector's, so Lease shop/web is not granted as a lock: delete the Role, or choose another name for the lock with the annotation elector.io/lock",
		},
		"RoleBinding": {
			reason: "others are granted all the same", there: binding,
			want: []string{"read Lease web", "create Role elector:lease:web", "create RoleBinding elector:lease:web:web", "create RoleBinding elector:lease:web:zoo"},
			told: "RoleBinding shop/elector:lease:web:web exists and is not elector's, so Lease shop/web is not granted as a lock: delete the RoleBinding, or choose another name for the lock with the annotation elector.io/lock",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.there, new(injected("a", webLease, "web")), new(injected("b", webLease, "zoo")))
			labelled := w.Client
			w.Client = interceptor.NewClient(w.client, interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
					if err := c.Get(ctx, key, obj, opts...); err != nil || locks.Ours(obj) {
						return err
					}
					return apierrors.NewNotFound(rbacv1.Resource("roles"), key.Name)
				},
				List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
					return c.List(ctx, list, append(opts, client.MatchingLabels{"app.kubernetes.io/managed-by": "elector"})...)
				},
				Create: func(ctx context.Context, _ client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
					return labelled.Create(ctx, obj, opts...)
				},
				Apply: func(ctx context.Context, _ client.WithWatch, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
					return labelled.Apply(ctx, obj, opts...)
				},
			})
			for range 3 {
				calls, pause := w.pass(webLease)
				w.expect(tc.reason, tc.want, calls)
				if pause < minRefusedPause || pause > maxRefusedPause {
					t.Errorf("looks again after %s", pause)
				}
				for range 2 {
					if e := <-w.events.Events; e != "Warning LockNotGranted "+tc.told {
						t.Errorf("told %q", e)
					}
				}
				tc.want = slices.DeleteFunc(tc.want, func(c string) bool {
					return name == "RoleBinding" && strings.HasPrefix(c, "create") && !strings.HasSuffix(c, ":web:web")
				})
			}
			after := tc.there.DeepCopyObject().(client.Object)
			must(t, w.client.Get(w.ctx, client.ObjectKeyFromObject(after), after))
			if after.SetResourceVersion(""); after.GetLabels() != nil {
				t.Errorf("it was changed: %+v", after)
			}
			must(t, w.client.Delete(w.ctx, after))
			w.pass(webLease)
			if w.binding().RoleRef.Name != "elector:lease:web" {
				t.Error("not granted when it is gone")
			}
		})
	}
}

// TestStaleCache has the objects there although the cache does not know them.
func TestStaleCache(t *testing.T) {
	w := newWorld(t, new(injected("a", webLease, "web")))
	w.pass(webLease)
	r := w.role()
	r.Rules = nil
	must(t, w.client.Update(w.ctx, r))
	behind := w.Client
	w.Client = interceptor.NewClient(w.client, interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
			return apierrors.NewNotFound(rbacv1.Resource("roles"), key.Name)
		},
		Create: func(ctx context.Context, _ client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return behind.Create(ctx, obj, opts...)
		},
		Apply: func(ctx context.Context, _ client.WithWatch, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			return behind.Apply(ctx, obj, opts...)
		},
	})
	calls, _ := w.pass(webLease)
	w.expect("the Role is put right all the same", []string{"read Lease web", "create Role elector:lease:web", "apply Role elector:lease:web"}, calls)
	if diff := cmp.Diff(roleFor(webLease).Rules, w.role().Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

// TestSettled holds which news about grants need a look.
func TestSettled(t *testing.T) {
	right := roleFor(webLease)
	tests := map[string]struct {
		reason string
		obj    client.Object
		pods   bool
		want   bool
	}{
		"role":             {"an echo of our own write", right, true, true},
		"binding":          {"an echo of our own write", rights.Binding(right, "web"), true, true},
		"not needed":       {"the last pod went before the grant came", right, false, false},
		"role edited":      {"drift", &rbacv1.Role{ObjectMeta: right.ObjectMeta}, true, false},
		"binding edited":   {"drift", &rbacv1.RoleBinding{ObjectMeta: rights.Binding(right, "web").ObjectMeta}, true, false},
		"account mismatch": {"a binding for another than its name says", renamed(rights.Binding(right, "web"), "elector:lease:web:other"), true, false},
		"somebody's":       {"not ours", &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}, true, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if tc.pods {
				objects = append(objects, new(injected("a", webLease, "web")))
			}
			if got := newWorld(t, objects...).settled(tc.obj); got != tc.want {
				t.Errorf("%s: got %v, want %v", tc.reason, got, tc.want)
			}
		})
	}
}

func renamed(b *rbacv1.RoleBinding, name string) *rbacv1.RoleBinding {
	b.Name = name
	return b
}

func TestForbiddenMode(t *testing.T) {
	w := newWorld(t, new(injected("a", webConfigMap, "web")))
	w.ForbidLeaderForLife = true
	calls, _ := w.pass(webConfigMap)
	w.expect("the manager may not even read ConfigMaps", nil, calls)
	if e := <-w.events.Events; !strings.Contains(e, "mode leader-for-life is not allowed in this cluster") {
		t.Errorf("event %q", e)
	}
}

// TestRun drives the controller by events, for two claims one after the other.
func TestRun(t *testing.T) {
	w := newWorld(t)
	pods := w.informPods()
	w.inform(&rbacv1.Role{})
	w.inform(&rbacv1.RoleBinding{})
	w.inform(locks.Object(elector.ModeLease))
	w.inform(locks.Object(elector.ModeLeaderForLife))
	for range 2 {
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()

		bindings, err := w.client.Watch(w.ctx, &rbacv1.RoleBindingList{})
		must(t, err)
		pod := new(injected("a", webLease, "web"))
		must(t, w.client.Create(w.ctx, pod))
		pods.Add(pod.DeepCopy()) // a source sets a resourceVersion of its own
		if e := <-bindings.ResultChan(); e.Type != watch.Added {
			t.Errorf("%s of a binding after the pod came", e.Type)
		}
		finished := pod.DeepCopy()
		finished.Status.Phase = corev1.PodSucceeded
		must(t, w.client.Status().Update(w.ctx, finished))
		pods.Modify(finished.DeepCopy())
		if e := <-bindings.ResultChan(); e.Type != watch.Deleted {
			t.Errorf("%s of a binding after the pod finished", e.Type)
		}
		bindings.Stop()
		must(t, w.client.Delete(w.ctx, finished))
		pods.Delete(finished.DeepCopy())
		cancel()
		must(t, <-done)
	}
}

// informPods lets a real cache tell of pods, and returns what it watches.
func (w *world) informPods() *cachetesting.FakeControllerSource {
	w.t.Helper()
	source := cachetesting.NewFakeControllerSource()
	pods, err := candidates.New(source)
	must(w.t, err)
	w.Candidates = candidatestest.Listed{Informers: pods, Reader: w.client}
	go func() { _ = pods.Start(w.ctx) }()
	w.t.Cleanup(source.Shutdown)
	return source
}

// inform puts a real informer for obj's kind into the world's cache. There is
// nothing of the kind.
func (w *world) inform(obj client.Object) {
	w.t.Helper()
	source := cachetesting.NewFakeControllerSource()
	informer := toolscache.NewSharedIndexInformer(source, obj, 0, nil)
	gvk, err := w.client.GroupVersionKindFor(obj)
	must(w.t, err)
	w.informers.InformersByGVK[gvk] = informer
	go informer.RunWithContext(w.ctx)
	w.t.Cleanup(source.Shutdown)
}
