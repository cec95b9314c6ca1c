package role

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates/candidatestest"
	"github.com/elector-io/elector/cmd/webhook/internal/history"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

var webLease = locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}

// candidate returns a pod of webLease, whose UID is its name's, with the given
// label.
func candidate(name, role string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name),
			Labels:      map[string]string{"elector.io/injected": "true"},
			Annotations: map[string]string{"elector.io/status": `{"lock":"web","mode":"lease"}`},
		},
		Spec:   corev1.PodSpec{InitContainers: []corev1.Container{{Name: "elector", Args: []string{"--lock=web"}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if role != "" {
		p.Labels["elector.io/role"] = role
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func ended(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }

func going(p *corev1.Pod) {
	p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: time.Unix(1, 0)}, []string{"test/stay"}
}

// ranked is a pod of a ReplicaSet, which deletes the cheapest first.
func ranked(p *corev1.Pod) {
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "1", Controller: new(true)}}
}

// cost is a pod with that deletion cost, of a ReplicaSet.
func cost(value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		ranked(p)
		p.Annotations["controller.kubernetes.io/pod-deletion-cost"] = value
	}
}

// ours is the leader's.
var ours = cost(candidates.LeaderCost)

func TestDecide(t *testing.T) {
	tests := map[string]struct {
		reason string
		holder string
		pods   []*corev1.Pod
		want   []string // in the order of the writes
	}{
		"no pods":       {"nothing for nobody", "a_uid-a", nil, nil},
		"right":         {"what is right is not written again", "a_uid-a", []*corev1.Pod{candidate("a", "leader"), candidate("b", "standby")}, nil},
		"new":           {"the leader's label matters most", "b_uid-b", []*corev1.Pod{candidate("a", ""), candidate("b", "")}, []string{"b leader", "a standby"}},
		"handover":      {"the old leader's label comes off first", "a_uid-a", []*corev1.Pod{candidate("a", "standby"), candidate("b", "leader"), candidate("c", "")}, []string{"b standby", "a leader", "c standby"}},
		"free":          {"nobody leads", "", []*corev1.Pod{candidate("a", "leader"), candidate("b", "standby")}, []string{"a standby"}},
		"not a pod":     {"a program outside of the cluster leads", "laptop_1", []*corev1.Pod{candidate("a", "leader")}, []string{"a standby"}},
		"recreated":     {"the holder was another pod of that name", "a_uid-old", []*corev1.Pod{candidate("a", "")}, []string{"a standby"}},
		"ended leader":  {"a dead pod leads nobody, whatever the lock says", "a_uid-a", []*corev1.Pod{candidate("a", "leader", ended), candidate("b", "standby")}, []string{"a standby"}},
		"ended":         {"a pod that is over needs no label", "b_uid-b", []*corev1.Pod{candidate("a", "", ended), candidate("b", "leader")}, nil},
		"going":         {"a pod that is over needs no label", "b_uid-b", []*corev1.Pod{candidate("a", "", going), candidate("b", "leader")}, nil},
		"going leader":  {"it leads until it releases", "a_uid-a", []*corev1.Pod{candidate("a", "", going)}, []string{"a leader"}},
		"other word":    {"somebody edited it", "b_uid-b", []*corev1.Pod{candidate("a", "boss"), candidate("b", "leader")}, []string{"a standby"}},
		"cheap leader":  {"it is to be deleted last", "a_uid-a", []*corev1.Pod{candidate("a", "leader", ranked), candidate("b", "standby", ranked)}, []string{"a costs"}},
		"dear leader":   {"what is right is not written again", "a_uid-a", []*corev1.Pod{candidate("a", "leader", ours), candidate("b", "standby", ranked)}, nil},
		"own cost":      {"it is the pod's to say", "a_uid-a", []*corev1.Pod{candidate("a", "leader", cost("-5")), candidate("b", "standby", cost("2147483647"))}, nil},
		"dear standby":  {"only the leader is deleted last", "a_uid-a", []*corev1.Pod{candidate("a", "leader", ours), candidate("b", "standby", ours)}, []string{"b standby"}},
		"dear and over": {"nobody chooses it any more", "a_uid-a", []*corev1.Pod{candidate("a", "leader", ours), candidate("b", "standby", ours, ended), candidate("c", "standby", ours, going)}, nil},
		"cheap, going":  {"it has been chosen", "a_uid-a", []*corev1.Pod{candidate("a", "leader", ranked, going)}, nil},
		"by a template": {"only one of them leads", "b_uid-b", []*corev1.Pod{candidate("a", "leader"), candidate("b", "leader"), candidate("c", "leader")}, []string{"a standby", "c standby"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var pods []candidates.Pod
			for _, p := range tc.pods {
				pods = append(pods, candidates.Of(p))
			}
			p := decide(tc.holder, pods)
			var got []string
			for _, pod := range p.former {
				got = append(got, pod.Name+" standby")
			}
			if p.leader != nobody {
				got = append(got, p.leader.Name+" leader")
			}
			for _, pod := range p.standbys {
				got = append(got, pod.Name+" standby")
			}
			if p.cheap != nobody {
				got = append(got, p.cheap.Name+" costs")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// world is a worker, an API server, and a cache that may lag behind it.
type world struct {
	*worker
	t     *testing.T
	ctx   context.Context
	api   client.WithWatch
	calls []string
	// fails is asked before a patch; optional.
	fails func(pod, role string) error
	// told is of whom was told that they lead.
	told []history.Change
	// refusesCost refuses every patch of a deletion cost.
	refusesCost bool
}

func newWorld(t *testing.T, holder string, pods ...*corev1.Pod) *world {
	t.Helper()
	w := &world{t: t, ctx: klog.NewContext(t.Context(), logr.Discard())}
	objects := []client.Object{&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}}
	for _, p := range pods {
		objects = append(objects, p)
	}
	w.api = fake.NewClientBuilder().WithObjects(objects...).Build()
	noted := interceptor.NewClient(w.api, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			w.calls = append(w.calls, "read "+key.Name)
			return c.Get(ctx, key, obj, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, subresource string, obj client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
			data, err := patch.Data(obj)
			if err != nil {
				return err
			}
			if subresource != "status" {
				return fmt.Errorf("the manager may not write pods/%s", subresource)
			}
			role := Standby
			if strings.Contains(string(data), `"leader"`) {
				role = Leader
			}
			call := obj.GetName() + " " + role
			if strings.Contains(string(data), "pod-deletion-cost") {
				call += " and cost"
			}
			w.calls = append(w.calls, call)
			if strings.Contains(call, "cost") && w.refusesCost {
				return apierrors.NewForbidden(corev1.Resource("pods"), obj.GetName(), errors.New("policy"))
			}
			if w.fails != nil {
				if err := w.fails(obj.GetName(), role); err != nil {
					return err
				}
			}
			err = c.Patch(ctx, obj, patch) // an API server takes metadata by way of the status; the fake does not
			if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown && patch.Type() == types.JSONPatchType {
				return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "patch", corev1.Resource("pods"), obj.GetName(), err.Error(), 0, false)
			}
			return err
		},
	})
	w.worker = newWorker(&Labeller{Config: Config{
		Pods: noted, Candidates: candidatestest.Listed{Reader: w.api}, Cache: candidatestest.Cached{Reader: w.api},
		Became: func(c history.Change) { w.told = append(w.told, c) },
	}, changes: newChanges()})
	w.unlabelled = newFollower(w.ctx, newObjects(), func(locks.Lock, locks.Said, locks.Said) {})
	return w
}

// hold makes the named candidate the holder.
func (w *world) hold(name string) {
	w.t.Helper()
	lease := &coordinationv1.Lease{}
	if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: "web"}, lease); err != nil {
		w.t.Fatal(err)
	}
	identity := name + "_uid-" + name
	lease.Spec.HolderIdentity = &identity
	if err := w.api.Update(w.ctx, lease); err != nil {
		w.t.Fatal(err)
	}
}

// freeze makes the cache stop where it is now, except for the lock.
func (w *world) freeze() {
	w.t.Helper()
	var pods corev1.PodList
	if err := w.api.List(w.ctx, &pods); err != nil {
		w.t.Fatal(err)
	}
	var objects []client.Object
	for i := range pods.Items {
		objects = append(objects, &pods.Items[i])
	}
	behind := fake.NewClientBuilder().WithObjects(objects...).Build()
	w.Candidates = candidatestest.Listed{Reader: behind}
	w.Cache = candidatestest.Cached{Reader: interceptor.NewClient(behind, interceptor.Funcs{
		Get: func(ctx context.Context, _ client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			return w.api.Get(ctx, key, obj, opts...)
		},
	})}
}

// thaw makes the cache have everything.
func (w *world) thaw() {
	w.Candidates, w.Cache = candidatestest.Listed{Reader: w.api}, candidatestest.Cached{Reader: w.api}
}

// pass reconciles the lock and compares the calls.
func (w *world) pass(want ...string) reconcile.Result {
	w.t.Helper()
	w.calls = nil
	result, err := w.reconcile(w.ctx, webLease)
	if err != nil {
		w.t.Error(err)
	}
	if diff := cmp.Diff(want, w.calls, cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("calls (-want +got):\n%s", diff)
	}
	return result
}

func TestReconcile(t *testing.T) {
	w := newWorld(t, "a_uid-a", candidate("a", ""), candidate("b", ""))
	w.pass("read b", "a leader", "b standby")
	w.pass()
	w.hold("b")
	w.pass("a standby", "b leader")
	w.hold("a")
	w.pass("b standby", "a leader")
}

// TestStaleCache has a cache that knows nothing of what was written.
func TestStaleCache(t *testing.T) {
	t.Run("by this manager", func(t *testing.T) {
		w := newWorld(t, "a_uid-a", candidate("a", "standby"), candidate("b", "standby"))
		w.freeze()
		w.pass("read b", "a leader")
		w.hold("b")
		if result := w.pass("a standby", "b leader"); result.RequeueAfter > 0 {
			t.Error("conflict")
		}
	})
	t.Run("by the one before", func(t *testing.T) {
		w := newWorld(t, "b_uid-b", candidate("a", "standby"), candidate("b", "standby"))
		w.freeze()
		a := candidate("a", "leader")
		if err := w.api.Update(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		w.pass("read a", "a standby", "b leader")
	})
	t.Run("a leader that changed", func(t *testing.T) {
		w := newWorld(t, "a_uid-a", candidate("a", "standby"))
		w.freeze()
		if err := w.api.Update(t.Context(), candidate("a", "standby", func(p *corev1.Pod) { p.Annotations["seen"] = "no" })); err != nil {
			t.Fatal(err)
		}
		if result := w.pass("a leader", "read a"); result.RequeueAfter == 0 {
			t.Error("a leader was made of a version that was not judged")
		}
	})
}

// TestPatch holds what a write depends on.
func TestPatch(t *testing.T) {
	const asLeader, asStandby = `{"metadata":{"labels":{"elector.io/role":"leader"},"resourceVersion":"7","uid":"uid-a"}}`,
		`{"metadata":{"labels":{"elector.io/role":"standby"},"uid":"uid-a"}}`
	tests := map[string]struct {
		reason, role string
		change       func(*corev1.Pod)
		want         string
	}{
		"leader":         {"only of the version that was judged", Leader, nil, asLeader},
		"standby":        {"at any time", Standby, nil, asStandby},
		"ranked leader":  {"one write for both", Leader, ranked, `{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"2147483646"},"labels":{"elector.io/role":"leader"},"resourceVersion":"7","uid":"uid-a"}}`},
		"ranked standby": {"there is nothing to take away", Standby, ranked, asStandby},
		"own cost":       {"it stays", Leader, cost("5"), asLeader},
		"own as standby": {"it stays", Standby, cost("5"), asStandby},
		"former leader": {"another cost than the leader's is not taken away", Standby, ours, `[{"op":"test","path":"/metadata/uid","value":"uid-a"},` +
			`{"op":"add","path":"/metadata/labels/elector.io~1role","value":"standby"},` +
			`{"op":"test","path":"/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost","value":"2147483646"},` +
			`{"op":"remove","path":"/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost"}]`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := candidate("a", "", func(p *corev1.Pod) { p.ResourceVersion = "7" })
			if tc.change != nil {
				tc.change(pod)
			}
			patch, err := patchFor(candidates.Of(pod), tc.role)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := patch.Data(nil); err != nil || string(got) != tc.want {
				t.Errorf("%s: got %s %v, want %s", tc.reason, got, err, tc.want)
			}
		})
	}
}

// TestCost follows the cost from leader to leader, past one that the cache does not
// know yet, and one that somebody writes meanwhile.
func TestCost(t *testing.T) {
	w := newWorld(t, "a_uid-a", candidate("a", "", ranked), candidate("b", "", ranked))
	w.pass("read b", "a leader and cost", "b standby")
	w.costs(candidates.LeaderCost, "")
	w.pass()
	w.freeze()
	w.hold("b")
	w.pass("a standby and cost", "b leader and cost") // of which the cache knows nothing
	w.costs("", candidates.LeaderCost)
	w.thaw()
	w.pass()
	w.freeze()
	w.edit("b", func(p *corev1.Pod) { p.Annotations[corev1.PodDeletionCost] = "7" })
	w.hold("a")
	w.pass("b standby and cost", "b standby", "a leader and cost")
	w.costs(candidates.LeaderCost, "7")
	w.thaw()
	w.hold("b")
	w.pass("a standby and cost", "b leader")
	w.costs("", "7")
	w.edit("b", func(p *corev1.Pod) { delete(p.Annotations, corev1.PodDeletionCost) })
	w.pass("b leader and cost")
	w.pass()
}

// TestView holds that what makes a write necessary is noticed.
func TestView(t *testing.T) {
	same := view(candidates.Of(candidate("a", "leader", ranked)))
	for name, pod := range map[string]*corev1.Pod{
		"role": candidate("a", "standby", ranked), "end": candidate("a", "leader", ranked, ended), "cost": candidate("a", "leader", ours),
	} {
		if view(candidates.Of(pod)) == same {
			t.Errorf("another %s is no change", name)
		}
	}
}

// TestCostOfTheManagerBefore has a cache that does not know what it wrote.
func TestCostOfTheManagerBefore(t *testing.T) {
	w := newWorld(t, "b_uid-b", candidate("a", "standby", ranked), candidate("b", "standby", ranked))
	w.freeze()
	w.edit("a", func(p *corev1.Pod) {
		p.Labels["elector.io/role"], p.Annotations[corev1.PodDeletionCost] = Leader, candidates.LeaderCost
	})
	w.pass("read a", "a standby and cost", "b leader and cost")
	w.costs("", candidates.LeaderCost)
}

// TestCostRefused has a policy that admits no deletion cost: the labels do not
// depend on it.
func TestCostRefused(t *testing.T) {
	w := newWorld(t, "b_uid-b", candidate("a", "leader", ours), candidate("b", "standby", ranked))
	w.refusesCost = true
	w.pass("a standby and cost", "a standby", "b leader and cost", "b leader")
	w.costs(candidates.LeaderCost, "")
	if w.failing.next(webLease) > 0 {
		t.Error("a pod has a pause")
	}
}

// TestDeselected holds that nothing is remembered of a lock whose namespace is not selected any more, or that no pod is about.
func TestDeselected(t *testing.T) {
	w := newWorld(t, "a_uid-a", candidate("a", "leader"), candidate("b", "standby"))
	w.hold("b")
	w.fails = func(pod, _ string) error {
		if pod == "b" {
			return apierrors.NewTimeoutError("away", 1)
		}
		return nil
	}
	if _, err := w.reconcile(w.ctx, webLease); err == nil {
		t.Fatal("it did not fail")
	}
	w.parted(webLease, locks.Parting{Holder: "a_uid-a", How: locks.Released})
	if len(w.pasts)*len(w.failing.pods) == 0 {
		t.Fatal("the test shows nothing")
	}
	w.forget(webLease)
	w.parted(locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "nobody-s"}, locks.Parting{Holder: "a_uid-a", How: locks.Released})
	if n := len(w.pasts) + len(w.failing.pods); n > 0 {
		t.Errorf("%d things are remembered", n)
	}
}

// TestTold holds that a change is told once, with what was seen of it.
func TestTold(t *testing.T) {
	w := newWorld(t, "a_uid-a", candidate("a", ""), candidate("b", ""))
	tell := func(reason string, want ...string) {
		t.Helper()
		if _, err := w.reconcile(w.ctx, webLease); err != nil {
			t.Error(err)
		}
		var got []string
		for _, c := range w.told {
			got = append(got, fmt.Sprintf("%s after %s %s, gone %v", c.Leader.Name, c.Before.Name, c.Parting.Holder, c.Gone))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", reason, diff)
		}
		w.told = nil
	}
	relabel := func(pod, role string) {
		w.edit(pod, func(p *corev1.Pod) { p.Labels["elector.io/role"] = role })
	}
	tell("the first", "a after  , gone true")
	tell("nothing has changed")
	relabel("a", Standby)
	tell("a label that is put right is no change")

	w.parted(webLease, locks.Parting{Holder: "a_uid-a", How: locks.Released})
	w.hold("b")
	w.fails = func(_, role string) error {
		if role == Leader {
			return apierrors.NewTimeoutError("away", 1)
		}
		return nil
	}
	if _, err := w.reconcile(w.ctx, webLease); err == nil || len(w.told) > 0 {
		t.Errorf("told before it is so: %v %v", w.told, err)
	}
	w.fails = nil
	w.failing = failing{}
	tell("another one, at the second try", "b after a a_uid-a, gone false")
	relabel("b", Standby)
	tell("a label that is put right is no change")
	w.parted(webLease, locks.Parting{Holder: "b_uid-b", How: locks.Released})
	relabel("b", Standby)
	tell("it came back before anything was written, and not after the one before", "b after  b_uid-b, gone true")

	w.parted(webLease, locks.Parting{Holder: "b_uid-b", How: locks.Released})
	w.hold("nobody")
	tell("nobody")
	w.hold("b")
	tell("the same again", "b after b b_uid-b, gone false")

	w.parted(webLease, locks.Parting{Holder: "b_uid-b", How: locks.Released})
	if err := w.api.Delete(w.ctx, candidate("b", "")); err != nil {
		t.Fatal(err)
	}
	w.hold("a")
	tell("after one that is gone", "a after b b_uid-b, gone true")

	w = newWorld(t, "a_uid-a", candidate("a", "leader"), candidate("b", "standby"))
	tell("the manager before has told that")
	relabel("a", Standby)
	tell("a label that is put right is no change, whoever wrote it")
	w.parted(webLease, locks.Parting{Holder: "a_uid-a", How: locks.Released})
	w.hold("b")
	tell("another one", "b after a a_uid-a, gone false")
	w = newWorld(t, "b_uid-b", candidate("a", "leader"), candidate("b", "standby"))
	tell("no manager watched", "b after a , gone false")

	if err := w.api.DeleteAllOf(w.ctx, &corev1.Pod{}, client.InNamespace("shop")); err != nil {
		t.Fatal(err)
	}
	w.parted(webLease, locks.Parting{Holder: "b_uid-b", How: locks.Released})
	tell("nobody is left")
	if len(w.pasts) > 0 {
		t.Errorf("remembered of a lock without pods: %+v", w.pasts)
	}
}

// costs compares the deletion costs of the pods a and b.
func (w *world) costs(want ...string) {
	w.t.Helper()
	var got []string
	for _, name := range []string{"a", "b"} {
		var pod corev1.Pod
		if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: name}, &pod); err != nil {
			w.t.Fatal(err)
		}
		got = append(got, pod.Annotations[corev1.PodDeletionCost])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("deletion costs (-want +got):\n%s", diff)
	}
}

// edit changes a pod as somebody else does.
func (w *world) edit(name string, change func(*corev1.Pod)) {
	w.t.Helper()
	var pod corev1.Pod
	if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: name}, &pod); err != nil {
		w.t.Fatal(err)
	}
	change(&pod)
	if err := w.api.Update(w.ctx, &pod); err != nil {
		w.t.Fatal(err)
	}
}

// TestUnknown has a lock that the cache does not have, as after a takeover of the
// manager: the present leader is not deposed before its holder is known.
func TestUnknown(t *testing.T) {
	w := newWorld(t, "a_uid-a", candidate("a", "leader"), candidate("b", ""))
	ctx, cancel := context.WithCancel(w.ctx)
	w.unlabelled = newFollower(ctx, newObjects(), func(locks.Lock, locks.Said, locks.Said) {})
	defer func() { cancel(); w.unlabelled.wait() }()
	if err := w.api.Delete(w.ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	w.pass("b standby")
}

// TestStall has failures between the two writes.
func TestStall(t *testing.T) {
	pods := corev1.Resource("pods")
	tests := map[string]struct {
		reason string
		err    error
		gone   bool // or another pod has its name
		want   []string
	}{
		"vanished":  {"there is no label to remove", apierrors.NewNotFound(pods, "a"), true, []string{"a standby", "b leader"}},
		"recreated": {"the label went with the old pod", apierrors.NewConflict(pods, "a", errors.New("uid mismatch")), true, []string{"a standby", "read a", "b leader"}},
		"busy":      {"the label is still there", apierrors.NewConflict(pods, "a", errors.New("too many writers")), false, []string{"a standby", "read a"}},
		"denied":    {"never two, rather none", apierrors.NewForbidden(pods, "a", errors.New("policy")), false, []string{"a standby"}},
		"timeout":   {"nobody knows", context.DeadlineExceeded, false, []string{"a standby"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "a_uid-a", candidate("a", "standby"), candidate("b", "standby"))
			w.pass("read b", "a leader")
			w.hold("b")
			w.fails = func(pod, _ string) error {
				if pod == "a" {
					return tc.err
				}
				return nil
			}
			if tc.gone {
				w.freeze()
				if err := w.api.Delete(t.Context(), candidate("a", "")); err != nil {
					t.Fatal(err)
				}
				if apierrors.IsConflict(tc.err) {
					if err := w.api.Create(t.Context(), candidate("a", "", func(p *corev1.Pod) { p.UID = "another" })); err != nil {
						t.Fatal(err)
					}
				}
			}
			w.calls = nil
			result, err := w.reconcile(w.ctx, webLease)
			if diff := cmp.Diff(tc.want, w.calls); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if again := err != nil || result.RequeueAfter > 0; again == tc.gone {
				t.Errorf("looked at again: %v (%v)", again, err)
			}
		})
	}
}

// TestFailingPod has an API server that takes no label for a pod: somebody made it
// as large as can be, say, or every request about it takes too long.
func TestFailingPod(t *testing.T) {
	tests := map[string]struct {
		reason string
		role   string // of the pod that fails
		holder string
		// want are the pods that have their label when the failing one has failed for
		// some seconds.
		want map[string]string
	}{
		"forged leader":  {"it is not the holder, and must not hold up who is", Leader, "a", map[string]string{"a": Leader, "b": Standby}},
		"forged standby": {"the others need theirs", "", "a", map[string]string{"a": Leader, "b": Standby}},
		"holder":         {"the standbys need theirs", "", "evil", map[string]string{"a": Standby, "b": Standby}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tc.holder+"_uid-"+tc.holder, candidate("a", ""), candidate("b", ""), candidate("evil", tc.role))
				var failures []time.Duration
				begun := time.Now()
				w.fails = func(pod, _ string) error {
					if pod != "evil" {
						return nil
					}
					failures = append(failures, time.Since(begun))
					return apierrors.NewInternalError(errors.New("etcdserver: request is too large"))
				}
				w.run(10 * time.Second)
				got := map[string]string{}
				for _, name := range []string{"a", "b"} {
					var pod corev1.Pod
					if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: name}, &pod); err != nil {
						t.Fatal(err)
					}
					got[name] = pod.Labels["elector.io/role"]
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
				}
				w.run(time.Hour)
				if pause := failures[len(failures)-1] - failures[len(failures)-2]; pause < time.Minute || pause > 3*time.Minute || len(failures) > 45 {
					t.Errorf("tried %d times in an hour, at last after %v", len(failures), pause)
				}
				w.fails = nil
				w.run(3 * time.Minute)
				if w.failing.next(webLease) > 0 {
					t.Error("a pod that does not fail any more has a pause")
				}
				if err := w.api.Delete(w.ctx, candidate("evil", "")); err != nil {
					t.Fatal(err)
				}
				w.run(time.Second)
				if len(w.failing.pods) > 0 {
					t.Errorf("a pod that is gone is remembered: %v", w.failing.pods)
				}
			})
		})
	}
}

// TestFailingLeader has a leader that this manager labelled, and that cannot be
// written to from then on: there are never two.
func TestFailingLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a_uid-a", candidate("a", ""), candidate("b", ""))
		w.run(time.Second)
		w.hold("b")
		w.fails = func(pod, role string) error {
			switch {
			case pod == "a":
				return apierrors.NewForbidden(corev1.Resource("pods"), "a", errors.New("policy"))
			case role == Leader:
				t.Errorf("%s is labelled besides the old leader", pod)
			}
			return nil
		}
		w.run(time.Hour)
		w.fails, w.calls = nil, nil
		w.run(3 * time.Minute)
		if diff := cmp.Diff([]string{"a standby", "b leader"}, w.calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// TestFailedHolder has a pod that held the lock for a moment, and whose label was
// never written: nobody waits for it for ever.
func TestFailedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "evil_uid-evil", candidate("a", "standby"), candidate("evil", ""))
		w.fails = func(pod, _ string) error {
			if pod == "evil" {
				return apierrors.NewInternalError(errors.New("etcdserver: request is too large"))
			}
			return nil
		}
		w.run(10 * time.Second)
		w.hold("a")
		w.calls = nil
		w.run(3 * time.Minute)
		if !slices.Contains(w.calls, "a leader") {
			t.Errorf("the leader has no label: %v", w.calls)
		}
	})
}

// run is the lock's part of a loop, in virtual time: after a pass that failed comes
// another one in some seconds at most.
func (w *world) run(lasts time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(lasts); ; {
		result, err := w.reconcile(w.ctx, webLease)
		pause := min(result.RequeueAfter, time.Until(end))
		if err != nil {
			pause = 20 * time.Millisecond
		}
		if pause <= 0 {
			pause = time.Until(end)
		}
		<-time.After(pause)
		if !time.Now().Before(end) {
			return
		}
	}
}
