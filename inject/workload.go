package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/elector-io/elector/elector"
)

// Workload returns the workload with its elector.io annotations carried to its
// pod template, and warnings for the person who sent it. old is what is stored,
// nil on creation. Neither argument is touched. opts must be valid.
//
// What was carried is noted on the workload in AnnotationCarried, so that it can
// be told from what a user wrote into the template: the user's own wins, and
// stays when the workload's annotation goes. When that goes, or turns to
// enabled "false", the template becomes what it was. A carried annotation that
// the user writes into the template afterwards with the same value counts as the
// user's from then on if the object shows it: kubectl apply and server-side apply
// record what they were given, kubectl edit does not.
//
// A template that asks for the sidecar is tried with Pod, so that the person who
// made the mistake reads the refusal, not a controller. That is done when the
// template or the annotations change, never for another update of a workload that
// is there already.
//
// What a CronJob's Jobs ask for by annotations of their own is tried, too. Warnings
// tell of what looks like an annotation and has no effect: a label, another
// prefix, settings without elector.io/enabled, what the template overrules. Another
// warning tells that old and new pods will have two locks, and so two leaders.
//
// A ReplicaSet that a controller owns is left alone: a Deployment copies its own
// annotations to it, compares templates, and would make ReplicaSets without end
// if they differed. A Job is changed on creation only, its template is immutable
// afterwards. Anything being deleted is left alone, too.
//
// Every refusal is a *elector.FieldError. Other kinds than Deployment, StatefulSet,
// DaemonSet, ReplicaSet, ReplicationController, Job and CronJob are another error.
func Workload(obj, old runtime.Object, opts Options) (runtime.Object, []string, error) {
	out := obj.DeepCopyObject()
	w, err := open(out)
	if err != nil {
		return nil, nil, err
	}
	if w.isLeftAlone() {
		return out, nil, nil
	}
	opts = opts.withDefaults()
	given := w.everywhere()
	if _, injected := StatusOf(w.pod()); injected {
		delete(given, AnnotationStatus) // elector's own, in a template of Template's
	}
	warnings := append(unknownKeys(given, AnnotationCarried), w.overlooked()...)
	var before workload
	noted := carriedBy(w.meta)
	if old != nil {
		if before, err = open(old); err != nil {
			return nil, nil, err
		}
		if w.kind == "Job" {
			return out, append(warnings, lateJob(w)...), nil
		}
		noted = union(carriedBy(before.meta), noted)
	}
	if err := w.carry(noted, before.template, opts); err != nil {
		return nil, nil, err
	}
	warnings = append(warnings, w.contradictions()...)
	if old != nil && reflect.DeepEqual(before.template, w.template) && maps.Equal(own(before.everywhere()), own(w.everywhere())) {
		return out, warnings, nil
	}
	if err := w.checkTemplate(opts); err != nil {
		return nil, nil, err
	}
	if _, err := Pod(w.pod(), opts); err != nil {
		return nil, nil, err
	}
	if w.kind == "Job" {
		if err := checkMaker(w.meta, w.template.Annotations); err != nil {
			return nil, nil, err
		}
	}
	if err := w.checkSelector(); err != nil {
		return nil, nil, err
	}
	if err := w.checkRollout(opts); err != nil {
		return nil, nil, err
	}
	if _, err := asks(w.meta.Annotations); err != nil {
		return nil, nil, err
	}
	if old != nil {
		warnings = append(warnings, w.twoLocks(before, opts)...)
	}
	if w.jobs == nil || len(own(w.jobs.Annotations)) == 0 {
		return out, append(warnings, w.warnings(opts)...), nil
	}
	// What its Jobs ask for themselves is refused to the CronJob's author, too.
	_, more, err := Workload(w.job(), nil, opts)
	if err != nil {
		return nil, nil, err
	}
	more = append(w.warnings(opts), more...)
	return out, append(warnings, slices.DeleteFunc(more, func(m string) bool { return slices.Contains(warnings, m) })...), nil
}

// workload is the part that all kinds have; its pointers are into the object.
type workload struct {
	kind     string
	meta     *metav1.ObjectMeta
	template *corev1.PodTemplateSpec
	path     []string // of the template in the object
	single   bool     // one replica, which is no choice
	none     bool     // no replica
	apart    bool     // its old pods have ended before the new ones begin
	instead  string   // of a rollout that waits for standbys to be Ready; empty if it does not
	selector *metav1.LabelSelector
	jobs     *metav1.ObjectMeta // of the Jobs that a CronJob makes
}

// isLeftAlone reports whether nobody should change the workload: it is going, or
// it is a controller's.
func (w workload) isLeftAlone() bool {
	return w.meta.DeletionTimestamp != nil || (w.kind == "ReplicaSet" && metav1.GetControllerOfNoCopy(w.meta) != nil)
}

// everywhere returns the annotations of the workload and its templates together.
func (w workload) everywhere() map[string]string {
	all := union(w.template.Annotations, w.meta.Annotations)
	if w.jobs != nil {
		all = union(w.jobs.Annotations, all)
	}
	return all
}

func open(obj runtime.Object) (workload, error) {
	path := []string{"spec", "template"}
	one := func(replicas *int32) bool { return replicas == nil || *replicas == 1 }
	none := func(replicas *int32) bool { return replicas != nil && *replicas == 0 }
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return workload{kind: "Deployment", meta: &o.ObjectMeta, template: &o.Spec.Template, path: path, single: one(o.Spec.Replicas), none: none(o.Spec.Replicas), apart: o.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType, instead: insteadOfRolling(&o.Spec), selector: o.Spec.Selector}, nil
	case *appsv1.StatefulSet:
		return workload{kind: "StatefulSet", meta: &o.ObjectMeta, template: &o.Spec.Template, path: path, single: one(o.Spec.Replicas), none: none(o.Spec.Replicas), apart: one(o.Spec.Replicas), instead: insteadOfOrder(&o.Spec), selector: o.Spec.Selector}, nil
	case *appsv1.ReplicaSet:
		return workload{kind: "ReplicaSet", meta: &o.ObjectMeta, template: &o.Spec.Template, path: path, single: one(o.Spec.Replicas), none: none(o.Spec.Replicas), selector: o.Spec.Selector}, nil
	case *appsv1.DaemonSet:
		return workload{kind: "DaemonSet", meta: &o.ObjectMeta, template: &o.Spec.Template, path: path, instead: insteadOfNodes(&o.Spec), selector: o.Spec.Selector}, nil
	case *corev1.ReplicationController:
		if o.Spec.Template == nil {
			return workload{}, errors.New("a ReplicationController without a pod template cannot make pods")
		}
		return workload{kind: "ReplicationController", meta: &o.ObjectMeta, template: o.Spec.Template, path: path, single: one(o.Spec.Replicas), none: none(o.Spec.Replicas), selector: &metav1.LabelSelector{MatchLabels: o.Spec.Selector}}, nil
	case *batchv1.Job:
		return workload{kind: "Job", meta: &o.ObjectMeta, template: &o.Spec.Template, path: path, selector: o.Spec.Selector}, nil
	case *batchv1.CronJob:
		path := []string{"spec", "jobTemplate", "spec", "template"}
		return workload{kind: "CronJob", meta: &o.ObjectMeta, template: &o.Spec.JobTemplate.Spec.Template, path: path, apart: o.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent, jobs: &o.Spec.JobTemplate.ObjectMeta}, nil
	default:
		return workload{}, fmt.Errorf("a %T has no pod template that elector knows", obj)
	}
}

// carry brings the template in line with the workload's annotations. noted is
// what was carried before, into the template before, which is nil on creation.
func (w workload) carry(noted map[string]string, before *corev1.PodTemplateSpec, opts Options) error {
	users := maps.Clone(w.template.Annotations)
	for key, value := range noted {
		if users[key] == value && !w.userWrote(key) {
			delete(users, key)
		}
	}
	carried := w.wanted(users, w.cronJobLock(users, noted, before, opts))
	w.template.Annotations = union(users, carried)
	if len(carried) == 0 {
		delete(w.meta.Annotations, AnnotationCarried)
		return nil
	}
	note, err := json.Marshal(carried) // The keys come sorted.
	if err != nil {
		return fmt.Errorf("noting what was carried: %w", err)
	}
	if w.meta.Annotations == nil {
		w.meta.Annotations = map[string]string{}
	}
	w.meta.Annotations[AnnotationCarried] = string(note)
	return nil
}

// wanted returns what to add to the user's own annotations of the template.
// Nothing if the pods would not be elected: it would roll them for nothing.
// lock is the name if nobody chose one, and empty if the pods can tell it.
func (w workload) wanted(users map[string]string, lock string) map[string]string {
	enabled, ok := users[Prefix+keyEnabled]
	if !ok {
		enabled = w.meta.Annotations[Prefix+keyEnabled]
	}
	if enabled != "true" {
		return nil
	}
	wanted := map[string]string{}
	for _, a := range annotations {
		value, ok := w.meta.Annotations[a.Key]
		if !ok && a.Key == Prefix+keyLock {
			value, ok = lock, lock != ""
		}
		if _, users := users[a.Key]; ok && !users {
			wanted[a.Key] = value
		}
	}
	return wanted
}

// cronJob returns the name of the CronJob that the workload is, or that made it.
// Its Jobs have names of their own, so the pods could not tell that they belong
// together.
func (w workload) cronJob() string {
	if w.kind == "CronJob" {
		return w.meta.Name
	}
	if owner := metav1.GetControllerOfNoCopy(w.meta); w.kind == "Job" && owner != nil && owner.Kind == "CronJob" {
		return owner.Name
	}
	return ""
}

// cronJobLock is the lock of a CronJob's pods when nobody chose one.
func (w workload) cronJobLock(users, noted map[string]string, before *corev1.PodTemplateSpec, opts Options) string {
	name := w.cronJob()
	if name == "" {
		return ""
	}
	mode := modeOf(union(w.meta.Annotations, users), opts)
	// Managers before lockSuffix carried the bare name: a Job that still runs may
	// have it, and the next would lead beside it.
	if before != nil && noted[Prefix+keyLock] == name && modeOf(before.Annotations, opts) == mode {
		return name
	}
	return DefaultLock(name, mode)
}

// carriedBy reads AnnotationCarried. What cannot be read, or is not elector's to
// carry, was written by somebody else and is as good as nothing.
func carriedBy(meta *metav1.ObjectMeta) map[string]string {
	var noted map[string]string
	if err := json.Unmarshal([]byte(meta.Annotations[AnnotationCarried]), &noted); err != nil {
		return nil
	}
	return own(noted)
}

// own returns the annotations that a user sets for elector.
func own(all map[string]string) map[string]string {
	own := map[string]string{}
	for _, a := range annotations {
		if v, ok := all[a.Key]; ok {
			own[a.Key] = v
		}
	}
	return own
}

// union returns a's and b's entries, b's where both have one, and nil for none.
func union(a, b map[string]string) map[string]string {
	if len(a)+len(b) == 0 {
		return nil
	}
	u := make(map[string]string, len(a)+len(b))
	maps.Copy(u, a)
	maps.Copy(u, b)
	return u
}

// userWrote reports whether the object shows that a user applied the annotation
// of the template. Admission's own changes appear in neither record.
func (w workload) userWrote(key string) bool {
	path := append(slices.Clone(w.path), "metadata", "annotations", key)
	if applied, ok := w.meta.Annotations[corev1.LastAppliedConfigAnnotation]; ok && hasPath([]byte(applied), path, "") {
		return true
	}
	for _, entry := range w.meta.ManagedFields {
		if entry.Operation == metav1.ManagedFieldsOperationApply && entry.FieldsV1 != nil && hasPath(entry.FieldsV1.GetRawBytes(), path, "f:") {
			return true
		}
	}
	return false
}

// hasPath walks a JSON object whose keys have the prefix.
func hasPath(object []byte, path []string, prefix string) bool {
	for _, name := range path {
		var fields map[string]json.RawMessage
		if json.Unmarshal(object, &fields) != nil {
			return false
		}
		next, ok := fields[prefix+name]
		if !ok {
			return false
		}
		object = next
	}
	return true
}

// pod is what the template will become, as far as the lock's name depends on it:
// under the workload's name, or with the workload as its controller.
func (w workload) pod() *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: w.template.ObjectMeta, Spec: w.template.Spec}
	pod.Namespace, pod.Name, pod.GenerateName = w.meta.Namespace, w.meta.Name, w.meta.GenerateName
	pod.OwnerReferences = nil
	version := appsv1.SchemeGroupVersion
	switch w.kind {
	case "Job":
		version = batchv1.SchemeGroupVersion
	case "ReplicationController":
		version = corev1.SchemeGroupVersion
	case "Deployment", "CronJob":
		return pod // others make their pods for them
	}
	if w.meta.Name != "" {
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(w.meta, version.WithKind(w.kind))}
	}
	return pod
}

// job is what a CronJob will make.
func (w workload) job() *batchv1.Job {
	job := &batchv1.Job{ObjectMeta: *w.jobs.DeepCopy(), Spec: batchv1.JobSpec{Template: *w.template.DeepCopy()}}
	job.Namespace, job.Name = w.meta.Namespace, w.meta.Name
	job.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(w.meta, batchv1.SchemeGroupVersion.WithKind("CronJob"))}
	return job
}

// checkSelector refuses to elect by a label that the selector looks for: when it
// changed the workload would no longer know the pod as its own, and make another,
// and so on without end.
func (w workload) checkSelector() error {
	if wanted, err := asks(w.template.Annotations); err != nil || !wanted || w.selector == nil {
		return err
	}
	for _, label := range []string{LabelRole, LabelInjected} {
		if _, ok := w.selector.MatchLabels[label]; ok || slices.ContainsFunc(w.selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == label }) {
			return &elector.FieldError{Field: "spec.selector", Value: label, Allowed: "elector sets this label itself, select pods by others"}
		}
	}
	return nil
}

func (w workload) warnings(opts Options) []string {
	pod := w.pod()
	if wanted, err := asks(pod.Annotations); err != nil || !wanted {
		return nil
	}
	warnings := unwise(pod, "", opts)
	if w.single {
		warnings = append(warnings, "elector.io: with one replica there is no standby to take over while it is away")
	}
	return warnings
}

// twoLocks tells that the workload's pods of before and the new ones will be
// candidates for two locks. Where the two never run together there is one leader.
func (w workload) twoLocks(before workload, opts Options) []string {
	if w.apart || w.none || before.none {
		return nil
	}
	had, ok := before.lock(opts)
	gets, ok2 := w.lock(opts)
	if !ok || !ok2 || had == gets {
		return nil
	}
	return []string{fmt.Sprintf(
		"elector.io: old and new pods have a leader each until the old ones are gone, because their locks differ, so let the old ones end first, as by scaling to 0: they had the %s, the new ones get the %s",
		objectOf(had), objectOf(gets))}
}

// lock is the one for which the pods of the template will be candidates. It is not
// ok if they will not be, or cannot be admitted.
func (w workload) lock(opts Options) (lock Status, ok bool) {
	pod := w.pod()
	if wanted, err := asks(pod.Annotations); err != nil || !wanted {
		return Status{}, false
	}
	has, _ := StatusOf(pod)
	name, err := lockOf(&pod.ObjectMeta, has.Lock, opts)
	return Status{Lock: name, Mode: modeOf(pod.Annotations, opts)}, err == nil
}

// objectOf names the lock's object as people read it.
func objectOf(lock Status) string {
	if lock.Mode == elector.ModeLeaderForLife {
		return fmt.Sprintf("ConfigMap %q", shorten(lock.Lock))
	}
	return fmt.Sprintf("Lease %q", shorten(lock.Lock))
}

// lateJob says why annotating a Job that is there does nothing.
func lateJob(w workload) []string {
	if w.meta.Annotations[Prefix+keyEnabled] != "true" || w.template.Annotations[Prefix+keyEnabled] == "true" {
		return nil
	}
	return []string{"elector.io: the pod template of a Job cannot change after creation, so the annotation has no effect until the Job is created anew"}
}
